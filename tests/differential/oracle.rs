//! Activations and epilogues in f64, with bounds.

use crate::machines::one_in;
use crate::support::Random;
use kvern::{Activation, Epilogue};

/// The rounding unit of f32.
pub const U: f64 = 1.0 / (1 << 24) as f64;

pub fn activation(random: &mut Random) -> Activation {
    Activation::ALL[random.below(Activation::ALL.len())]
}

/// The function in f64.
pub fn act(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluErf => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        Activation::GeluQuick => x / (1.0 + (-1.702 * x).exp()),
        Activation::ReluSquared => x.max(0.0) * x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Exp => x.exp(),
        _ => x,
    }
}

/// Error of an activation whose argument is off by `error` at most: what the function makes of it, and a few
/// roundings of numbers of the size of argument and result.
pub fn act_bound(activation: Activation, x: f64, error: f64) -> f64 {
    let y = act(activation, x);
    let moved = [x - error, x + error].map(|x| (act(activation, x) - y).abs());
    // The functions that are not monotone have slopes of at most 1.13.
    moved[0].max(moved[1]).max(1.13 * error * f64::from(x.abs() < 100.0))
        + 32.0 * U * (x.abs() + y.abs())
        + 1e-36
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
            // e^x of a product leaves the range of f32, where a bound says nothing.
            activation: match activation(random) {
                Activation::Exp => Activation::Softplus,
                other => other,
            },
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
        (act(self.activation, z), act_bound(self.activation, z, error))
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
