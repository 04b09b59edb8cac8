//! A panel of vertical bars with their values on top.

use anyhow::{Result, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::{Area, COLOURS, GRID, check, decimals, number, text};

/// Free height above the tallest bar, for its label, as a share of it.
const HEADROOM: f64 = 0.18;

/// Limit of an error bar, as a multiple of the tallest bar. On a busy machine error bars are ten times as
/// long as the bars; uncut, they would shrink the bars to nothing. The printed numbers are not cut.
const REACH: f64 = 1.5;

/// Height of the value above a bar, in pixels.
const LABEL: u32 = 20;

/// Height of the detail between a bar and its value, in pixels.
const DETAIL: u32 = 15;

/// Half the width of an error bar's ends, in pixels.
const CAP: i32 = 10;

/// One bar.
pub struct Bar {
    name: String,
    value: f64,
    error: f64,
    detail: String,
}

impl Bar {
    /// A bar of height `value`, with `name` below and the value above it.
    ///
    /// # Errors
    /// When the axis cannot show `value`; the message names `column`.
    pub fn new(name: &str, column: &str, value: f64) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            value: check(&format!("{column} of {name}"), value)?,
            error: 0.0,
            detail: String::new(),
        })
    }

    /// Adds an error bar of `error` to both sides, and its length as the detail.
    ///
    /// # Errors
    /// When the axis cannot show `error`; the message names `column`.
    pub fn with_error(mut self, column: &str, error: f64) -> Result<Self> {
        self.error = check(&format!("{column} of {}", self.name), error)?;
        let decimals = decimals(self.value);
        Ok(self.with_detail(format!("± {error:.decimals$}")))
    }

    /// Sets the small text between the bar and its value.
    pub fn with_detail(mut self, detail: String) -> Self {
        self.detail = detail;
        self
    }

    /// The value with decimals that suit its magnitude.
    fn label(&self) -> String {
        format!("{:.*}", decimals(self.value), self.value)
    }

    /// The lower and the upper end of the error bar on an axis from zero to `limit`.
    fn ends(&self, limit: f64) -> [f64; 2] {
        [(self.value - self.error).max(0.0), (self.value + self.error).min(limit)]
    }
}

/// Draws `bars` from zero, the axis labelled `axis` (with its unit), under `caption` where it is not empty.
///
/// # Errors
/// When there is no bar or the drawing fails.
pub fn draw(area: &Area, caption: &str, axis: &str, bars: &[Bar]) -> Result<()> {
    ensure!(!bars.is_empty(), "0 bars to draw");
    let limit = REACH * bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let tallest = bars.iter().map(|bar| bar.ends(limit)[1]).fold(0.0, f64::max);
    let top = if tallest > 0.0 { tallest * (1.0 + HEADROOM) } else { 1.0 };
    let name_at = |position: &SegmentValue<usize>| match position {
        SegmentValue::CenterOf(i) => bars.get(*i).map(|bar| bar.name.clone()),
        _ => None,
    };

    let mut builder = ChartBuilder::on(area);
    builder.margin(8).x_label_area_size(40).y_label_area_size(84);
    if !caption.is_empty() {
        builder.caption(caption, text(24));
    }
    // The range of a segmented axis includes its end.
    let columns = (0..bars.len() - 1).into_segmented();
    let mut chart = builder.build_cartesian_2d(columns, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .x_labels(bars.len())
        .x_label_formatter(&|position| name_at(position).unwrap_or_default())
        .x_label_style(text(20))
        .y_label_formatter(&|value| number(*value))
        .y_label_style(text(16))
        .y_desc(axis)
        .axis_desc_style(text(20))
        .draw()?;

    let gap = area.dim_in_pixel().0 / (6 * bars.len() as u32);
    let numbered = || bars.iter().enumerate();
    chart.draw_series(numbered().map(|(i, bar)| {
        let left = (SegmentValue::Exact(i), 0.0);
        let right = (SegmentValue::Exact(i + 1), bar.value);
        let mut shape = Rectangle::new([left, right], COLOURS[i % COLOURS.len()].filled());
        shape.set_margin(0, 0, gap, gap);
        shape
    }))?;

    let with_error = || numbered().filter(|(_, bar)| bar.error > 0.0);
    let stroke = BLACK.stroke_width(2);
    chart.draw_series(with_error().map(|(i, bar)| {
        let line = bar.ends(limit).map(|end| (SegmentValue::CenterOf(i), end));
        PathElement::new(line, stroke)
    }))?;
    chart.draw_series(with_error().flat_map(|(i, bar)| {
        // An end that is cut off has no cap.
        bar.ends(limit).into_iter().filter(|&end| end < limit).map(move |end| {
            EmptyElement::at((SegmentValue::CenterOf(i), end))
                + PathElement::new([(-CAP, 0), (CAP, 0)], stroke)
        })
    }))?;

    let above = Pos::new(HPos::Center, VPos::Bottom);
    let label = text(LABEL).into_text_style(area).pos(above);
    let detail = text(DETAIL).into_text_style(area).pos(above);
    chart.draw_series(numbered().map(|(i, bar)| {
        let lift = if bar.detail.is_empty() { 0 } else { DETAIL as i32 + 4 };
        EmptyElement::at((SegmentValue::CenterOf(i), bar.ends(limit)[1]))
            + Text::new(bar.detail.clone(), (0, -6), detail.clone())
            + Text::new(bar.label(), (0, -6 - lift), label.clone())
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_has_the_decimals_of_the_value() {
        let bar = Bar::new("a", "ms", 16.302).unwrap();
        let bar = bar.with_error("std", 0.6).unwrap();
        assert_eq!((bar.label().as_str(), bar.detail.as_str()), ("16.30", "± 0.60"));
    }

    #[test]
    fn error_bars_reach_neither_below_zero_nor_above_the_limit() {
        let bar = Bar::new("a", "ms", 1.0).unwrap().with_error("std", 3.0).unwrap();
        assert_eq!((bar.ends(9.0), bar.ends(1.5)), ([0.0, 4.0], [0.0, 1.5]));
    }
}
