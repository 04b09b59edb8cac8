//! What recurrent layers share: the short convolution along the tokens, and rates of decay.

use crate::engine::Runtime;
use crate::error::Result;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::ops::{self, ConvOptions};
use kvern::{Activation, MatRef};

/// A convolution of each channel along the tokens: `y[t] = act(sum over j of w[j] x[t - taps + 1 + j] + b)`.
#[derive(Debug, Clone)]
pub struct ShortConv {
    weights: Rows,          // (taps, channels), the oldest token first
    bias: Option<Vec<f32>>, // (channels)
    activation: Activation,
}

impl ShortConv {
    /// Loads `name.weight`, (channels, 1, taps), and with `bias` also `name.bias`, (channels).
    ///
    /// **Errors**: as [`Loader::tensor`].
    pub fn load(
        at: &Loader<'_>,
        name: &str,
        (channels, taps): (usize, usize),
        bias: bool,
        activation: Activation,
    ) -> Result<ShortConv> {
        let at = at.at(name);
        let weights = at.tensor("weight", &[channels, 1, taps])?;
        let bias = bias.then(|| at.tensor("bias", &[channels])).transpose()?;
        Ok(ShortConv::new(&weights, taps, bias, activation))
    }

    /// A convolution of weights (channels, taps) in memory, the taps of a channel together.
    pub fn new(weights: &[f32], taps: usize, bias: Option<Vec<f32>>, activation: Activation) -> ShortConv {
        let channels = weights.len().checked_div(taps).unwrap_or(0);
        let mut transposed = Rows::zeros(taps, channels);
        for (j, row) in transposed.as_mut_slice().chunks_exact_mut(channels.max(1)).enumerate() {
            for (to, own) in row.iter_mut().zip(weights.chunks_exact(taps)) {
                *to = own[j];
            }
        }
        ShortConv { weights: transposed, bias, activation }
    }

    /// Taps.
    pub fn taps(&self) -> usize {
        self.weights.rows()
    }

    /// The convolved tokens; `state` holds the inputs before them, (taps - 1, channels), and then the last
    /// ones of `x`.
    ///
    /// **Errors**: as [`ops::causal_conv`].
    pub fn apply(&self, rt: &Runtime, x: MatRef<'_>, state: &mut [f32]) -> Result<Rows> {
        let mut options = ConvOptions::new(self.weights.view()?).activation(self.activation);
        if let Some(bias) = &self.bias {
            options = options.bias(bias);
        }
        let mut y = Rows::zeros(x.rows(), x.cols());
        ops::causal_conv(&rt.ctx, &options, x, state, y.view_mut()?)?;
        Ok(y)
    }
}

/// `-exp(A_log)`: what a step is multiplied by to give the logarithm of a decay. In f64, rounded once.
pub fn decay_rates(a_log: &[f32]) -> Vec<f32> {
    a_log.iter().map(|&a| -libm::exp(f64::from(a)) as f32).collect()
}
