//! `accuracy_drop.json`: loss of quality of each weight format.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::rows::QuantRow;

/// `config` of the reference row.
const REFERENCE: &str = "FP32";

/// Quality of one weight format against FP32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyDrop {
    /// Perplexity: the exponential of `loss`.
    pub perplexity: f64,
    /// Perplexity minus that of FP32.
    pub delta_perplexity: f64,
    /// Mean cross-entropy per token, in nats.
    pub loss: f64,
    /// Largest absolute difference of a logit from the one of FP32.
    pub max_abs_logit_err: f64,
    /// Share of positions (0 to 1) whose largest logit is that of FP32.
    pub top1_agreement: f64,
}

/// The quality of each row of `bench_quant.csv`, by its `config`.
///
/// # Errors
/// When no row is `FP32`, two rows have one `config`, or a value is not finite (JSON has no such numbers).
pub fn accuracy_drops(rows: &[QuantRow]) -> Result<BTreeMap<String, AccuracyDrop>> {
    let reference = rows
        .iter()
        .find(|row| row.config == REFERENCE)
        .with_context(|| format!("none of the {} rows is {REFERENCE}", rows.len()))?;
    let mut drops = BTreeMap::new();
    for row in rows {
        let drop = AccuracyDrop {
            perplexity: row.perplexity,
            delta_perplexity: row.perplexity - reference.perplexity,
            loss: row.loss,
            max_abs_logit_err: row.max_abs_logit_err,
            top1_agreement: row.top1_agreement,
        };
        for (name, value) in [
            ("perplexity", drop.perplexity),
            ("loss", drop.loss),
            ("max_abs_logit_err", drop.max_abs_logit_err),
            ("top1_agreement", drop.top1_agreement),
        ] {
            ensure!(value.is_finite(), "{name} of {} is {value}", row.config);
        }
        let earlier = drops.insert(row.config.clone(), drop);
        ensure!(earlier.is_none(), "two rows have config {}", row.config);
    }
    Ok(drops)
}

/// Writes the drops as a JSON object keyed by `config`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_accuracy(path: &Path, drops: &BTreeMap<String, AccuracyDrop>) -> Result<()> {
    let write = || -> Result<()> {
        let json = serde_json::to_string_pretty(drops)?;
        Ok(fs::write(path, json + "\n")?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads the drops that [`write_accuracy`] wrote.
///
/// # Errors
/// When the file cannot be read or is not of that form.
pub fn read_accuracy(path: &Path) -> Result<BTreeMap<String, AccuracyDrop>> {
    let read = || -> Result<_> { Ok(serde_json::from_str(&fs::read_to_string(path)?)?) };
    read().with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(config: &str, perplexity: f64) -> QuantRow {
        QuantRow {
            config: config.into(),
            size_mb: 1.0,
            perplexity,
            loss: perplexity.ln(),
            latency_ms: 1.0,
            latency_std: 0.0,
            bytes_streamed: 1,
            max_abs_logit_err: 0.0,
            top1_agreement: 1.0,
            peak_memory_mb: 1.0,
        }
    }

    #[test]
    fn drops_are_against_fp32_wherever_it_stands() {
        let drops = accuracy_drops(&[row("Int8", 12.5), row("FP32", 10.0)]).unwrap();
        assert_eq!(drops["FP32"].delta_perplexity, 0.0);
        assert_eq!(drops["Int8"].delta_perplexity, 2.5);
        assert_eq!(drops["Int8"].perplexity, 12.5);
    }

    #[test]
    fn json_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accuracy_drop.json");
        let drops = accuracy_drops(&[row("FP32", 10.0), row("Int4", 1e3 / 7.0)]).unwrap();
        write_accuracy(&path, &drops).unwrap();
        assert_eq!(read_accuracy(&path).unwrap(), drops);

        let text = fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["FP32"]["top1_agreement"], 1.0);
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn bad_rows_are_refused() {
        for (rows, reason) in [
            (vec![], "none of the 0 rows is FP32"),
            (vec![row("Int8", 10.0)], "none of the 1 rows is FP32"),
            (vec![row("FP32", 10.0), row("FP32", 10.0)], "two rows"),
            (vec![row("FP32", 10.0), row("Int4", f64::INFINITY)], "perplexity of Int4 is inf"),
        ] {
            let error = accuracy_drops(&rows).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn bad_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accuracy_drop.json");
        assert!(read_accuracy(&path).is_err());
        fs::write(&path, "{\"FP32\":{}}").unwrap();
        let error = format!("{:#}", read_accuracy(&path).unwrap_err());
        assert!(error.contains("missing field"), "{error}");
        assert!(write_accuracy(dir.path(), &BTreeMap::new()).is_err());
    }
}
