//! The files beside a ledger: `floors.tsv` (what each case takes at least) and `claims.tsv` (pairs of cases
//! and the speed-up that has to hold).

use super::table::{Counts, Key};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// The file `name` beside the ledger, if there is one.
pub fn beside(ledger: &Path, name: &str) -> Result<Option<String>> {
    let path = ledger.with_file_name(name);
    if !path.exists() {
        return Ok(None);
    }
    std::fs::read_to_string(&path).map(Some).with_context(|| path.display().to_string())
}

/// Lines that are neither comments nor empty.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// `id <TAB> tier <TAB> floor`, the floor being a product and quotient of whole numbers such as `64*64*64/8`.
pub fn floors(text: &str) -> Result<BTreeMap<Key, u64>> {
    let mut floors = BTreeMap::new();
    for line in lines(text) {
        let cells: Vec<&str> = line.split('\t').collect();
        ensure!(cells.len() == 3, "floors.tsv: a row needs 3 cells: {line:?}");
        let floor = evaluate(cells[2]).with_context(|| format!("floors.tsv: {line:?}"))?;
        ensure!(floor > 0, "floors.tsv: a floor of 0 floors nothing: {line:?}");
        let twice = floors.insert((cells[0].into(), cells[1].into()), floor);
        ensure!(twice.is_none(), "floors.tsv: twice: {line:?}");
    }
    Ok(floors)
}

/// Factors from the left to the right.
fn evaluate(expression: &str) -> Result<u64> {
    let (mut value, mut rest) = (1u64, expression);
    let mut divide = false;
    loop {
        let end = rest.find(['*', '/']).unwrap_or(rest.len());
        let factor: u64 = rest[..end].parse().context("a factor is no whole number")?;
        value = if divide { value.checked_div(factor) } else { value.checked_mul(factor) }
            .context("the floor is no number")?;
        if end == rest.len() {
            return Ok(value);
        }
        divide = rest.as_bytes()[end] == b'/';
        rest = &rest[end + 1..];
    }
}

/// Two cases that do the same work.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub slow: Key,
    pub fast: Key,
    /// The ratio of instructions that must hold; the gate fails below it.
    pub holds: f64,
    /// The ratio that is wanted, where it is not reached yet; reported only.
    pub target: Option<f64>,
    /// Pairs of one series follow each other, and their ratios have to grow.
    pub series: Option<String>,
    pub claim: String,
}

impl Pair {
    pub fn parse(line: &str) -> Result<Pair> {
        let cells: Vec<&str> = line.split('\t').collect();
        ensure!(cells.len() == 8, "claims.tsv: a row needs 8 cells: {line:?}");
        let number = |s: &str| s.parse::<f64>().with_context(|| format!("claims.tsv: {s:?} in {line:?}"));
        let optional = |s: &str| (s != "-").then(|| s.to_owned());
        Ok(Pair {
            slow: (cells[0].into(), cells[1].into()),
            fast: (cells[2].into(), cells[3].into()),
            holds: number(cells[4])?,
            target: optional(cells[5]).map(|s| number(&s)).transpose()?,
            series: optional(cells[6]),
            claim: cells[7].to_owned(),
        })
    }

    /// Ratio of the instructions of the slow case to those of the fast case; `None` if a case is missing.
    pub fn ratio(&self, counts: &Counts) -> Option<f64> {
        let (slow, fast) = (*counts.get(&self.slow)?, *counts.get(&self.fast)?);
        (fast > 0).then(|| slow as f64 / fast as f64)
    }
}

/// The rows of `claims.tsv`.
pub fn pairs(text: &str) -> Result<Vec<Pair>> {
    lines(text).map(Pair::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_products_and_quotients() {
        let all = floors("# c\na\tavx2\t64*64*64/8\n\nb\tany\t7\n").unwrap();
        assert_eq!(all[&("a".into(), "avx2".into())], 32768);
        assert_eq!(all[&("b".into(), "any".into())], 7);
        for bad in ["a\tb", "a\tb\t0", "a\tb\t1/0", "a\tb\tx", "a\tb\t3*", "a\tb\t1\na\tb\t2"] {
            assert!(floors(bad).is_err(), "{bad}");
        }
    }
}
