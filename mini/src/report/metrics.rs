//! `metrics.json`: quality of each text's model in each weight format.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::infer::Quality;

/// Quality of the model of one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextMetrics {
    /// Steps of training.
    pub steps: u64,
    /// SHA-256 of the trained weights.
    pub weights_sha256: String,
    /// Positions of the held-out text that are predicted.
    pub positions: u64,
    /// The least perplexity that any model can have on long texts.
    pub floor_perplexity: Option<f64>,
    /// By weight format.
    pub formats: BTreeMap<String, FormatMetrics>,
}

/// Quality of one weight format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatMetrics {
    /// Perplexity on the held-out text.
    pub perplexity: f64,
    /// Perplexity over the floor.
    pub over_floor: Option<f64>,
    /// Mean cross-entropy per token, in nats.
    pub loss: f64,
    /// Largest absolute difference of a logit from the one of FP32.
    pub max_abs_logit_err: f64,
    /// Mean Kullback-Leibler divergence from FP32, in nats.
    pub kl: f64,
    /// Share of positions (0 to 1) whose largest logit is that of FP32.
    pub top1_agreement: f64,
}

impl FormatMetrics {
    /// The metrics of one format, with the floor of the text.
    pub fn new(quality: &Quality, floor: Option<f64>) -> Self {
        Self {
            perplexity: quality.perplexity,
            over_floor: floor.map(|floor| quality.perplexity / floor),
            loss: quality.loss,
            max_abs_logit_err: quality.max_abs_logit_err,
            kl: quality.kl,
            top1_agreement: quality.top1_agreement,
        }
    }
}

/// Metrics by the name of the text.
pub type Metrics = BTreeMap<String, TextMetrics>;

/// Writes the metrics as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_metrics(path: &Path, metrics: &Metrics) -> Result<()> {
    let write = || -> Result<()> {
        let json = serde_json::to_string_pretty(metrics)?;
        Ok(fs::write(path, json + "\n")?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads the metrics that [`write_metrics`] wrote; an empty map if the file does not exist.
///
/// # Errors
/// When the file cannot be read or is not of that form.
pub fn read_metrics(path: &Path) -> Result<Metrics> {
    let read = || -> Result<Metrics> {
        if !path.try_exists()? {
            return Ok(Metrics::new());
        }
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.json");
        assert!(read_metrics(&path).unwrap().is_empty());
        let quality =
            Quality { loss: 4.0, perplexity: 54.6, max_abs_logit_err: 0.1, kl: 0.001, top1_agreement: 0.9 };
        let formats = [("FP32", Some(50.0)), ("Int8", None)]
            .map(|(name, floor)| (name.to_owned(), FormatMetrics::new(&quality, floor)));
        let text = TextMetrics {
            steps: 7,
            weights_sha256: "0".repeat(64),
            positions: 64,
            floor_perplexity: Some(50.0),
            formats: formats.into(),
        };
        let metrics = Metrics::from([("language".to_owned(), text)]);
        write_metrics(&path, &metrics).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), metrics);
        fs::write(&path, "[]").unwrap();
        assert!(format!("{:#}", read_metrics(&path).unwrap_err()).contains("metrics.json"));
        assert!(write_metrics(dir.path(), &metrics).is_err());
    }
}
