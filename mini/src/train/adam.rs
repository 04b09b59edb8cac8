//! Adam (Kingma and Ba 2015) and the clipping of gradients.

use crate::model::{Shape, Weights};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// First and second moment of every weight, and the number of updates.
#[derive(Clone)]
pub struct Adam {
    /// Running means of the gradients.
    pub first: Weights,
    /// Running means of their squares.
    pub second: Weights,
    /// Updates so far.
    pub step: u64,
}

impl Adam {
    /// Moments of zero.
    pub fn new(shape: &Shape) -> Self {
        Self { first: Weights::zeros(shape), second: Weights::zeros(shape), step: 0 }
    }

    /// `w -= rate * mhat / (sqrt(vhat) + 1e-8)` with `factor` times the gradients.
    ///
    /// Every operation is one IEEE operation of its own on each weight, so nothing depends on the order of
    /// the weights.
    pub fn update(&mut self, weights: &mut Weights, gradients: &Weights, factor: f32, rate: f64) {
        self.step += 1;
        // libm computes powers in software: the same bits on every machine.
        let steps = self.step as f64;
        let rate = (rate / (1.0 - libm::pow(BETA1, steps))) as f32;
        let unbias = (1.0 / (1.0 - libm::pow(BETA2, steps))) as f32;
        let (keep1, keep2) = (BETA1 as f32, BETA2 as f32);
        let (new1, new2) = ((1.0 - BETA1) as f32, (1.0 - BETA2) as f32);
        let moments = self.first.tensors_mut().into_iter().zip(self.second.tensors_mut());
        let tensors = weights.tensors_mut().into_iter().zip(gradients.tensors()).zip(moments);
        for ((weights, gradients), (first, second)) in tensors {
            let values = weights.iter_mut().zip(gradients).zip(first.iter_mut().zip(second));
            for ((w, &g), (m, v)) in values {
                let g = g * factor;
                *m = keep1 * *m + new1 * g;
                *v = keep2 * *v + new2 * (g * g);
                *w -= rate * *m / ((*v * unbias).sqrt() + EPSILON);
            }
        }
    }
}

/// Returns the L2 norm of all gradients, and the factor `min(1, limit / norm)` that clips it.
///
/// Squares are summed in f64: tensors in the order of [`Weights::tensors`], and within a tensor element `i`
/// in accumulator `i mod 8`; the eight accumulators are added in order at the end of the tensor.
pub fn clip(gradients: &Weights, limit: f64) -> (f64, f32) {
    let mut sum = 0.0;
    for tensor in gradients.tensors() {
        let mut lanes = [0f64; 8];
        for chunk in tensor.chunks(8) {
            for (lane, &g) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(g) * f64::from(g);
            }
        }
        for lane in lanes {
            sum += lane;
        }
    }
    let norm = sum.sqrt();
    let factor = if norm > limit { (limit / norm) as f32 } else { 1.0 };
    (norm, factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { dim: 32, heads: 1, ffn: 32, ..Shape::DEFAULT }
    }

    #[test]
    fn the_first_update_is_the_rate_against_the_sign() {
        let (mut weights, mut gradients) = (Weights::zeros(&shape()), Weights::zeros(&shape()));
        gradients.head.bias[..3].copy_from_slice(&[3.0, -0.01, 0.0]);
        Adam::new(&shape()).update(&mut weights, &gradients, 1.0, 0.5);
        let [a, b, c] = [0, 1, 2].map(|i| weights.head.bias[i]);
        assert!((a + 0.5).abs() < 1e-5 && (b - 0.5).abs() < 1e-5 && c == 0.0, "{a} {b} {c}");
    }

    #[test]
    fn two_updates_follow_the_formula() {
        let (mut weights, mut gradients) = (Weights::zeros(&shape()), Weights::zeros(&shape()));
        let mut adam = Adam::new(&shape());
        let (mut w, mut m, mut v) = (0f64, 0f64, 0f64);
        for (t, g) in [(1, 2.0), (2, -0.5)] {
            gradients.embedding[7] = g;
            adam.update(&mut weights, &gradients, 0.5, 1e-2);
            let g = f64::from(g) * 0.5;
            (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
            let (mhat, vhat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            w -= 1e-2 * mhat / (vhat.sqrt() + 1e-8);
        }
        assert!((f64::from(weights.embedding[7]) - w).abs() < 1e-7, "{} {w}", weights.embedding[7]);
        assert_eq!(adam.step, 2);
    }

    #[test]
    fn only_a_norm_above_the_limit_is_clipped() {
        let mut gradients = Weights::zeros(&shape());
        (gradients.head.bias[0], gradients.embedding[9]) = (3.0, 4.0);
        assert_eq!(clip(&gradients, 1.0), (5.0, 0.2));
        assert_eq!(clip(&gradients, 5.0), (5.0, 1.0));
    }
}
