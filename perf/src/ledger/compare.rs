//! Decisions of the gate, from numbers alone.

use super::Pair;
use super::table::{Counts, Key, Ledger};
use std::collections::BTreeMap;

/// Per cent that a count may move before it is a finding. Equal inputs repeat to the instruction; this only
/// absorbs what the compiler shuffles when code elsewhere changes.
pub const TOLERANCE: f64 = 1.0;

/// Severity of a finding, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The baseline no longer describes the code: bless it.
    Stale,
    /// The code got worse.
    Regression,
}

/// One reason why the gate fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub text: String,
}

fn regression(text: String) -> Finding {
    Finding { severity: Severity::Regression, text }
}

fn stale(text: String) -> Finding {
    Finding { severity: Severity::Stale, text }
}

/// Everything that is wrong with `counts` against the committed ledger.
pub fn compare(
    ledger: &Ledger,
    counts: &Counts,
    floors: &BTreeMap<Key, u64>,
    pairs: &[Pair],
) -> Vec<Finding> {
    let mut findings = limits(counts, floors);
    for (key, row) in &ledger.rows {
        let (name, before) = (name(key), row.instructions);
        let Some(&after) = counts.get(key) else {
            findings.push(regression(format!("{name}: in the ledger, but no bench counts it")));
            continue;
        };
        let change = 100.0 * (after as f64 - before as f64) / before as f64;
        if change > TOLERANCE {
            findings.push(regression(format!("{name}: {before} -> {after} instructions ({change:+.2} %)")));
        } else if change < -TOLERANCE {
            let text =
                format!("{name}: {before} -> {after} instructions ({change:+.2} %): bless the improvement");
            findings.push(stale(text));
        }
    }
    for key in counts.keys().filter(|key| !ledger.rows.contains_key(key)) {
        findings.push(stale(format!("{}: counted, but not in the ledger: bless it", name(key))));
    }
    let fresh = Ledger::new(Vec::new(), &ledger.counts(), floors, pairs);
    for (key, row) in &fresh.rows {
        let old = &ledger.rows[key];
        if (row.floor, &row.speed_up) != (old.floor, &old.speed_up) {
            findings.push(stale(format!("{}: its floor or its pairs changed: bless them", name(key))));
        }
    }
    findings.extend(claims(counts, pairs));
    findings
}

/// Counts of nothing, or of less than the work: what a bench that measures nothing looks like.
pub fn limits(counts: &Counts, floors: &BTreeMap<Key, u64>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, &count) in counts {
        match floors.get(key) {
            _ if count == 0 => findings.push(regression(format!("{}: counted nothing", name(key)))),
            Some(&floor) if count < floor => {
                findings.push(regression(format!("{}: {count} is below its floor {floor}", name(key))));
            }
            None if !floors.is_empty() => {
                findings.push(regression(format!("{}: has no row in floors.tsv", name(key))));
            }
            _ => {}
        }
    }
    for key in floors.keys().filter(|key| !counts.contains_key(key)) {
        findings.push(regression(format!("{}: has a floor, but no bench counts it", name(key))));
    }
    findings
}

/// Claims that no longer hold.
pub fn claims(counts: &Counts, pairs: &[Pair]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut last: Option<(&str, f64)> = None;
    for pair in pairs {
        let (fast, slow, claim) = (name(&pair.fast), name(&pair.slow), &pair.claim);
        let Some(ratio) = pair.ratio(counts) else {
            findings.push(regression(format!("claim without a count: {fast} against {slow}")));
            continue;
        };
        if ratio < pair.holds {
            let text = format!("{fast}: {ratio:.3}x fewer than {slow}, not {}: {claim}", pair.holds);
            findings.push(regression(text));
        }
        if let Some(series) = &pair.series {
            if let Some((_, before)) = last.filter(|(s, before)| s == series && ratio <= *before) {
                findings.push(regression(format!("{fast}: {ratio:.2}x does not grow from {before:.2}x")));
            }
            last = Some((series, ratio));
        }
    }
    findings
}

fn name((id, tier): &Key) -> String {
    format!("{id} at {tier}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        (id.to_owned(), "avx2".to_owned())
    }

    fn gate(counts: &[(&str, u64)], floors: &[(&str, u64)]) -> Vec<Finding> {
        let floors: BTreeMap<Key, u64> = floors.iter().map(|&(id, n)| (key(id), n)).collect();
        let before = Counts::from([(key("a"), 1000), (key("b"), 5000)]);
        let ledger = Ledger::new(Vec::new(), &before, &floors, &[]);
        let counts: Counts = counts.iter().map(|&(id, n)| (key(id), n)).collect();
        compare(&ledger, &counts, &floors, &[])
    }

    fn only(findings: &[Finding], severity: Severity, part: &str) {
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, severity);
        assert!(findings[0].text.contains(part), "{findings:?}");
    }

    #[test]
    fn both_sides_are_gated() {
        assert_eq!(gate(&[("a", 1000), ("b", 5000)], &[]), []);
        assert_eq!(gate(&[("a", 1010), ("b", 4950)], &[]), []);
        only(&gate(&[("a", 1011), ("b", 5000)], &[]), Severity::Regression, "a at avx2: 1000 -> 1011");
        only(&gate(&[("a", 989), ("b", 5000)], &[]), Severity::Stale, "bless the improvement");
    }

    #[test]
    fn missing_extra_zero_and_impossible_counts_fail() {
        only(&gate(&[("b", 5000)], &[]), Severity::Regression, "no bench counts it");
        only(&gate(&[("a", 1000), ("b", 5000), ("c", 1)], &[]), Severity::Stale, "c at avx2: counted");
        let floors = [("a", 999), ("b", 5)];
        assert_eq!(gate(&[("a", 1000), ("b", 5000)], &floors), []);
        only(&gate(&[("a", 998), ("b", 5000)], &floors), Severity::Regression, "below its floor 999");
        let zero = gate(&[("a", 0), ("b", 5000)], &floors);
        assert!(zero.iter().any(|f| f.text.contains("counted nothing")));
        let none = gate(&[("a", 1000), ("b", 5000)], &floors[..1]);
        only(&none, Severity::Regression, "b at avx2: has no row in floors.tsv");
    }

    #[test]
    fn claims_have_to_hold_and_series_to_grow() {
        let pair = |slow: &str, fast: &str, holds: &str| {
            Pair::parse(&format!("{slow}\tavx2\t{fast}\tavx2\t{holds}\t-\ts\tclaim")).unwrap()
        };
        let counts = Counts::from([(key("a"), 10), (key("b"), 40), (key("c"), 30)]);
        assert_eq!(claims(&counts, &[pair("c", "a", "3"), pair("b", "a", "4")]), []);
        only(&claims(&counts, &[pair("b", "a", "4.1")]), Severity::Regression, "claim");
        only(&claims(&counts, &[pair("b", "a", "1"), pair("c", "a", "1")]), Severity::Regression, "grow");
        only(&claims(&counts, &[pair("z", "a", "1")]), Severity::Regression, "without a count");
    }
}
