//! Line plots: margins, axes, legend, and one line.

use anyhow::Result;
use plotters::chart::SeriesLabelPosition;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use super::style::{Area, GRID, number, text};

/// A plot of lines whose axes carry f64.
pub type Chart<'a, 'b, X, Y> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<X, Y>>;

/// A chart with room for the labels of both axes.
pub fn builder<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, BitMapBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(8).margin_right(40).x_label_area_size(60).y_label_area_size(90);
    builder
}

/// Draws both axes, their descriptions and the grid; `ticks` is the number of labels on x and on y.
///
/// # Errors
/// When the drawing fails.
pub fn axes<X, Y>(chart: &mut Chart<'_, '_, X, Y>, [x, y]: [&str; 2], ticks: Option<[usize; 2]>) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let format = |value: &f64| number(*value);
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID)
        .light_line_style(WHITE)
        .x_label_formatter(&format)
        .y_label_formatter(&format)
        .label_style(text(18))
        .x_desc(x)
        .y_desc(y)
        .axis_desc_style(text(20));
    if let Some([x, y]) = ticks {
        mesh.x_labels(x).y_labels(y);
    }
    mesh.draw()?;
    Ok(())
}

/// Draws a line and enters it into the legend.
///
/// # Errors
/// When the drawing fails.
pub fn line<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    name: &str,
    style: ShapeStyle,
    points: &[(f64, f64)],
) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .draw_series(LineSeries::new(points.iter().copied(), style))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
    Ok(())
}

/// Draws the legend.
///
/// # Errors
/// When the drawing fails.
pub fn legend<'a, 'b: 'a, X, Y>(chart: &mut Chart<'a, 'b, X, Y>, position: SeriesLabelPosition) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .margin(16)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font(text(22))
        .draw()?;
    Ok(())
}
