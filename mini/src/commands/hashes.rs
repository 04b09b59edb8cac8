//! `env.txt` and `hashes.txt`: the machine, and the SHA-256 of the files.

use std::env::consts;
use std::fs;
use std::io::Write;

use anyhow::{Context, Result};

use crate::cli::GlobalArgs;
use crate::hashes;
use crate::report::outputs::{Outputs, is_timed};
use crate::setup;

/// Writes `env.txt`, and `hashes.txt` over every file that holds no timings.
///
/// # Errors
/// When a file cannot be read or written.
pub fn run(global: &GlobalArgs, outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    let path = outputs.environment();
    fs::write(&path, environment(global)?).with_context(|| format!("cannot write {}", path.display()))?;
    let path = outputs.hashes();
    let mut names = hashes::names(outputs.dir())?;
    names.retain(|name| !is_timed(name) && outputs.dir().join(name) != path);
    hashes::write(&path, &hashes::of(outputs.dir(), &names)?)?;
    writeln!(log, "{}: {} files", path.display(), names.len())?;
    Ok(())
}

/// Machine, program and options of the run.
fn environment(global: &GlobalArgs) -> Result<String> {
    let ctx = setup::context(global.isa, global.threads)?;
    let best = kvern::Isa::detect();
    let mut text = String::new();
    for (name, value) in [
        ("program", format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))),
        ("system", format!("{} {}", consts::OS, consts::ARCH)),
        ("processor", processor().unwrap_or_else(|| "unknown".into())),
        ("best tier", best.to_string()),
        ("compute", setup::describe(&ctx)),
    ] {
        text.push_str(&format!("{name}: {value}\n"));
    }
    for (operation, kernel) in ctx.kernel_names() {
        text.push_str(&format!("kernel of {operation}: {kernel}\n"));
    }
    Ok(text)
}

/// The name of the CPU, where the system reports it.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
