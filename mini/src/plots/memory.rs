//! `plot_memoria.png`: memory of each weight format.

use std::path::Path;

use anyhow::Result;

use super::bars::{self, Bar};
use super::style::plot;
use crate::report::MemoryRow;

/// Draws the rows of `memory_usage.csv` as bars, in their order.
///
/// # Errors
/// When there is no row, a value has no place on an axis, or the file cannot be written.
pub fn memory(path: &Path, rows: &[MemoryRow]) -> Result<()> {
    let bars: Vec<Bar> =
        rows.iter().map(|row| Bar::new(&row.config, "memory_mb", row.memory_mb)).collect::<Result<_>>()?;
    plot(path, "Memory of each weight format", |area| bars::draw(area, "", "memory (MiB)", &bars))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rows_is_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        for rows in [1, 3, 2000] {
            let rows: Vec<_> = (0..rows)
                .map(|i| MemoryRow { config: format!("config {i}"), memory_mb: f64::from(i) })
                .collect();
            memory(&path, &rows).unwrap();
            assert!(path.exists());
        }
    }

    #[test]
    fn no_row_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = memory(&dir.path().join("plot.png"), &[]).unwrap_err();
        assert!(format!("{error:#}").contains("0 bars"));
    }

    #[test]
    fn extreme_values_are_drawn_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        let draw = |memory_mb| {
            let row = MemoryRow { config: "FP32".into(), memory_mb };
            memory(&path, &[row])
        };
        for value in [0.0, 1e-300, 1e-9, 1e15] {
            draw(value).unwrap();
        }
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            let error = draw(value).unwrap_err().to_string();
            assert!(error.contains("memory_mb of FP32"), "{error}");
        }
    }
}
