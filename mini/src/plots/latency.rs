//! `plot_latencia.png`: latency with and without KV cache.

use std::path::Path;

use anyhow::{Context, Result};

use super::bars::{self, Bar};
use super::style::{check_positive, plot};
use crate::report::{BenchRow, NO_CACHE, WITH_CACHE};

/// Draws the rows of `bench.csv` as two bars with error bars of one standard deviation, and the speed-up of
/// the cache in the title.
///
/// # Errors
/// When a row is missing, a value has no place on an axis, or the file cannot be written.
pub fn latency(path: &Path, rows: &[BenchRow]) -> Result<()> {
    let find = |config: &str| -> Result<&BenchRow> {
        let row = rows.iter().find(|row| row.config == config);
        row.with_context(|| format!("none of the {} rows has config {config}", rows.len()))
    };
    let (with_cache, no_cache) = (find(WITH_CACHE)?, find(NO_CACHE)?);
    let bar = |name, row: &BenchRow| {
        check_positive(&format!("mean_ms of {}", row.config), row.mean_ms)?;
        Bar::new(name, "mean_ms", row.mean_ms)?.with_error("std_ms", row.std_ms)
    };
    let bars = [bar("with cache", with_cache)?, bar("no cache", no_cache)?];

    let speed_up = no_cache.mean_ms / with_cache.mean_ms;
    let title = format!("Generation with and without KV cache: speed-up {speed_up:.2}x");
    plot(path, &title, |area| bars::draw(area, "", "latency (ms), mean ± standard deviation", &bars))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(config: &str, mean_ms: f64) -> BenchRow {
        BenchRow { config: config.into(), mean_ms, std_ms: 1.0 }
    }

    #[test]
    fn the_plot_is_a_png_and_the_same_bytes_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let rows = [row(WITH_CACHE, 16.3), row(NO_CACHE, 29.93)];
        let draw = |name| {
            let path = dir.path().join(name);
            latency(&path, &rows).unwrap();
            std::fs::read(path).unwrap()
        };
        let png = draw("a.png");
        assert!(png.starts_with(b"\x89PNG"));
        assert!(png == draw("b.png"));
    }

    #[test]
    fn bad_rows_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        for (rows, reason) in [
            (vec![row(WITH_CACHE, 1.0)], "none of the 1 rows has config no_cache"),
            (vec![row(WITH_CACHE, 0.0), row(NO_CACHE, 1.0)], "mean_ms of with_cache is 0"),
            (vec![row(WITH_CACHE, 1.0), row(NO_CACHE, f64::NAN)], "mean_ms of no_cache is NaN"),
        ] {
            let error = latency(&path, &rows).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let rows = [row(WITH_CACHE, 1.0), row(NO_CACHE, 2.0)];
        let path = dir.path().join("missing/plot.png");
        assert!(latency(&path, &rows).is_err());
    }
}
