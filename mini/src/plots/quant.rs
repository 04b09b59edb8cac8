//! `plot_quant.png`: size, latency and perplexity of each weight format.

use std::path::Path;

use anyhow::Result;

use super::bars::{self, Bar};
use super::style::plot;
use crate::report::QuantRow;

/// Draws the rows of `bench_quant.csv` as three panels of bars side by side. Below each perplexity stands its
/// difference from that of the first row.
///
/// # Errors
/// When there is no row, a value has no place on an axis, or the file cannot be written.
pub fn quant(path: &Path, rows: &[QuantRow]) -> Result<()> {
    let size = bars_of(rows, |row| Bar::new(&row.config, "size_mb", row.size_mb))?;
    let latency = bars_of(rows, |row| {
        let bar = Bar::new(&row.config, "latency_ms", row.latency_ms)?;
        bar.with_error("latency_std", row.latency_std)
    })?;
    let reference = rows.first().map_or(0.0, |row| row.perplexity);
    let perplexity = bars_of(rows, |row| {
        let bar = Bar::new(&row.config, "perplexity", row.perplexity)?;
        Ok(bar.with_detail(format!("{:+.2}", row.perplexity - reference)))
    })?;

    let title = "Weight formats: size, latency and perplexity (lower is better)";
    plot(path, title, |area| {
        let panels = [
            ("Size", "weights (MiB)", size),
            ("Latency", "latency (ms)", latency),
            ("Perplexity", "perplexity", perplexity),
        ];
        let areas = area.split_evenly((1, panels.len()));
        for (area, (caption, axis, bars)) in areas.iter().zip(panels) {
            bars::draw(area, caption, axis, &bars)?;
        }
        Ok(())
    })
}

fn bars_of(rows: &[QuantRow], bar: impl Fn(&QuantRow) -> Result<Bar>) -> Result<Vec<Bar>> {
    rows.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(config: &str, perplexity: f64) -> QuantRow {
        QuantRow {
            config: config.into(),
            size_mb: 1.99,
            perplexity,
            loss: perplexity.ln(),
            latency_ms: 20.15,
            latency_std: 0.5,
            bytes_streamed: 1_990_000,
            max_abs_logit_err: 0.0,
            top1_agreement: 1.0,
            peak_memory_mb: 3.0,
        }
    }

    #[test]
    fn three_formats_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        let rows = ["FP32", "Int8", "Int4"].map(|config| row(config, 1019.74));
        quant(&path, &rows).unwrap();
        assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_perplexity_that_is_no_number_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        let error = quant(&path, &[row("Int4", f64::NAN)]).unwrap_err().to_string();
        assert!(error.contains("perplexity of Int4 is NaN"), "{error}");
    }
}
