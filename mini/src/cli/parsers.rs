//! Parsers of single values. clap puts the option and the text before the message; the message names the
//! limits.

use std::ops::RangeInclusive;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kvern::Isa;

/// Parser of the name of an instruction set that the library knows.
pub(super) fn isa() -> impl TypedValueParser<Value = Isa> {
    PossibleValuesParser::new(Isa::ALL.iter().map(|isa| isa.name())).try_map(|name| name.parse::<Isa>())
}

/// Parser of a whole number in `limits`. clap puts the option and the text before the message, which names
/// the limits for any text that does not fit.
pub(super) fn range(
    limits: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    move |text| match text.parse() {
        Ok(number) if limits.contains(&number) => Ok(number),
        _ => Err(format!("not a whole number in {limits:?}")),
    }
}

/// Parser of a positive number.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("not a number above 0".into()),
    }
}

/// Parser of a number from 0 to 100.
pub(super) fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number),
        _ => Err("not a number in 0..=100".into()),
    }
}

/// Parser of a number above 0 and up to 1.
pub(super) fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err("not a number above 0 and up to 1".into()),
    }
}
