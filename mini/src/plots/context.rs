//! `plot_context.png`: latency per token against context length.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::lines;
use super::style::{Area, COLOURS, check_positive, number, plot, text};
use crate::report::ContextRow;

/// A line of the plot.
struct Line {
    name: &'static str,
    colour: RGBColor,
    /// Context in tokens, latency in milliseconds.
    points: Vec<(f64, f64)>,
}

/// Draws the rows of `bench_context.csv` as two lines on logarithmic axes, where a latency that grows with
/// the context is a straight slope.
///
/// # Errors
/// When there is no row, a value has no place on a logarithmic axis, or the file cannot be written.
pub fn context(path: &Path, rows: &[ContextRow]) -> Result<()> {
    ensure!(!rows.is_empty(), "0 rows of context to plot");
    let with_cache = line("with cache", COLOURS[0], rows, |row| ("with_cache_ms", row.with_cache_ms))?;
    let no_cache = line("no cache", COLOURS[1], rows, |row| ("no_cache_ms", row.no_cache_ms))?;
    plot(path, "Latency per token against context length", |area| draw(area, &[with_cache, no_cache]))
}

fn line(
    name: &'static str,
    colour: RGBColor,
    rows: &[ContextRow],
    column: fn(&ContextRow) -> (&'static str, f64),
) -> Result<Line> {
    let mut points = rows
        .iter()
        .map(|row| {
            let (column, latency) = column(row);
            let x = check_positive("context", row.context as f64)?;
            let y = check_positive(&format!("{column} at context {}", row.context), latency)?;
            Ok((x, y))
        })
        .collect::<Result<Vec<_>>>()?;
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(Line { name, colour, points })
}

fn draw(area: &Area, latencies: &[Line]) -> Result<()> {
    let points = || latencies.iter().flat_map(|line| &line.points);
    let (x_range, x_octaves) = octaves(points().map(|point| point.0));
    let (y_range, y_octaves) = octaves(points().map(|point| point.1));
    let mut chart = lines::builder(area)
        .build_cartesian_2d(x_range.log_scale().base(2.0), y_range.log_scale().base(2.0))?;
    let axes = ["context (tokens)", "latency per token (ms)"];
    lines::axes(&mut chart, axes, Some([x_octaves, y_octaves]))?;
    for line in latencies {
        lines::line(&mut chart, line.name, line.colour.stroke_width(4), &line.points)?;
        let above = Pos::new(HPos::Center, VPos::Bottom);
        let style = text(18).into_text_style(area).pos(above);
        chart.draw_series(line.points.iter().map(|&point| {
            EmptyElement::at(point)
                + Circle::new((0, 0), 6, line.colour.filled())
                + Text::new(number(point.1), (0, -10), style.clone())
        }))?;
    }
    lines::legend(&mut chart, SeriesLabelPosition::UpperLeft)
}

/// The smallest range between two powers of two that holds `values`, widened so that both ends get a tick and
/// their labels stay clear of the axis, and its number of powers of two.
fn octaves(values: impl Iterator<Item = f64>) -> (Range<f64>, usize) {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
    let (first, last) = (low.log2().floor(), high.log2().ceil());
    // A single power of two would be an empty range.
    let last = last.max(first + 1.0);
    let range = first.exp2() * 0.8..last.exp2() * 1.25;
    (range, (last - first) as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(context: u64, with_cache_ms: f64) -> ContextRow {
        ContextRow { context, with_cache_ms, no_cache_ms: 1.5 }
    }

    fn draw_rows(rows: &[ContextRow]) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        context(&path, rows)?;
        assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
        Ok(())
    }

    #[test]
    fn octaves_reach_to_both_powers_of_two() {
        let (range, ticks) = octaves([16.0, 300.0].into_iter());
        assert!(range.start < 16.0 && range.end > 512.0 && range.end < 1024.0);
        assert_eq!(ticks, 6);
        assert_eq!(octaves([4.0].into_iter()).1, 2);
    }

    #[test]
    fn one_row_many_rows_and_extreme_values_are_drawn() {
        draw_rows(&[row(16, 1.5)]).unwrap();
        draw_rows(&[row(512, 2.0), row(16, 0.01), row(64, 0.1)]).unwrap();
        draw_rows(&[row(1, 1e-9), row(1_000_000_000_000_000, 1e15)]).unwrap();
    }

    #[test]
    fn bad_rows_are_refused() {
        for (rows, reason) in [
            (vec![], "0 rows"),
            (vec![row(0, 1.0)], "context is 0"),
            (vec![row(16, 0.0)], "with_cache_ms at context 16 is 0"),
            (vec![row(16, f64::NAN)], "with_cache_ms at context 16 is NaN"),
        ] {
            let error = draw_rows(&rows).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
