//! Canvas, font, colours and number format of all plots.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

/// Name under which the font is registered.
pub const FONT: &str = "DejaVu Sans";

/// Width and height of a plot in pixels.
pub const SIZE: (u32, u32) = (1200, 700);

/// Blue, orange and green that colour-blind readers can tell apart (Okabe and Ito, "Color Universal Design",
/// 2008).
pub const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115)];

/// Grid lines: there, but behind everything.
pub const GRID: RGBColor = RGBColor(225, 225, 225);

/// A rectangle to draw on.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Text of `pixels` height; a style that all text functions take.
pub fn text(pixels: u32) -> (&'static str, u32) {
    (FONT, pixels)
}

/// Draws into a white canvas under `title` and writes it to `path`.
///
/// # Errors
/// When the drawing fails or the file cannot be written.
pub fn plot(path: &Path, title: &str, draw: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the font {FONT} cannot be read"))?;
    let write = || -> Result<()> {
        let canvas = BitMapBackend::new(path, SIZE).into_drawing_area();
        canvas.fill(&WHITE)?;
        let body = canvas.margin(16, 12, 12, 16).titled(title, text(30))?;
        draw(&body)?;
        canvas.present()?;
        Ok(())
    };
    write().with_context(|| format!("cannot draw {}", path.display()))
}

/// Refuses numbers that an axis cannot show; `what` names the value.
///
/// # Errors
/// When `value` is negative, not finite, or beyond 10^15.
pub fn check(what: &str, value: f64) -> Result<f64> {
    ensure!((0.0..=1e15).contains(&value), "{what} is {value}; a plot takes 0 to 1e15");
    Ok(value)
}

/// As [`check`], for an axis or a quotient that cannot take a zero.
///
/// # Errors
/// When `value` is below 10^-9, not finite, or beyond 10^15.
pub fn check_positive(what: &str, value: f64) -> Result<f64> {
    ensure!((1e-9..=1e15).contains(&value), "{what} is {value}; a plot takes 1e-9 to 1e15");
    Ok(value)
}

/// Decimals that show about four digits of `value`.
pub fn decimals(value: f64) -> usize {
    match value.abs() {
        0.0 => 0,
        x if x < 1e-3 => 6,
        x if x < 0.1 => 4,
        x if x < 10.0 => 3,
        x if x < 1e4 => 2,
        _ => 0,
    }
}

/// A number with [`decimals`], without trailing zeros.
pub fn number(value: f64) -> String {
    let digits = format!("{value:.*}", decimals(value));
    if !digits.contains('.') {
        return digits;
    }
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (16.3, "16.3"),
            (29.934, "29.93"),
            (0.25, "0.25"),
            (0.4712, "0.471"),
            (0.03125, "0.0312"),
            (1019.74, "1019.74"),
            (456_300.0, "456300"),
            (20.0, "20"),
            (3e-6, "0.000003"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn values_without_a_place_on_an_axis_are_refused() {
        for value in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let error = check("mean_ms of no_cache", value).unwrap_err().to_string();
            assert!(error.starts_with("mean_ms of no_cache is"), "{error}");
            assert!(check_positive("x", value).is_err());
        }
        assert!(check_positive("x", 0.0).is_err());
        assert!(check("x", 0.0).is_ok());
    }
}
