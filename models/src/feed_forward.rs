//! The gated feed-forward layer (Shazeer 2020): SwiGLU, GeGLU.

use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::{Activation, MatRef};

/// `down(act(gate(x)) * up(x))`.
#[derive(Debug, Clone)]
pub struct GatedFeedForward {
    /// (hidden, n)
    pub gate: Linear,
    /// (hidden, n)
    pub up: Linear,
    /// (n, hidden)
    pub down: Linear,
    /// The function of the gate.
    pub activation: Activation,
}

impl GatedFeedForward {
    /// Loads `gate_proj`, `up_proj` and `down_proj`, for rows of `n` and `hidden` elements between.
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn load(
        at: &Loader<'_>,
        n: usize,
        hidden: usize,
        bias: bool,
        activation: Activation,
    ) -> Result<GatedFeedForward> {
        Ok(GatedFeedForward {
            gate: at.linear("gate_proj", (hidden, n), bias)?,
            up: at.linear("up_proj", (hidden, n), bias)?,
            down: at.linear("down_proj", (n, hidden), bias)?,
            activation,
        })
    }

    /// The layer's result, (tokens, n).
    ///
    /// **Errors**: those of the products.
    pub fn apply(&self, rt: &mut Runtime, x: MatRef<'_>) -> Result<Rows> {
        let hidden = self.gate.gate(rt, x, &self.up, self.activation)?;
        self.down.apply(rt, hidden.view()?)
    }

    /// `stream = stream + by * layer(x)`.
    ///
    /// **Errors**: those of the products.
    pub fn add_to(&self, rt: &mut Runtime, x: MatRef<'_>, by: f32, stream: &mut Rows) -> Result<()> {
        let hidden = self.gate.gate(rt, x, &self.up, self.activation)?;
        self.down.add_to(rt, hidden.view()?, by, stream)
    }
}

/// The activation that configurations call `name`.
///
/// **Errors**: `Config` for a name that is none of these.
pub fn activation(name: &str) -> Result<Activation> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::GeluErf),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::Gelu),
        "quick_gelu" => Ok(Activation::GeluQuick),
        "relu" => Ok(Activation::Relu),
        "relu2" => Ok(Activation::ReluSquared),
        _ => Err(Error::field(
            "the activation",
            name,
            "silu, swish, gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, relu or relu2",
        )),
    }
}
