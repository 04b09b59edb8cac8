//! Summary statistics of a sample. Each function returns `None` if the statistic is not defined, and NaN if
//! the sample has a NaN.

/// Arithmetic mean; `None` for an empty sample.
pub fn mean(sample: &[f64]) -> Option<f64> {
    (!sample.is_empty()).then(|| sample.iter().sum::<f64>() / sample.len() as f64)
}

/// Sample standard deviation (divisor n - 1); `None` for fewer than two values.
///
/// Two passes: timings have a small spread against their mean, and there the one-pass formula cancels.
pub fn sample_std(sample: &[f64]) -> Option<f64> {
    if sample.len() < 2 {
        return None;
    }
    let mean = mean(sample)?;
    let squares: f64 = sample.iter().map(|x| (x - mean).powi(2)).sum();
    Some((squares / (sample.len() - 1) as f64).sqrt())
}

/// Median: the 50th [`percentile`]; `None` for an empty sample.
pub fn median(sample: &[f64]) -> Option<f64> {
    percentile(sample, 50.0)
}

/// The `p`-th percentile with linear interpolation between the two nearest ranks (type 7 of Hyndman and Fan
/// 1996, the default of NumPy and R).
///
/// `None` for an empty sample or a `p` outside 0..=100.
pub fn percentile(sample: &[f64], p: f64) -> Option<f64> {
    if sample.is_empty() || !(0.0..=100.0).contains(&p) {
        return None;
    }
    if sample.iter().any(|x| x.is_nan()) {
        return Some(f64::NAN);
    }
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);

    let rank = p / 100.0 * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    let fraction = rank.fract();
    // Without this case two infinite neighbours would give inf - inf.
    Some(if fraction == 0.0 || low == high { low } else { low + fraction * (high - low) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: [f64; 8] = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];

    #[test]
    fn mean_and_deviation_of_a_known_sample() {
        assert_eq!(mean(&SAMPLE), Some(5.0));
        assert_eq!(sample_std(&SAMPLE), Some((32.0_f64 / 7.0).sqrt()));
    }

    #[test]
    fn deviation_keeps_its_digits_far_from_zero() {
        let shifted = SAMPLE.map(|x| x + 1e9);
        assert_eq!(sample_std(&shifted), sample_std(&SAMPLE));
    }

    #[test]
    fn median_of_odd_and_even_samples() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    #[test]
    fn percentiles_interpolate() {
        let sample = [40.0, 10.0, 30.0, 20.0];
        assert_eq!(percentile(&sample, 0.0), Some(10.0));
        assert_eq!(percentile(&sample, 25.0), Some(17.5));
        assert_eq!(percentile(&sample, 100.0), Some(40.0));
    }

    #[test]
    fn undefined_statistics_are_none() {
        assert_eq!(mean(&[]), None);
        assert_eq!(median(&[]), None);
        assert_eq!(sample_std(&[1.0]), None);
        assert_eq!(percentile(&SAMPLE, 101.0), None);
        assert_eq!(percentile(&SAMPLE, f64::NAN), None);
    }

    #[test]
    fn special_values() {
        assert!(median(&[1.0, f64::NAN]).unwrap().is_nan());
        assert_eq!(median(&[f64::INFINITY; 2]), Some(f64::INFINITY));
    }
}
