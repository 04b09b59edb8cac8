//! `plot_loss_*.png`: loss of each step of a training.

use std::path::Path;

use anyhow::{Result, ensure};
use plotters::prelude::*;

use super::lines;
use super::style::{COLOURS, check, number, plot};
use crate::report::LossRow;

/// Steps that the smooth line is the mean of, at most.
const WINDOW: usize = 25;

/// Draws the rows of a `loss_*.csv`: each step, a running mean, and the entropy of the text where it is
/// known.
///
/// # Errors
/// When there is no row, a loss has no place on an axis, or the file cannot be written.
pub fn loss(path: &Path, name: &str, rows: &[LossRow], entropy: Option<f64>) -> Result<()> {
    ensure!(!rows.is_empty(), "0 rows of loss to plot");
    let mut points = Vec::new();
    for row in rows {
        let loss = check(&format!("loss of step {}", row.step), row.loss)?;
        points.push((row.step as f64, loss));
    }
    let smooth: Vec<_> = (0..points.len())
        .map(|i| {
            let window = &points[i.saturating_sub(WINDOW - 1)..=i];
            (points[i].0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
        })
        .collect();
    let low = points.iter().map(|point| point.1).chain(entropy).fold(f64::MAX, f64::min);
    let high = points.iter().map(|point| point.1).chain(entropy).fold(0.0, f64::max);
    let margin = ((high - low) * 0.08).max(1e-3);
    // The legend of three lines takes a fifth of the height, and lies above every point.
    let legend = ((high - low) * 0.3).max(1e-3);
    let (first, last) = (points[0].0, points[points.len() - 1].0.max(points[0].0 + 1.0));
    plot(path, &format!("Loss of the training on the text: {name}"), |area| {
        let mut chart = lines::builder(area).build_cartesian_2d(first..last, low - margin..high + legend)?;
        lines::axes(&mut chart, ["step", "cross-entropy (nats per token)"], None)?;
        // The mean lies on top, so that it can be followed down to the floor.
        let each = COLOURS[0].mix(0.5).stroke_width(1);
        lines::line(&mut chart, "each batch", each, &points)?;
        if let Some(entropy) = entropy {
            let name = format!("entropy of the source, {}", number(entropy));
            let floor = COLOURS[1].stroke_width(3);
            lines::line(&mut chart, &name, floor, &[(first, entropy), (last, entropy)])?;
        }
        let mean = COLOURS[0].stroke_width(4);
        lines::line(&mut chart, &format!("mean of {WINDOW}"), mean, &smooth)?;
        lines::legend(&mut chart, SeriesLabelPosition::UpperRight)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(losses: &[f64]) -> Vec<LossRow> {
        let row =
            |(i, loss): (usize, &f64)| LossRow { step: i as u64 + 1, loss: *loss, norm: 1.0, rate: 0.1 };
        losses.iter().enumerate().map(row).collect()
    }

    #[test]
    fn one_row_many_rows_and_equal_losses_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        for losses in [vec![3.0], vec![2.0; 40], (0..2000).map(|i| 7.0 / (1.0 + f64::from(i))).collect()] {
            for entropy in [None, Some(1.5)] {
                loss(&path, "test", &rows(&losses), entropy).unwrap();
                assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
            }
        }
    }

    #[test]
    fn no_row_and_losses_without_a_place_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        assert!(loss(&path, "test", &[], None).is_err());
        let error = loss(&path, "test", &rows(&[1.0, f64::NAN]), None).unwrap_err().to_string();
        assert!(error.contains("loss of step 2 is NaN"), "{error}");
    }
}
