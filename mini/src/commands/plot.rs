//! `mini plot`: draw the plots of the measurements in the output directory.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use serde::de::DeserializeOwned;

use crate::measure::progress;
use crate::plots;
use crate::report::outputs::Outputs;
use crate::report::read_rows;

/// Draws each plot whose table exists, and says which ones do not.
///
/// # Errors
/// When no table exists, one cannot be read or plotted, or a plot cannot be written.
pub fn run(outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    let bar = progress::bar(4, "plots");
    let mut drawn = 0;
    let mut report = |table: &Path, plot: &Path, done: bool| -> Result<()> {
        bar.inc(1);
        drawn += usize::from(done);
        if done {
            writeln!(log, "{}", plot.display())?;
        } else {
            writeln!(log, "no {}: no {}", plot.display(), table.display())?;
        }
        Ok(())
    };

    let (table, plot) = (outputs.bench(), outputs.plot_latency());
    report(&table, &plot, draw(&table, &plot, plots::latency)?)?;
    let (table, plot) = (outputs.bench_quant(), outputs.plot_quant());
    report(&table, &plot, draw(&table, &plot, plots::quant)?)?;
    let (table, plot) = (outputs.memory_usage(), outputs.plot_memory());
    report(&table, &plot, draw(&table, &plot, plots::memory)?)?;
    let (table, plot) = (outputs.bench_context(), outputs.plot_context());
    report(&table, &plot, draw(&table, &plot, plots::context)?)?;

    bar.finish_and_clear();
    ensure!(
        drawn > 0,
        "none of the 4 tables to plot is in --out {}: run `mini bench` and `mini bench-quant` first",
        outputs.dir().display()
    );
    Ok(())
}

/// Draws the rows of `table` if the file exists; returns whether it does.
fn draw<R: DeserializeOwned>(
    table: &Path,
    plot: &Path,
    draw_rows: fn(&Path, &[R]) -> Result<()>,
) -> Result<bool> {
    let exists = table.try_exists()?;
    if exists {
        draw_rows(plot, &read_rows(table)?)?;
    }
    Ok(exists)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::{MemoryRow, write_rows};

    #[test]
    fn the_plots_whose_tables_exist_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path());
        let row = MemoryRow { config: "FP32".into(), memory_mb: 1.99 };
        write_rows(&outputs.memory_usage(), &[row]).unwrap();

        let mut log = Vec::new();
        run(&outputs, &mut log).unwrap();
        let log = String::from_utf8(log).unwrap();
        assert!(outputs.plot_memory().exists());
        assert!(!outputs.plot_latency().exists());
        assert!(log.contains("bench_context.csv"), "{log}");
    }

    #[test]
    fn nothing_to_plot_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(&Outputs::new(dir.path()), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("none of the 4 tables"));
    }

    #[test]
    fn a_bad_table_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path());
        fs::write(outputs.bench(), "nonsense\n1\n").unwrap();
        let error = format!("{:#}", run(&outputs, &mut Vec::new()).unwrap_err());
        assert!(error.contains("bench.csv"), "{error}");
    }
}
