//! What happens to a product before it is stored: the words of the API that the kernels share.

use crate::error::{Result, equal};

/// A function of one element, for [`activate`](crate::ops::activate),
/// [`activate_mul`](crate::ops::activate_mul), and products, whose elements it changes before they are
/// stored.
///
/// - **Numerics**: the same bits in a product and in a pass of its own. Relative error at most 5e-7 where the
///   result and the exponentials on the way to it are normal numbers; results below `2^-126` in size may be
///   zeros. Exceptions: [`Gelu`](Activation::Gelu), 4e-6 of the result plus 2e-7;
///   [`GeluErf`](Activation::GeluErf), 9e-7; `Relu` and `ReluSquared` are exact and rounded once.
/// - **NaN and infinity**: NaN stays NaN. At infinities the result is the limit, but for `-inf` in `Gelu` and
///   `Silu`, which is NaN (`inf / inf`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum Activation {
    /// `x`
    #[default]
    Identity = 0,
    /// `max(x, 0)`
    Relu = 1,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`: GELU in the tanh form (Gemma, GPT-2, SigLIP)
    Gelu = 2,
    /// `x / (1 + e^-x)`
    Silu = 3,
    /// `0.5 x (1 + erf(x / sqrt(2)))`: GELU in its exact form (BERT, Whisper)
    GeluErf = 4,
    /// `x / (1 + e^(-1.702 x))`: quick GELU (CLIP)
    GeluQuick = 5,
    /// `max(x, 0)^2` (Nemotron)
    ReluSquared = 6,
    /// `1 / (1 + e^-x)`
    Sigmoid = 7,
    /// `tanh(x)`
    Tanh = 8,
    /// `ln(1 + e^x)` (the time step of Mamba, the decay of gated delta rules)
    Softplus = 9,
    /// `e^x`
    Exp = 10,
}

impl Activation {
    /// Every activation, by its number.
    pub const ALL: [Activation; 11] = [
        Activation::Identity,
        Activation::Relu,
        Activation::Gelu,
        Activation::Silu,
        Activation::GeluErf,
        Activation::GeluQuick,
        Activation::ReluSquared,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Softplus,
        Activation::Exp,
    ];
}

/// How closely a product follows the definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum Precision {
    /// One chain of f32 FMA for each element: the same bits on every machine.
    #[default]
    Exact = 0,
    /// With bf16 weights, on CPUs with bf16 dot instructions: activations are rounded to bf16
    /// (relative error 2^-8 each) and summed in f32, at twice the rate. The error is at most
    /// `(2^-8 + k * 2^-22) * sum |a||b|` while every activation lies below 3.3961775e38 (`2^128 - 2^119`,
    /// from where it rounds to infinity); activations, weights and sums below `2^-126` may count as 0. The
    /// bits depend on the instruction set, but not on threads or batch. Everywhere else the same as `Exact`.
    Fast = 1,
}

/// What happens to a finished product: `C = beta * C + act(alpha * AB + bias)`.
///
/// **Numerics**: in this order, each step one IEEE operation: `t = alpha * ab`, `t = t + bias[j]`,
/// `t = act(t)`, `c = fma(beta, c, t)`. With `beta = 0`, C is not read (NaN in it does not spread). With
/// `alpha = 0`, B is not read, and A is read only for the second product of a gated one. A residual addition
/// is `beta = 1`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Epilogue<'a> {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what C holds already.
    pub beta: f32,
    /// Added to each row, `(n)`.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Activation,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue { alpha: 1.0, beta: 0.0, bias: None, activation: Activation::Identity }
    }
}

impl<'a> Epilogue<'a> {
    /// Sets `alpha` and `beta`.
    pub fn scaled(mut self, alpha: f32, beta: f32) -> Self {
        (self.alpha, self.beta) = (alpha, beta);
        self
    }

    /// Sets the bias, `(n)`.
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Sets the activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Whether `C = AB` is all there is to do.
    pub(crate) fn is_plain(&self) -> bool {
        self.alpha == 1.0
            && self.beta == 0.0
            && self.bias.is_none()
            && self.activation == Activation::Identity
    }

    /// Checks the bias against the columns of C.
    pub(crate) fn validate(&self, n: usize) -> Result<()> {
        match self.bias {
            Some(bias) => equal("bias.len", bias.len(), "must equal c.cols =", n),
            None => Ok(()),
        }
    }
}
