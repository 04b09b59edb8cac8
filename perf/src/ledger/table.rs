//! The ledger file: a fingerprint in comments, then one row a case.

use super::Pair;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A case: `(id, tier)`.
pub type Key = (String, String);

/// Instructions of each case.
pub type Counts = BTreeMap<Key, u64>;

const COLUMNS: &str = "id\ttier\tinstructions\tfloor\tspeed_up";

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub instructions: u64,
    /// Least number of instructions of the arithmetic or of the copy.
    pub floor: u64,
    /// The pairs that this case wins: `3.51x of ID`, separated by `; `.
    pub speed_up: String,
}

/// Contents of `perf/icount.tsv`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// `key: value` lines that have to be equal for counts to be comparable.
    pub fingerprint: Vec<String>,
    pub rows: BTreeMap<Key, Row>,
}

impl Ledger {
    /// The ledger of fresh counts.
    pub fn new(
        fingerprint: Vec<String>,
        counts: &Counts,
        floors: &BTreeMap<Key, u64>,
        pairs: &[Pair],
    ) -> Ledger {
        let row = |(key, &instructions): (&Key, &u64)| {
            let won = pairs.iter().filter(|p| &p.fast == key);
            let of = |p: &Pair| p.ratio(counts).map(|r| format!("{r:.2}x of {}", p.slow.0));
            let speed_up = won.filter_map(of).collect::<Vec<_>>().join("; ");
            (key.clone(), Row { instructions, floor: floors.get(key).copied().unwrap_or(1), speed_up })
        };
        Ledger { fingerprint, rows: counts.iter().map(row).collect() }
    }

    pub fn counts(&self) -> Counts {
        self.rows.iter().map(|(key, row)| (key.clone(), row.instructions)).collect()
    }

    pub fn parse(text: &str) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# ") {
                ledger.fingerprint.push(line.to_owned());
            } else if line != COLUMNS {
                let cells: Vec<&str> = line.split('\t').collect();
                ensure!(cells.len() == 5, "ledger: a row needs 5 cells: {line:?}");
                let number = |s: &str| s.parse().with_context(|| format!("ledger: {s:?} in {line:?}"));
                let row = Row {
                    instructions: number(cells[2])?,
                    floor: number(cells[3])?,
                    speed_up: cells[4].to_owned(),
                };
                let twice = ledger.rows.insert((cells[0].into(), cells[1].into()), row);
                ensure!(twice.is_none(), "ledger: {} at {} is there twice", cells[0], cells[1]);
            }
        }
        Ok(ledger)
    }

    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for line in &self.fingerprint {
            out += &format!("# {line}\n");
        }
        out += COLUMNS;
        out.push('\n');
        for ((id, tier), row) in &self.rows {
            let Row { instructions, floor, speed_up } = row;
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{id}\t{tier}\t{instructions}\t{floor}\t{speed_up}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_survives_its_file() {
        let key = |id: &str| (id.to_owned(), "avx2".to_owned());
        let counts = Counts::from([(key("a"), 10), (key("b"), 40)]);
        let pair = Pair::parse("b\tavx2\ta\tavx2\t2\t-\t-\tfaster").unwrap();
        let floors = BTreeMap::from([(key("a"), 5), (key("b"), 6)]);
        let ledger = Ledger::new(vec!["rustc: 1".into()], &counts, &floors, &[pair]);
        assert_eq!(ledger.rows[&key("a")].speed_up, "4.00x of b");
        assert_eq!(ledger.counts(), counts);
        assert_eq!(Ledger::parse(&ledger.to_text()).unwrap(), ledger);
        assert!(Ledger::parse("a\tavx2\tx\t1\t").is_err());
        assert!(Ledger::parse("a\tavx2\t1\t1\t\na\tavx2\t1\t1\t").is_err());
    }
}
