//! The instruction-count ledger: `gate`, `bless` and `report`.
//!
//! Exit codes of `gate` and `bless`: 0 nothing to say; 1 the tools failed; 3 a regression (slower, missing,
//! zero, below a floor, a claim broken, a microkernel that spills); 4 the baseline is stale (faster, new
//! case, another compiler, Valgrind, lock file or profile).

mod chart;
mod codegen;
mod companions;
mod compare;
mod fingerprint;
mod measure;
mod report;
mod table;

pub use companions::Pair;
pub use report::{ReportOptions, report};

use anyhow::{Context, Result};
use compare::{Finding, Severity};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use table::{Counts, Key, Ledger};

/// Place of the benches and of their ledger.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Directory of the crate whose bench is counted
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Name of the iai-callgrind bench
    #[arg(long, default_value = "icount")]
    pub bench: String,
    /// The ledger, relative to the crate; `floors.tsv`, `claims.tsv` and `codegen.tsv` beside it are used
    #[arg(long, default_value = "perf/icount.tsv")]
    pub ledger: PathBuf,
    /// Packages that the bench links beyond the crate's dependencies: part of the fingerprint
    #[arg(long, default_values_t = ["iai-callgrind".to_owned(), "matrixmultiply".to_owned()])]
    pub also: Vec<String>,
    /// Counts by another counter than the bench's, in lines `id TAB tier TAB instructions`
    #[arg(long, requires = "executable", requires = "counted_by")]
    pub counts: Option<PathBuf>,
    /// The executable that the other counter ran: its hot loops are looked at
    #[arg(long)]
    pub executable: Option<PathBuf>,
    /// A line of the fingerprint, `key: value`: the compiler and the counter of `counts`
    #[arg(long)]
    pub counted_by: Vec<String>,
    /// The objdump of the executable's architecture
    #[arg(long, default_value = "objdump")]
    pub objdump: String,
}

impl Options {
    pub fn ledger(&self) -> PathBuf {
        self.dir.join(&self.ledger)
    }

    /// A command that runs in the crate's directory.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir);
        command
    }

    fn floors(&self) -> Result<BTreeMap<Key, u64>> {
        companions::floors(&companions::beside(&self.ledger(), "floors.tsv")?.unwrap_or_default())
    }

    fn pairs(&self) -> Result<Vec<Pair>> {
        companions::pairs(&companions::beside(&self.ledger(), "claims.tsv")?.unwrap_or_default())
    }
}

const BLESS: &str = "count anew with `kvern-perf bless` (the same options), look at the difference, and \
                     commit the ledger in a commit of its own that says why it moved";

/// Counts, compares with the committed ledger, and fails on any difference that matters.
pub fn gate(options: &Options) -> Result<ExitCode> {
    let path = options.ledger();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let ledger = Ledger::parse(&text)?;
    let now = fingerprint::fingerprint(options)?;
    if now != ledger.fingerprint {
        println!("stale: {} was counted with something else:", path.display());
        for (before, now) in pad(&ledger.fingerprint, &now).filter(|(before, now)| before != now) {
            println!("  ledger  {before}\n  here    {now}");
        }
        println!("Counts of different compilers or Valgrinds cannot be compared: {BLESS}.");
        return Ok(ExitCode::from(4));
    }
    let (counts, floors, pairs) = (measure::measure(options)?, options.floors()?, options.pairs()?);
    let mut findings = compare::compare(&ledger, &counts, &floors, &pairs);
    if let Some(committed) = companions::beside(&path, "codegen.tsv")? {
        let rows = codegen::rows(options)?;
        findings.extend(codegen::design(options, &rows));
        findings.extend(codegen::gate(&committed, &rows));
    }
    let same = ledger.counts().iter().filter(|(key, n)| counts.get(key) == Some(n)).count();
    println!("{} cases, {same} of them equal to the instruction", counts.len());
    print_claims(&counts, &pairs);
    Ok(verdict(&findings))
}

fn pad<'a>(a: &'a [String], b: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let cell = |x: &'a [String], i: usize| x.get(i).map_or("(nothing)", String::as_str);
    (0..a.len().max(b.len())).map(move |i| (cell(a, i), cell(b, i)))
}

fn print_claims(counts: &Counts, pairs: &[Pair]) {
    for pair in pairs {
        let Some(ratio) = pair.ratio(counts) else { continue };
        let missed = pair.target.filter(|target| ratio < *target);
        let target = missed.map_or(String::new(), |target| format!("  (target {target}, not reached)"));
        println!("{ratio:>8.2}x  {}: {} vs {}{target}", pair.claim, pair.fast.0, pair.slow.0);
    }
}

fn verdict(findings: &[Finding]) -> ExitCode {
    for finding in findings {
        let kind = if finding.severity == Severity::Regression { "regression" } else { "stale" };
        println!("{kind}: {}", finding.text);
    }
    match findings.iter().map(|f| f.severity).max() {
        None => {
            println!("gate: ok");
            ExitCode::SUCCESS
        }
        Some(Severity::Regression) => ExitCode::from(3),
        Some(Severity::Stale) => {
            println!("The baseline is stale: {BLESS}.");
            ExitCode::from(4)
        }
    }
}

/// Counts and rewrites the ledger (and `codegen.tsv`, where there is one). Refuses counts of nothing and
/// claims that do not hold.
pub fn bless(options: &Options) -> Result<ExitCode> {
    let path = options.ledger();
    let (floors, pairs) = (options.floors()?, options.pairs()?);
    let counts = measure::measure(options)?;
    let mut findings = compare::limits(&counts, &floors);
    findings.extend(compare::claims(&counts, &pairs));
    let codegen = match companions::beside(&path, "codegen.tsv")? {
        Some(_) => Some(codegen::rows(options)?),
        None => None,
    };
    findings.extend(codegen.iter().flat_map(|rows| codegen::design(options, rows)));
    if !findings.is_empty() {
        println!("nothing was written:");
        return Ok(verdict(&findings));
    }
    let ledger = Ledger::new(fingerprint::fingerprint(options)?, &counts, &floors, &pairs);
    write(&path, &ledger.to_text())?;
    if let Some(rows) = codegen {
        write(&path.with_file_name("codegen.tsv"), &codegen::to_text(&rows))?;
    }
    println!("{}: {} cases", path.display(), counts.len());
    print_claims(&counts, &pairs);
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
