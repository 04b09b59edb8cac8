//! The layer of pre-norm encoders, and the feed-forward part without a gate (Vaswani et al. 2017, 3.3; norms
//! before the parts: Xiong et al. 2020).

use crate::engine::Runtime;
use crate::error::Result;
use crate::feed_forward::activation;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::multi_head::MultiHead;
use crate::rows::Rows;
use kvern::{Activation, MatRef};
use serde::Deserialize;

/// `down(act(up(x)))`, both maps with biases.
#[derive(Debug, Clone)]
pub struct FeedForward {
    /// (hidden, n)
    pub up: Linear,
    /// (n, hidden)
    pub down: Linear,
    /// The function between.
    pub activation: Activation,
}

impl FeedForward {
    /// Loads `fc1` and `fc2`, for rows of `n` and `hidden` elements between.
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn load(at: &Loader<'_>, n: usize, hidden: usize, activation: Activation) -> Result<FeedForward> {
        let (up, down) = (at.linear("fc1", (hidden, n), true)?, at.linear("fc2", (n, hidden), true)?);
        Ok(FeedForward { up, down, activation })
    }

    /// `stream = stream + layer(x)`.
    ///
    /// **Shapes**: `x`, `stream`: (tokens, n). **Errors**: those of the products.
    pub fn add_to(&self, rt: &mut Runtime, x: MatRef<'_>, stream: &mut Rows) -> Result<()> {
        let hidden = self.up.activate(rt, x, self.activation)?;
        self.down.add_to(rt, hidden.view()?, 1.0, stream)
    }
}

/// `x = x + attention(norm(x));  x = x + feed_forward(norm(x))`.
#[derive(Debug, Clone)]
pub struct EncoderLayer {
    /// Before attention.
    pub attention_norm: LayerNorm,
    /// Attention of each sequence to itself.
    pub attention: MultiHead,
    /// Before the feed-forward part.
    pub feed_forward_norm: LayerNorm,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
}

impl EncoderLayer {
    /// The layer, in place, for sequences of which number s is the rows `starts[s]..starts[s + 1]`.
    ///
    /// **Shapes**: `x`: (tokens, n). **Errors**: those of the calls.
    pub fn apply(&self, rt: &mut Runtime, starts: &[usize], x: &mut Rows) -> Result<()> {
        let h = self.attention_norm.apply(rt, x.view()?)?;
        self.attention.add_to(rt, h.view()?, starts, x)?;
        let h = self.feed_forward_norm.apply(rt, x.view()?)?;
        self.feed_forward.add_to(rt, h.view()?, x)
    }
}

/// The stack of CLIP's and SigLIP's encoders, in fields of their configurations.
#[derive(Debug, Deserialize)]
pub struct StackConfig {
    /// Elements of a row.
    pub hidden_size: usize,
    /// Elements between the maps of the feed-forward part.
    pub intermediate_size: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// What norms add to the variance.
    pub layer_norm_eps: f32,
    /// The function of the feed-forward part.
    pub hidden_act: String,
}

impl StackConfig {
    /// Loads `encoder.layers.0` and so on.
    ///
    /// **Errors**: as [`Loader::linear`]; `Config` for heads that do not divide a row and for functions that
    /// are not known.
    pub fn layers(&self, at: &Loader<'_>, causal: bool) -> Result<Vec<EncoderLayer>> {
        let mut layers = Vec::new();
        for i in 0..self.num_hidden_layers {
            let at = at.at(&format!("encoder.layers.{i}"));
            let (n, heads) = (self.hidden_size, self.num_attention_heads);
            layers.push(EncoderLayer {
                attention_norm: self.norm(&at, "layer_norm1")?,
                attention: MultiHead::load(&at.at("self_attn"), n, heads, causal, true)?,
                feed_forward_norm: self.norm(&at, "layer_norm2")?,
                feed_forward: self.feed_forward(&at.at("mlp"))?,
            });
        }
        Ok(layers)
    }

    /// A norm of the stack.
    ///
    /// **Errors**: as [`LayerNorm::load`].
    pub fn norm(&self, at: &Loader<'_>, name: &str) -> Result<LayerNorm> {
        LayerNorm::load(at, name, self.hidden_size, self.layer_norm_eps)
    }

    /// A feed-forward part of the stack.
    ///
    /// **Errors**: as [`FeedForward::load`]; `Config` for a function that is not known.
    pub fn feed_forward(&self, at: &Loader<'_>) -> Result<FeedForward> {
        let act = activation(&self.hidden_act)?;
        FeedForward::load(at, self.hidden_size, self.intermediate_size, act)
    }
}
