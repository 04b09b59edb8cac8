//! The ledger as people read it: a Markdown table for a pull request, and a chart through git history.

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
    /// Count anew for "after", instead of reading the ledger of the working tree
    #[arg(long)]
    pub measure: bool,
    /// Where the chart goes, relative to the crate
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

/// One chart a group: instructions relative to a case's first ledger, one line a case.
fn html(history: &[(String, Ledger)]) -> String {
    let mut groups: std::collections::BTreeMap<String, Vec<Key>> = Default::default();
    let mut keys: Vec<&Key> = history.iter().flat_map(|(_, l)| l.rows.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let group = key.0.split("::").next().unwrap_or_default().to_owned();
        groups.entry(group).or_default().push(key.clone());
    }
    let mut out = "<!doctype html><meta charset=\"utf-8\"><title>Instruction counts</title>\n<style>\
                   body{font:14px sans-serif;max-width:60em;margin:2em auto}svg{background:#f6f6f6}\
                   polyline{fill:none;stroke-width:2}text{font-size:11px}</style>\n\
                   <h1>Instruction counts through history</h1>\n<p>Each line is a case, relative to the \
                   first ledger that has it; lower is fewer instructions. Hover for names.</p>\n"
        .to_owned();
    for (group, keys) in groups {
        let _ = writeln!(out, "<h2>{group}</h2>\n{}", chart(history, &keys));
    }
    out
}

fn chart(history: &[(String, Ledger)], keys: &[Key]) -> String {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 240.0;
    const LEFT: f64 = 50.0;
    let count = |(_, ledger): &(String, Ledger), key: &Key| Some(ledger.rows.get(key)?.instructions as f64);
    let ratios = |key: &Key| -> Vec<(usize, f64)> {
        let counts = history.iter().enumerate().filter_map(|(i, then)| Some((i, count(then, key)?)));
        let counts: Vec<(usize, f64)> = counts.collect();
        let first = counts.first().map_or(1.0, |c| c.1.max(1.0));
        counts.into_iter().map(|(i, n)| (i, n / first)).collect()
    };
    let all = || keys.iter().flat_map(ratios).map(|(_, r)| r);
    let (low, high) = (all().fold(0.9, f64::min) - 0.02, all().fold(1.1, f64::max) + 0.02);
    let x = |i: usize| LEFT + (WIDTH - LEFT - 20.0) * i as f64 / (history.len() - 1).max(1) as f64;
    let y = |r: f64| 10.0 + (HEIGHT - 40.0) * (high - r) / (high - low);
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"100%\">\n");
    for r in [low + 0.02, 1.0, high - 0.02] {
        let y = y(r);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ccc\"/>\
             <text x=\"4\" y=\"{:.1}\">{r:.2}x</text>",
            y + 4.0
        );
    }
    for (i, (revision, _)) in history.iter().enumerate() {
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\">{revision}</text>", x(i) - 16.0, HEIGHT - 8.0);
    }
    for (n, key) in keys.iter().enumerate() {
        let line = ratios(key);
        let points: Vec<String> = line.iter().map(|&(i, r)| format!("{:.1},{:.1}", x(i), y(r))).collect();
        let last = line.last().map_or(1.0, |p| p.1);
        let _ = writeln!(
            out,
            "<polyline stroke=\"hsl({},70%,40%)\" points=\"{}\"><title>{} at {}: {last:.3}x</title></polyline>",
            n * 360 / keys.len(),
            points.join(" "),
            key.0,
            key.1
        );
    }
    out + "</svg>"
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

    #[test]
    fn the_chart_has_a_line_for_each_case() {
        let history = [("r1".to_owned(), ledger(100)), ("now".to_owned(), ledger(80))];
        let text = html(&history);
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(text.contains("g::a at avx2: 0.800x"), "{text}");
    }
}
