//! Seeded initial values: the same bits on every machine.
//!
//! Integers come from [`SplitMix64`], one stream for the whole model. All other steps are IEEE arithmetic
//! (one division, one square root, one product), so the weights do not depend on a mathematical library.

use crate::random::SplitMix64;

/// The stream of initial weights of one seed.
pub struct InitialWeights {
    random: SplitMix64,
}

impl InitialWeights {
    /// Begins the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: SplitMix64::new(seed) }
    }

    /// `rows * fan_in` values, uniform in `[-a, a)` with `a = sqrt(3 / fan_in)`: their variance is
    /// `1 / fan_in`, so that a product with inputs of variance 1 has variance 1 too.
    pub fn matrix(&mut self, rows: usize, fan_in: usize) -> Vec<f32> {
        let bound = (3.0 / fan_in as f32).sqrt();
        (0..rows * fan_in).map(|_| bound * self.unit()).collect()
    }

    /// A multiple of 2^-23, uniform in `[-1, 1)`.
    fn unit(&mut self) -> f32 {
        let top = (self.random.next_u64() >> 40) as f32;
        top / (1u32 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_centred_and_of_the_stated_variance() {
        let values = InitialWeights::new(7).matrix(1000, 48);
        assert!(values.iter().all(|x| x.abs() <= 0.25));
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 0.003, "{mean}");
        assert!((variance * 48.0 - 1.0).abs() < 0.02, "{variance}");
    }
}
