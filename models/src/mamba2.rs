//! Mamba-2 (Dao & Gu 2024) as a part of a layer:
//!
//! ```text
//! z, x, B, C, dt = W_in h;  x, B, C = silu(conv(x, B, C) + b)
//! d = clamp(softplus(dt + dt_bias));  S = S * exp(-exp(A_log) d) + B (d x)^T;  y = S^T C + D x
//! result = W_out rms_norm(y * silu(z))
//! ```

use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::recurrence::{ShortConv, decay_rates};
use crate::rows::Rows;
use kvern::ops::{self, NormKind, NormOptions, TimeStepOptions};
use kvern::recurrent::{self, RecurrentState, ScanTokens, StateOptions};
use kvern::{Activation, MatRef};
use serde_json::Value;

/// The sizes of [`Mamba2`] and what varies between families.
#[derive(Debug, Clone, Copy)]
pub struct MambaOptions {
    /// Elements of a row of the stream.
    pub n: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of the state for each element of a head: of B and of C.
    pub state_dim: usize,
    /// Groups of heads that share B and C; they divide the heads.
    pub groups: usize,
    /// Parts of the gated norm, each with a norm of its own.
    pub norm_groups: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// Whether both products have biases.
    pub bias: bool,
    /// Limits of the steps.
    pub step_limits: (f32, f32),
    /// Epsilon of the gated norm.
    pub eps: f32,
}

impl MambaOptions {
    /// Elements of all heads. A product beyond the address space is no tensor's shape, and refused as such.
    fn inner(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Elements of B, or of C.
    fn shared(&self) -> usize {
        self.groups.saturating_mul(self.state_dim)
    }

    /// Elements of x, B and C: channels of the convolution.
    fn channels(&self) -> usize {
        self.shared().saturating_mul(2).saturating_add(self.inner())
    }
}

/// A Mamba-2 mixer with the state of one sequence.
#[derive(Debug, Clone)]
pub struct Mamba2 {
    options: MambaOptions,
    z: Linear,   // (n, inner)
    xbc: Linear, // (n, channels)
    dt: Linear,  // (n, heads)
    conv: ShortConv,
    step_bias: Vec<f32>, // (heads)
    rates: Vec<f32>,     // (heads), -exp(A_log)
    skip: Vec<f32>,      // (heads), D
    gain: Vec<f32>,      // (inner)
    output: Linear,      // (inner, n)
    state: RecurrentState,
}

impl Mamba2 {
    /// Loads `in_proj`, `conv1d`, `dt_bias`, `A_log`, `D`, `norm` and `out_proj`.
    ///
    /// **Errors**: as [`Loader::tensor`], [`Loader::pack`] and [`RecurrentState::new_on`].
    pub fn load(at: &Loader<'_>, options: MambaOptions) -> Result<Mamba2> {
        let o = &options;
        let (n, inner, channels) = (o.n, o.inner(), o.channels());
        // The three parts of the first product lie behind each other in its rows.
        let outputs = inner.saturating_add(channels).saturating_add(o.heads);
        let input = at.at("in_proj");
        let rows = input.tensor("weight", &[outputs, n])?;
        let biases = o.bias.then(|| input.tensor("bias", &[outputs])).transpose()?;
        let part = |start: usize, len: usize| {
            let bias = biases.as_ref().map(|all| all[start..][..len].to_vec());
            at.pack(&rows[start * n..][..len * n], (len, n), bias)
        };
        let conv = (channels, o.taps);
        let state = StateOptions::new(o.heads, o.state_dim, o.head_dim).convolution(channels, o.taps);
        Ok(Mamba2 {
            z: part(0, inner)?,
            xbc: part(inner, channels)?,
            dt: part(inner + channels, o.heads)?,
            conv: ShortConv::load(at, "conv1d", conv, o.conv_bias, Activation::Silu)?,
            step_bias: at.tensor("dt_bias", &[o.heads])?,
            rates: decay_rates(&at.tensor("A_log", &[o.heads])?),
            skip: at.tensor("D", &[o.heads])?,
            gain: at.gain("norm", inner)?,
            output: at.linear("out_proj", (n, inner), o.bias)?,
            state: RecurrentState::new_on(at.ctx(), state)?,
            options,
        })
    }

