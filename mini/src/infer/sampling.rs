//! Sampling of tokens: temperature, top-k, top-p, from a seeded stream.

use anyhow::{Context as _, Result};
use kvern::{Context, MatMut, ops};

use crate::random::SplitMix64;

/// Samples tokens. Equal seeds and equal logits give equal tokens on every machine: probabilities come from
/// the library's softmax, and sums run in f64 in ascending order.
pub struct Sampler<'a> {
    ctx: &'a Context,
    random: SplitMix64,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    probabilities: Vec<f32>,
}

impl<'a> Sampler<'a> {
    /// A sampler. A temperature of 0 takes the greatest logit, the first of equals; `top_k` and `top_p`
    /// restrict sampling to the most likely tokens.
    pub fn new(
        ctx: &'a Context,
        seed: u64,
        temperature: f64,
        top_k: Option<usize>,
        top_p: Option<f64>,
    ) -> Self {
        Self { ctx, random: SplitMix64::new(seed), temperature, top_k, top_p, probabilities: Vec::new() }
    }

    /// The next token.
    ///
    /// # Errors
    /// When every logit is NaN.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let best = ops::argmax(self.ctx, logits).context("every logit is NaN")?;
        if self.temperature == 0.0 {
            return Ok(best as u32);
        }
        // Relative to the greatest, so that no quotient overflows upwards.
        let (greatest, n) = (f64::from(logits[best]), logits.len());
        let scaled = |&x: &f32| ((f64::from(x) - greatest) / self.temperature) as f32;
        self.probabilities.clear();
        self.probabilities.extend(logits.iter().map(scaled));
        ops::softmax(self.ctx, MatMut::dense(&mut self.probabilities, 1, n)?);

        let p = |id: usize| f64::from(self.probabilities[id]);
        let mut order: Vec<usize> = (0..n).collect();
        // The sort is stable: equal probabilities stay in the order of their ids.
        order.sort_by(|&a, &b| self.probabilities[b].total_cmp(&self.probabilities[a]));
        order.truncate(self.top_k.unwrap_or(n).max(1));
        if let Some(limit) = self.top_p {
            let mut sum = 0.0;
            let needed = order.iter().position(|&id| {
                sum += p(id);
                sum >= limit
            });
            order.truncate(needed.map_or(order.len(), |last| last + 1));
        }
        let total: f64 = order.iter().map(|&id| p(id)).sum();
        let mut left = self.random.unit() * total;
        for &id in &order {
            left -= p(id);
            if left < 0.0 {
                return Ok(id as u32);
            }
        }
        Ok(order.first().map_or(best, |&id| id) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 3.0, 2.0, 1.0];

    fn counts(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> [f64; 4] {
        let ctx = Context::serial();
        let mut sampler = Sampler::new(&ctx, 5, temperature, top_k, top_p);
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[sampler.choose(&LOGITS).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn temperature_0_takes_the_greatest() {
        assert!((counts(0.0, None, None)[1] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        for temperature in [0.5f64, 1.0, 2.0] {
            let exps = LOGITS.map(|x| (f64::from(x) / temperature).exp());
            let sum: f64 = exps.iter().sum();
            for (found, exp) in counts(temperature, None, None).iter().zip(exps) {
                assert!((found - exp / sum).abs() < 0.015, "{found} {}", exp / sum);
            }
        }
    }

    #[test]
    fn the_tail_is_left_out() {
        let found = counts(1.0, Some(2), None);
        assert!(found[0] == 0.0 && found[3] == 0.0 && found[2] > 0.2, "{found:?}");
        // The greatest has 0.64, the two greatest 0.88.
        let found = counts(1.0, None, Some(0.7));
        assert!(found[0] == 0.0 && found[3] == 0.0 && found[2] > 0.2, "{found:?}");
        assert!((counts(1.0, None, Some(0.6))[1] - 1.0).abs() < 1e-9);
        assert!(counts(1.0, Some(99), Some(1.0)).iter().all(|&share| share > 0.0));
    }

    #[test]
    fn seeds_repeat_and_nan_is_an_error() {
        let ctx = Context::serial();
        let draw = |seed| {
            let mut sampler = Sampler::new(&ctx, seed, 1.5, None, None);
            (0..50).map(|_| sampler.choose(&LOGITS).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(Sampler::new(&ctx, 1, 1.0, None, None).choose(&[f32::NAN]).is_err());
    }
}
