//! Refuses to build ggml for a CPU of 2003, which no one would see in the table.

use std::process::exit;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if !flags.contains("target-cpu=native") {
        println!(
            "cargo::error=ggml is only compared as built for this CPU; cargo reads .cargo/config.toml from \
             the working directory: run it in perf/peers, or with --config perf/peers/.cargo/config.toml"
        );
        exit(1);
    }
}
