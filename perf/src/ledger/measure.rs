//! Runs the benches under Callgrind and reads the counts.

use super::Options;
use super::table::Counts;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Returns the output of a command; an error if the command fails.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", out.status);
    String::from_utf8(out.stdout).with_context(|| format!("{command:?}"))
}

/// The runner: what the environment names, one under `target/tools`, or the one on the PATH.
fn runner(options: &Options) -> PathBuf {
    if let Some(path) = std::env::var_os("IAI_CALLGRIND_RUNNER") {
        return path.into();
    }
    let local = options.dir.join("target/tools/bin/iai-callgrind-runner");
    match local.canonicalize() {
        Ok(path) => path,
        Err(_) => "iai-callgrind-runner".into(),
    }
}

/// `cargo bench` on the ledger's bench.
fn cargo_bench(options: &Options) -> Command {
    let mut command = options.command("cargo");
    command.args(["bench", "--bench", &options.bench]).env("IAI_CALLGRIND_RUNNER", runner(options));
    command
}

/// The counts of every case, now.
pub fn measure(options: &Options) -> Result<Counts> {
    if let Some(path) = &options.counts {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        return counted(&text);
    }
    let text = output(cargo_bench(options).args(["--", "--output-format=json"]))?;
    let mut counts = Counts::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let (key, count) = case(line).with_context(|| format!("no count in {line:.200}"))?;
        if counts.insert(key.clone(), count).is_some() {
            bail!("two benches are called {} at {}", key.0, key.1);
        }
    }
    ensure!(!counts.is_empty(), "`cargo bench --bench {}` counted nothing", options.bench);
    Ok(counts)
}

/// Counts that were made elsewhere.
fn counted(text: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let &[id, tier, count] = &cells[..] else { bail!("a count needs 3 cells: {line:?}") };
        let count = count.parse().with_context(|| format!("no count: {line:?}"))?;
        let twice = counts.insert((id.to_owned(), tier.to_owned()), count);
        ensure!(twice.is_none(), "two counts are called {id} at {tier}");
    }
    ensure!(!counts.is_empty(), "nothing was counted");
    Ok(counts)
}

/// The bench executable, built, or the one that is there.
pub fn executable(options: &Options) -> Result<PathBuf> {
    if let Some(path) = &options.executable {
        return Ok(path.clone());
    }
    let text = output(cargo_bench(options).args(["--no-run", "--message-format=json"]))?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = messages.filter(|m| m["target"]["name"] == options.bench.as_str());
    let path = built.find_map(|m| m["executable"].as_str().map(PathBuf::from));
    path.context("cargo names no bench executable")
}

/// `icount::rows_group::gelu` with the id `avx2_128` is the case `rows::gelu::128` at `avx2`.
fn case(line: &str) -> Option<((String, String), u64)> {
    let json: Value = serde_json::from_str(line).ok()?;
    let (_, path) = json["module_path"].as_str()?.split_once("::")?;
    let (group, function) = path.split_once("::")?;
    let group = group.strip_suffix("_group").unwrap_or(group);
    let (tier, size) = json["id"].as_str().map_or(("any", ""), |id| id.split_once('_').unwrap_or((id, "")));
    let id =
        if size.is_empty() { format!("{group}::{function}") } else { format!("{group}::{function}::{size}") };
    let metrics = &json["profiles"][0]["summaries"]["total"]["summary"]["Callgrind"]["Ir"]["metrics"];
    // `Left` where no earlier run is stored, `Both` (new, old) otherwise.
    let new = metrics.get("Left").or_else(|| metrics["Both"].get(0))?;
    Some(((id, tier.to_owned()), new["Int"].as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_another_counter_are_read() {
        let key = |id: &str| (id.to_owned(), "neon".to_owned());
        let expected = Counts::from([(key("a::b"), 7), (key("a::c"), 0)]);
        assert_eq!(counted("a::b\tneon\t7\na::c\tneon\t0\n").unwrap(), expected);
        for bad in ["", "a\tneon", "a\tneon\tx", "a\tneon\t1\na\tneon\t2", "a\tneon\t1\t2"] {
            assert!(counted(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_of_the_runner_is_a_case() {
        let line = |metrics: &str| {
            format!(
                r#"{{"module_path":"icount::rows_group::gelu","id":"avx2_4x128","profiles":[{{"summaries":
                {{"total":{{"summary":{{"Callgrind":{{"Ir":{{"metrics":{metrics}}}}}}}}}}}}}]}}"#
            )
        };
        let want = Some((("rows::gelu::4x128".to_owned(), "avx2".to_owned()), 7));
        assert_eq!(case(&line(r#"{"Left":{"Int":7}}"#)), want);
        assert_eq!(case(&line(r#"{"Both":[{"Int":7},{"Int":9}]}"#)), want);
        assert_eq!(case(&line(r#"{"Right":{"Int":7}}"#)), None);
    }
}
