//! The ledger as people read it: a Markdown table for a pull request, and a chart through git history.

use super::chart::html;
use super::table::{Key, Ledger};
use super::{Options, measure, write};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::PathBuf;

/// Options of `report`.
#[derive(clap::Args, Clone, Debug)]
pub struct ReportOptions {
    #[command(flatten)]
    pub ledger: Options,
    /// The git revision whose ledger is "before"
    #[arg(long, default_value = "HEAD")]
    pub before: String,
    /// Count again for "after", instead of reading the ledger of the working tree
    #[arg(long)]
    pub measure: bool,
    /// File of the chart, relative to the crate
    #[arg(long, default_value = "target/icount.html")]
    pub chart: PathBuf,
}

/// Prints the table and writes the chart.
pub fn report(options: &ReportOptions) -> Result<()> {
    let ledger = &options.ledger;
    let after = if options.measure {
        let counts = measure::measure(ledger)?;
        Ledger::new(Vec::new(), &counts, &ledger.floors()?, &ledger.pairs()?)
    } else {
        Ledger::parse(&std::fs::read_to_string(ledger.ledger())?)?
    };
    print!("{}", markdown(&at(ledger, &options.before)?.unwrap_or_default(), &after));
    let path = format!("./{}", ledger.ledger.display());
    let log = measure::output(ledger.command("git").args(["log", "--reverse", "--format=%h", "--", &path]))?;
    let mut history = Vec::new();
    for revision in log.lines() {
        if let Some(then) = at(ledger, revision)? {
            history.push((revision.to_owned(), then));
        }
    }
    history.push(("now".to_owned(), after));
    let chart = ledger.dir.join(&options.chart);
    if let Some(parent) = chart.parent() {
        std::fs::create_dir_all(parent)?;
    }
    write(&chart, &html(&history))?;
    println!("\nchart: {}", chart.display());
    Ok(())
}

/// The ledger of a revision, `None` where there was none.
fn at(options: &Options, revision: &str) -> Result<Option<Ledger>> {
    let object = format!("{revision}:./{}", options.ledger.display());
    let out = options.command("git").args(["show", &object]).output().context("git")?;
    let text = out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned());
    text.map(|text| Ledger::parse(&text)).transpose()
}

/// Changed cases first of all, then the pairs; unchanged cases are only counted.
fn markdown(before: &Ledger, after: &Ledger) -> String {
    let mut out = "| case | tier | before | after | change |\n|---|---|---:|---:|---:|\n".to_owned();
    let mut unchanged = 0;
    let cell = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    let keys: std::collections::BTreeSet<&Key> = before.rows.keys().chain(after.rows.keys()).collect();
    for key in keys {
        let [old, new] = [before, after].map(|l| l.rows.get(key).map(|row| row.instructions));
        let change = match (old, new) {
            (Some(old), Some(new)) if old == new => {
                unchanged += 1;
                continue;
            }
            (Some(old), Some(new)) => {
                format!("{:+.2} %", 100.0 * (new as f64 - old as f64) / old as f64)
            }
            (None, _) => "new".to_owned(),
            (_, None) => "gone".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{}` | {} | {} | {} | {change} |", key.0, key.1, cell(old), cell(new));
    }
    let _ = writeln!(out, "\n{unchanged} cases unchanged to the instruction.\n");
    out += "| pair | tier | fewer instructions |\n|---|---|---|\n";
    for ((id, tier), row) in after.rows.iter().filter(|(_, row)| !row.speed_up.is_empty()) {
        let _ = writeln!(out, "| `{id}` | {tier} | {} |", row.speed_up);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(n: u64) -> Ledger {
        Ledger::parse(&format!("# rustc: 1\ng::a\tavx2\t{n}\t1\t2.00x of b\ng::b\tavx2\t9\t1\t")).unwrap()
    }

    #[test]
    fn the_table_shows_what_changed() {
        let text = markdown(&ledger(100), &ledger(90));
        assert!(text.contains("| `g::a` | avx2 | 100 | 90 | -10.00 % |"), "{text}");
        assert!(text.contains("1 cases unchanged") && text.contains("2.00x of b"), "{text}");
        assert!(markdown(&Ledger::default(), &ledger(1)).contains("| - | 1 | new |"));
    }
}
