//! Seeded initial values: the same bits on every machine.
//!
//! Integers come from SplitMix64 (Steele, Lea and Flood, "Fast splittable
//! pseudorandom number generators", OOPSLA 2014), one stream for the whole
//! model. The rest is IEEE arithmetic (one division, one square root, one
//! product), so no mathematical library has a say in the weights.

/// The stream of initial weights of one seed.
pub struct InitialWeights {
    state: u64,
}

impl InitialWeights {
    /// Begins the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `rows * fan_in` values, uniform in `[-a, a)` with `a = sqrt(3 / fan_in)`:
    /// their variance is `1 / fan_in`, so that a product with inputs of
    /// variance 1 has variance 1 too.
    pub fn matrix(&mut self, rows: usize, fan_in: usize) -> Vec<f32> {
        let bound = (3.0 / fan_in as f32).sqrt();
        (0..rows * fan_in).map(|_| bound * self.unit()).collect()
    }

    /// A multiple of 2^-23, uniform in `[-1, 1)`.
    fn unit(&mut self) -> f32 {
        let top = (self.next() >> 40) as f32;
        top / (1u32 << 23) as f32 - 1.0
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // The first outputs of the reference implementation for this seed.
        let mut stream = InitialWeights::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(expected.map(|_| stream.next()), expected);
    }

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
