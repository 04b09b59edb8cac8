//! `mini test-idem`: everything twice, and the same bytes both times.

use std::fs;
use std::io::{Write, sink};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::run;
use crate::cli::{GlobalArgs, RunArgs};
use crate::hashes::{self, FileHash};
use crate::report::outputs::{Outputs, is_timed};

/// Runs `run` into `idem/a` and `idem/b` of the output directory and compares the SHA-256 of every file but
/// those that [`is_timed`] names.
///
/// # Errors
/// When a run fails or files differ; the message names them.
pub fn run(
    args: &RunArgs,
    global: &GlobalArgs,
    program: &Path,
    outputs: &Outputs,
    log: &mut impl Write,
) -> Result<()> {
    let mut found: Vec<Vec<FileHash>> = Vec::new();
    for name in ["a", "b"] {
        let dir = outputs.dir().join("idem").join(name);
        if dir.try_exists()? {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        writeln!(log, "running into {}", dir.display())?;
        let global = GlobalArgs { out: dir.clone(), ..global.clone() };
        run::run(args, &global, program, &Outputs::new(&dir), &mut sink())?;
        let mut names = hashes::names(&dir)?;
        let all = names.len();
        names.retain(|name| !is_timed(name));
        writeln!(log, "{} files, {} of them with timings and left out", all, all - names.len())?;
        found.push(hashes::of(&dir, &names)?);
    }
    let [a, b] = &found[..] else { return Ok(()) };
    for hash in a {
        writeln!(log, "  {}  {}", hash.sha256, hash.name)?;
    }
    let differences = hashes::differences(a, b);
    ensure!(differences.is_empty(), "two runs differ:\n{}", differences.join("\n"));
    writeln!(log, "{} files are the same in both runs", a.len())?;
    Ok(())
}
