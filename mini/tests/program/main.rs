//! The program as a user runs it: exit codes, files, messages, training, archives.

use std::path::Path;
use std::process::{Command, Output};

mod cli;
mod pipeline;

/// Runs `mini` with these arguments and the output directory `out`.
fn mini(out: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mini"))
        .args(args)
        .arg("--out")
        .arg(out)
        .output()
        .expect("the program starts")
}
