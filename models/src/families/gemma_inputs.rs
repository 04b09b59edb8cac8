//! Inputs of each layer in Gemma 3n and 4: every layer has an embedding of its own, of p elements a token.
//!
//! ```text
//! e = sqrt(p) * layer_embedding[tokens];  m = rms_norm(n^-0.5 W x)     both (tokens, layers, p)
//! input of layer l = (m + e)[l] / sqrt(2)
//! layer l:  rms_norm(W_up (gelu(W_gate x) * input))
//! ```

use super::gemma_attention::inverse_root;
use crate::engine::Runtime;
use crate::error::Result;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::ops::{self, NormKind, NormOptions};
use kvern::{Activation, MatRef};
use std::f64::consts::FRAC_1_SQRT_2;
use std::ops::Range;

/// The inputs of all layers.
pub(super) struct LayerInputs {
    embedding: Linear,  // (vocabulary of these inputs, layers * p)
    projection: Linear, // (layers * p, n)
    norm: Vec<f32>,     // (p)
    layers: usize,
    eps: f32,
}

impl LayerInputs {
    /// Loads the tensors that begin with `per_layer` or end with it; `width` is p.
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn load(
        model: &Loader<'_>,
        (vocabulary, n): (usize, usize),
        (layers, width): (usize, usize),
        eps: f32,
    ) -> Result<LayerInputs> {
        let all = layers.saturating_mul(width);
        Ok(LayerInputs {
            embedding: model.linear("embed_tokens_per_layer", (vocabulary, all), false)?,
            projection: model.linear("per_layer_model_projection", (all, n), false)?,
            norm: model.gain("per_layer_projection_norm", width)?,
            layers,
            eps,
        })
    }

    /// The inputs of all layers, side by side: (tokens, layers * p). `x` are the scaled embeddings. A token
    /// beyond the vocabulary of these inputs has those of token 0.
    ///
    /// **Errors**: those of the calls.
    pub fn of(&self, rt: &mut Runtime, tokens: &[u32], x: MatRef<'_>) -> Result<Rows> {
        let known = |&id: &u32| if (id as usize) < self.embedding.outputs() { id } else { 0 };
        let ids: Vec<u32> = tokens.iter().map(known).collect();
        let e = self.embedding.rows(rt, &ids)?;
        let mut m = self.projection.apply(rt, x)?;
        ops::scale(&rt.ctx, m.view_mut()?, inverse_root(x.cols() as f64));
        let mut inputs = Rows::zeros(m.rows(), m.cols());
        let options = NormOptions::new(NormKind::Rms, self.eps).gain(&self.norm).groups(self.layers);
        ops::norm(&rt.ctx, &options, m.view()?, inputs.view_mut()?)?;
        ops::add_scaled(&rt.ctx, inputs.view_mut()?, (self.norm.len() as f32).sqrt(), e.view()?)?;
        ops::scale(&rt.ctx, inputs.view_mut()?, FRAC_1_SQRT_2 as f32);
        Ok(inputs)
    }

    /// The columns of a layer.
    pub fn columns(&self, layer: usize) -> Range<usize> {
        layer * self.norm.len()..(layer + 1) * self.norm.len()
    }
}

/// What a layer does with its input.
pub(super) struct LayerInput {
    gate: Linear,   // (p, n)
    up: Linear,     // (n, p)
    norm: Vec<f32>, // (n)
    activation: Activation,
    eps: f32,
}

impl LayerInput {
    /// Loads the layer's `per_layer` tensors.
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn load(
        at: &Loader<'_>,
        n: usize,
        width: usize,
        activation: Activation,
        eps: f32,
    ) -> Result<LayerInput> {
        Ok(LayerInput {
            gate: at.linear("per_layer_input_gate", (width, n), false)?,
            up: at.linear("per_layer_projection", (n, width), false)?,
            norm: at.gain("post_per_layer_input_norm", n)?,
            activation,
            eps,
        })
    }

    /// What is added to the stream `x`.
    ///
    /// **Errors**: those of the calls.
    pub fn apply(&self, rt: &mut Runtime, x: MatRef<'_>, input: MatRef<'_>) -> Result<Rows> {
        let mut h = self.gate.activate(rt, x, self.activation)?;
        ops::mul(&rt.ctx, h.view_mut()?, input)?;
        let y = self.up.apply(rt, h.view()?)?;
        rt.rms_norm(y.view()?, &self.norm, self.eps)
    }
}
