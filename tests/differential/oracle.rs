//! Activations and epilogues in f64, with bounds.

use crate::machines::one_in;
use crate::support::Random;
use kvern::{Activation, Epilogue};

/// The rounding unit of f32.
pub const U: f64 = 1.0 / (1 << 24) as f64;

const ACTIVATIONS: [Activation; 4] =
    [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::Silu];

pub fn activation(random: &mut Random) -> Activation {
    ACTIVATIONS[random.below(ACTIVATIONS.len())]
}

/// The function in f64. Its slope is at most 1.13.
pub fn act(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
        _ => x,
    }
}

/// Error of an activation whose argument is exact: a few roundings of numbers of its size.
pub fn act_bound(x: f64) -> f64 {
    32.0 * U * x.abs() + 1e-37
}

/// The epilogue of a random product, owned.
#[derive(Debug)]
pub struct Finish {
    pub alpha: f32,
    pub beta: f32,
    pub bias: Option<Vec<f32>>, // (n)
    pub activation: Activation,
}

impl Finish {
    /// `beta`: whether it may be anything but 0.
    pub fn random(random: &mut Random, n: usize, beta: bool) -> Finish {
        let factors = [1.0, 1.0, -0.5, 2.25, 0.0];
        Finish {
            alpha: factors[random.below(factors.len())],
            beta: if beta && one_in(random, 3) { [1.0, -0.75][random.below(2)] } else { 0.0 },
            bias: one_in(random, 2).then(|| random.vec(n)),
            activation: activation(random),
        }
    }

    pub fn epilogue(&self) -> Epilogue<'_> {
        let epilogue = Epilogue::default().scaled(self.alpha, self.beta).activation(self.activation);
        match &self.bias {
            Some(bias) => epilogue.bias(bias),
            None => epilogue,
        }
    }

    /// `act(alpha * ab + bias)` of an exact `ab` that f32 knows to within `error`, and the bound of the
    /// result.
    pub fn apply(&self, ab: f64, error: f64, j: usize) -> (f64, f64) {
        let (alpha, bias) = (f64::from(self.alpha), self.bias.as_ref().map_or(0.0, |b| f64::from(b[j])));
        let z = alpha * ab + bias;
        let error = alpha.abs() * error + 4.0 * U * ((alpha * ab).abs() + bias.abs());
        (act(self.activation, z), 1.13 * error + act_bound(z))
    }

    /// `beta * c` added.
    pub fn add(&self, (y, error): (f64, f64), c: f32) -> (f64, f64) {
        let c = f64::from(self.beta) * f64::from(c);
        (y + c, error + 2.0 * U * (y.abs() + c.abs()))
    }
}

/// The bound of one chain of n fused multiply-adds whose terms have magnitudes that sum to `sum`.
pub fn chain_bound(n: usize, sum: f64) -> f64 {
    (n as f64 + 1.0) * U * sum + 1e-37
}
