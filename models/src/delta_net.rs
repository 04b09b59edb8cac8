//! The gated delta rule with what stands around it (Yang, Kautz & Hatamizadeh 2024; Kimi Team 2025):
//!
//! ```text
//! q, k, v = silu(conv(q, k, v));  q, k = q / |q|, k / |k| by head
//! g = -exp(A_log) * softplus(a + dt_bias);  beta = sigmoid(b)
//! S = S * exp(g);  S = S + beta * k (v - S^T k)^T;  y = key_dim^-0.5 * S^T q
//! result = rms_norm(y) by head * act(z)
//! ```
//!
//! A decay belongs to a head, or, in Kimi Linear, to each key element of a head.

use crate::engine::Runtime;
use crate::error::Result;
use crate::recurrence::ShortConv;
use crate::rows::Rows;
use kvern::ops::{self, NormKind, NormOptions, TimeStepOptions};
use kvern::recurrent::{self, DeltaTokens, RecurrentState, StateOptions};
use kvern::{Activation, Context};

/// Epsilon of the lengths of queries and keys, whatever that of other norms.
const LENGTH_EPS: f32 = 1e-6;

/// The sizes of a delta net.
#[derive(Debug, Clone, Copy)]
pub struct DeltaShape {
    /// Heads of queries and keys; they divide those of values.
    pub key_heads: usize,
    /// Heads of values.
    pub heads: usize,
    /// Elements of a query and of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Taps of the convolution.
    pub taps: usize,
}

impl DeltaShape {
    /// Elements of all queries, or of all keys. A product beyond the address space is no tensor's shape, and
    /// refused as such.
    pub fn keys(&self) -> usize {
        self.key_heads.saturating_mul(self.key_dim)
    }

    /// Elements of all values.
    pub fn values(&self) -> usize {
        self.heads.saturating_mul(self.value_dim)
    }

    /// Elements of queries, keys and values side by side: channels of the convolution.
    pub fn channels(&self) -> usize {
        self.keys().saturating_mul(2).saturating_add(self.values())
    }
}

/// The parameters of a delta net but its products.
#[derive(Debug, Clone)]
pub struct DeltaParameters {
    /// Over q, k and v.
    pub conv: ShortConv,
    /// dt_bias: (heads), or (heads * key_dim).
    pub step_bias: Vec<f32>,
    /// `-exp(A_log)`, as long.
    pub rates: Vec<f32>,
    /// Gain of the norm of each head of the results: (value_dim).
    pub gain: Vec<f32>,
    /// Epsilon of that norm.
    pub eps: f32,
    /// The function of the gate z.
    pub gate: Activation,
}

/// What products of the stream's rows bring.
#[derive(Debug, Clone)]
pub struct DeltaInputs {
    /// q, k and v side by side: (tokens, channels).
    pub qkv: Rows,
    /// Before the softplus: (tokens, heads), or (tokens, heads * key_dim).
    pub a: Rows,
    /// Before the sigmoid: (tokens, heads).
    pub b: Rows,
    /// The gate: (tokens, heads * value_dim).
    pub z: Rows,
}

/// A delta net with the state of one sequence.
#[derive(Debug, Clone)]
pub struct DeltaNet {
    shape: DeltaShape,
    parameters: DeltaParameters,
    state: RecurrentState,
}

impl DeltaNet {
    /// A delta net of an empty sequence.
    ///
    /// **Errors**: as [`RecurrentState::new_on`].
    pub fn new(ctx: &Context, shape: DeltaShape, parameters: DeltaParameters) -> Result<DeltaNet> {
        let options = StateOptions::new(shape.heads, shape.key_dim, shape.value_dim);
        let options = options.convolution(shape.channels(), shape.taps);
        Ok(DeltaNet { shape, parameters, state: RecurrentState::new_on(ctx, options)? })
    }

    /// The results of the tokens, before the product of the output: (tokens, heads * value_dim).
    ///
    /// **Errors**: as [`ops::causal_conv`], [`ops::norm`], [`ops::time_step`] and [`recurrent::delta_rule`].
    pub fn apply(&mut self, rt: &Runtime, inputs: DeltaInputs) -> Result<Rows> {
        let (shape, p, tokens) = (&self.shape, &self.parameters, inputs.qkv.rows());
        let qkv = p.conv.apply(rt, inputs.qkv.view()?, self.state.inputs(0)?)?;
        let (keys, channels) = (shape.keys(), shape.channels());

        // Heads of queries and of keys are normed in one call.
        let mut qk = Rows::zeros(tokens, 2 * keys);
        let length = NormOptions::new(NormKind::L2, LENGTH_EPS).groups(2 * shape.key_heads);
        ops::norm(&rt.ctx, &length, qkv.columns(0..2 * keys)?, qk.view_mut()?)?;

        let mut decay = Rows::zeros(tokens, inputs.a.cols());
        let step = TimeStepOptions::default().bias(&p.step_bias).factor(&p.rates);
        ops::time_step(&rt.ctx, &step, inputs.a.view()?, decay.view_mut()?)?;
        let mut beta = inputs.b;
        ops::activate(&rt.ctx, Activation::Sigmoid, beta.view_mut()?);

        let delta = DeltaTokens {
            q: qk.columns(0..keys)?,
            k: qk.columns(keys..2 * keys)?,
            v: qkv.columns(2 * keys..channels)?,
            decay: decay.view()?,
            beta: beta.view()?,
            scale: (shape.key_dim as f32).sqrt().recip(),
        };
        let mut y = Rows::zeros(tokens, shape.values());
        recurrent::delta_rule(&rt.ctx, &mut self.state, &[0], &delta, y.view_mut()?)?;

        let norm = NormOptions::new(NormKind::Rms, p.eps).gain(&p.gain).groups(shape.heads);
        let norm = norm.gate(p.gate, inputs.z.view()?);
        let mut normed = Rows::zeros(tokens, shape.values());
        ops::norm(&rt.ctx, &norm, y.view()?, normed.view_mut()?)?;
        Ok(normed)
    }

    /// Empties the state.
    pub fn reset(&mut self) {
        self.state.clear();
    }
}
