//! Llama (Touvron et al. 2023), and the decoders that differ from it in a number or in one part.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rms_norm(x);  q, k, v = W h;  q, k turned by position
//!              x = x + W_o attention(q, K, V)
//!              h = rms_norm(x);  x = x + W_down (silu(W_gate h) * W_up h)
//! logits = W_head rms_norm(x)
//! ```

use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::experts::FeedForward;
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rope::{RopeConfig, SharedRope};
use crate::rows::Rows;
use crate::self_attention::{AttentionShape, SelfAttention};
use crate::stack::{Layer, Stack, StackOptions};
use serde::Deserialize;
use std::ops::Range;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub rms_norm_eps: f32,
    #[serde(default = "silu")]
    pub hidden_act: String,
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
    /// Where the field is absent, a checkpoint without `lm_head.weight` is tied.
    pub tie_word_embeddings: Option<bool>,
}

fn silu() -> String {
    "silu".into()
}

impl Config {
    /// Elements of a head: hidden_size / num_attention_heads where the field is absent.
    ///
    /// **Errors**: `Config` without heads.
    pub fn head_dim(&self) -> Result<usize> {
        let head_dim = self.head_dim.or_else(|| self.hidden_size.checked_div(self.num_attention_heads));
        head_dim.ok_or_else(|| Error::field("num_attention_heads", 0, "at least 1"))
    }

    /// The sizes of attention.
    ///
    /// **Errors**: as [`Config::head_dim`].
    pub fn attention(&self) -> Result<AttentionShape> {
        let (n, heads) = (self.hidden_size, self.num_attention_heads);
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        Ok(AttentionShape { n, heads, kv_heads, head_dim: self.head_dim()? })
    }

    /// What the stack is loaded with.
    pub fn stack(&self) -> StackOptions<'static> {
        StackOptions {
            tied: self.tie_word_embeddings,
            ..StackOptions::new(self.vocab_size, self.hidden_size, self.num_hidden_layers, self.rms_norm_eps)
        }
    }
}

/// Loads the feed-forward part of a layer, from the layer's place and its number.
pub(super) type LoadFeedForward = dyn Fn(&Loader<'_>, usize) -> Result<FeedForward>;

/// In what a decoder may differ from Llama.
pub(super) struct Design {
    /// Whether queries, keys and values are rows of one tensor, `qkv_proj`, without biases.
    pub fused_qkv: bool,
    /// Biases of the products for queries, keys and values.
    pub qkv_bias: bool,
    /// A bias of the product after attention.
    pub output_bias: bool,
    /// An RMS norm of each head of queries and keys, before the rotation.
    pub head_norms: bool,
    /// A learnt score of each head, `sinks`, that takes part in its softmax without a value.
    pub sinks: bool,
    /// The window of layer i, in tokens.
    pub window: Box<dyn Fn(usize) -> Option<usize>>,
    /// Whether layer i turns queries and keys.
    pub rotates: Box<dyn Fn(usize) -> bool>,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// Factor of the scores; `None` for `head_dim^-0.5`.
    pub score_scale: Option<f32>,
    /// Factor of what a part adds to the stream.
    pub residual_scale: f32,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// The feed-forward part of each layer.
    pub feed_forward: Box<LoadFeedForward>,
}

impl Design {
    /// Llama itself.
    pub fn llama(config: &Config) -> Design {
        let (n, hidden, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        let act = config.hidden_act.clone();
        let feed_forward = move |at: &Loader<'_>, _| {
            let layer = GatedFeedForward::load(&at.at("mlp"), n, hidden, bias, activation(&act)?)?;
            Ok(FeedForward::Gated(layer))
        };
        Design {
            fused_qkv: false,
            qkv_bias: config.attention_bias,
            output_bias: config.attention_bias,
            head_norms: false,
            sinks: false,
            window: Box::new(|_| None),
            rotates: Box::new(|_| true),
            embedding_scale: 1.0,
            score_scale: None,
            residual_scale: 1.0,
            logit_scale: 1.0,
            feed_forward: Box::new(feed_forward),
        }
    }
}

/// Loads `model_type` llama.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let design = Design::llama(&config);
    load_design(root, &config, &design)
}

/// Loads a decoder of Llama's design, whose tensors have the names of Llama's.
///
/// **Errors**: as [`load_decoder`](super::load_decoder).
pub(super) fn load_design(root: &Loader<'_>, config: &Config, design: &Design) -> Result<Box<dyn Decoder>> {
    let head_dim = config.head_dim()?;
    let rope = RopeConfig::read(root.checkpoint().config(), None)?;
    let rope = SharedRope::new(rope, head_dim, root.options().tokens);
    let options = StackOptions {
        embedding_scale: design.embedding_scale,
        logit_scale: design.logit_scale,
        ..config.stack()
    };
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, config, design, &rope, i))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    attention: SelfAttention,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: FeedForward,
    eps: f32,
    residual_scale: f32,
}

impl Block {
    fn load(at: &Loader<'_>, config: &Config, design: &Design, rope: &SharedRope, i: usize) -> Result<Block> {
        let n = config.hidden_size;
        Ok(Block {
            norm: at.gain("input_layernorm", n)?,
            attention: attention(&at.at("self_attn"), config, design, rope, i)?,
            feed_forward_norm: at.gain("post_attention_layernorm", n)?,
            feed_forward: (design.feed_forward)(at, i)?,
            eps: config.rms_norm_eps,
            residual_scale: design.residual_scale,
        })
    }
}

fn attention(
    at: &Loader<'_>,
    config: &Config,
    design: &Design,
    rope: &SharedRope,
    i: usize,
) -> Result<SelfAttention> {
    let shape = config.attention()?;
    let n = shape.n;
    let maps = if design.fused_qkv {
        fused_qkv(at, (shape.q(), shape.kv()), n)?
    } else {
        let map = |name, outputs| at.linear(name, (outputs, n), design.qkv_bias);
        [map("q_proj", shape.q())?, map("k_proj", shape.kv())?, map("v_proj", shape.kv())?]
    };
    let output = at.linear("o_proj", (n, shape.q()), design.output_bias)?;
    let mut attention = SelfAttention::of_maps(at, shape, maps, output)?;
    if design.head_norms {
        let norm = |name| at.gain(name, shape.head_dim);
        attention.head_norms = Some(([norm("q_norm")?, norm("k_norm")?], config.rms_norm_eps));
    }
    attention.sinks = design.sinks.then(|| at.tensor("sinks", &[shape.heads])).transpose()?;
    attention.rope = (design.rotates)(i).then(|| rope.table()).transpose()?;
    (attention.options.scale, attention.options.window) = (design.score_scale, (design.window)(i));
    Ok(attention)
}

/// The maps for queries, keys and values out of one tensor.
fn fused_qkv(at: &Loader<'_>, (q, kv): (usize, usize), n: usize) -> Result<[Linear; 3]> {
    let (v, end) = (q.saturating_add(kv), q.saturating_add(kv.saturating_mul(2)));
    let rows = at.at("qkv_proj").tensor("weight", &[end, n])?;
    let map = |part: Range<usize>| at.pack(&rows[part.start * n..part.end * n], (part.len(), n), None);
    Ok([map(0..q)?, map(q..v)?, map(v..end)?])
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let by = self.residual_scale;
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        self.attention.add_to(rt, h.view()?, by, x)?;
        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, self.eps)?;
        self.feed_forward.add_to(rt, h.view()?, by, x)
    }

    fn reset(&mut self) {
        self.attention.cache.clear();
    }
}