    /// `stream = stream + by * mixer(h)`.
    ///
    /// **Errors**: those of the products, as [`ops::causal_conv`], [`ops::time_step`],
    /// [`recurrent::selective_scan`] and [`ops::norm`].
    pub fn add_to(&mut self, rt: &mut Runtime, h: MatRef<'_>, by: f32, stream: &mut Rows) -> Result<()> {
        let (o, tokens) = (&self.options, h.rows());
        let (inner, shared) = (o.inner(), o.shared());
        let [z, xbc, dt] = Linear::apply_each(rt, h, [&self.z, &self.xbc, &self.dt])?;
        let xbc = self.conv.apply(rt, xbc.view()?, self.state.inputs(0)?)?;

        let mut steps = Rows::zeros(tokens, o.heads);
        let (least, most) = o.step_limits;
        let step = TimeStepOptions::default().bias(&self.step_bias).limits(least, most);
        ops::time_step(&rt.ctx, &step, dt.view()?, steps.view_mut()?)?;

        let scan = ScanTokens {
            x: xbc.columns(0..inner)?,
            dt: steps.view()?,
            b: xbc.columns(inner..inner + shared)?,
            c: xbc.columns(inner + shared..inner + 2 * shared)?,
            a: &self.rates,
            d: &self.skip,
        };
        let mut y = Rows::zeros(tokens, inner);
        recurrent::selective_scan(&rt.ctx, &mut self.state, &[0], &scan, y.view_mut()?)?;

        let norm = NormOptions::new(NormKind::Rms, o.eps).gain(&self.gain).groups(o.norm_groups);
        let norm = norm.gate_first(Activation::Silu, z.view()?);
        let mut normed = Rows::zeros(tokens, inner);
        ops::norm(&rt.ctx, &norm, y.view()?, normed.view_mut()?)?;
        self.output.add_to(rt, normed.view()?, by, stream)
    }

    /// Empties the state.
    pub fn reset(&mut self) {
        self.state.clear();
    }
}

/// The limits of steps from `time_step_limit` of a configuration, 0 and infinity where it is absent. JSON has
/// no infinity: it is written as `"Infinity"` or `{"__float__": "Infinity"}`.
///
/// **Errors**: `Config` for anything but two numbers.
pub fn step_limits(field: Option<&Value>) -> Result<(f32, f32)> {
    let number = |value: &Value| match value.get("__float__").unwrap_or(value).as_str() {
        Some("Infinity") => Some(f32::INFINITY),
        _ => value.as_f64().map(|x| x as f32),
    };
    let Some(field) = field.filter(|field| !field.is_null()) else { return Ok((0.0, f32::INFINITY)) };
    let limits = match field.as_array().map(Vec::as_slice) {
        Some([least, most]) => number(least).zip(number(most)),
        _ => None,
    };
    limits.ok_or_else(|| Error::field("time_step_limit", field, "two numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_numbers_or_infinity() {
        assert_eq!(step_limits(None).unwrap(), (0.0, f32::INFINITY));
        assert_eq!(
            step_limits(Some(&json!([0.25, {"__float__": "Infinity"}]))).unwrap(),
            (0.25, f32::INFINITY)
        );
        assert_eq!(step_limits(Some(&json!([0.0, "Infinity"]))).unwrap(), (0.0, f32::INFINITY));
        assert_eq!(step_limits(Some(&json!([0.5, 2.0]))).unwrap(), (0.5, 2.0));
        for bad in [json!([1.0]), json!(1.0), json!([0.0, "many"])] {
            assert!(step_limits(Some(&bad)).unwrap_err().to_string().contains("time_step_limit"));
        }
    }
}
