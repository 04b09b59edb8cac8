//! Qwen3.5 (Qwen Team 2026), its text: most layers are gated delta nets, the others attention whose result
//! has a gate. Gains are stored as their difference from 1, but for those of delta nets.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rms_norm(x)
//!              delta net:    x = x + W_o (delta_net(W_qkv h, W_a h, W_b h) * silu(W_z h))
//!              or attention: q, gate = W_q h;  q, k normed by head, a part of each head turned
//!                            x = x + W_o (attention(q, K, V) * sigmoid(gate))
//!              h = rms_norm(x);  x = x + W_down (silu(W_gate h) * W_up h)
//! logits = W_head rms_norm(x)
//! ```

use crate::delta_net::{DeltaInputs, DeltaNet, DeltaParameters, DeltaShape};
use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::recurrence::{ShortConv, decay_rates};
use crate::rope::{RopeConfig, SharedRope};
use crate::rows::Rows;
use crate::self_attention::{AttentionShape, SelfAttention};
use crate::stack::{Layer, Stack, StackOptions};
use kvern::ops;
use kvern::{Activation, MatRef};
use serde::Deserialize;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub linear_num_key_heads: usize,
    pub linear_num_value_heads: usize,
    pub linear_key_head_dim: usize,
    pub linear_value_head_dim: usize,
    pub linear_conv_kernel_dim: usize,
    pub rms_norm_eps: f32,
    pub hidden_act: String,
    #[serde(default)]
    pub attention_bias: bool,
    /// `linear_attention` or `full_attention` for each layer.
    pub layer_types: Option<Vec<String>>,
    /// The last layer of each group of so many attends, in configurations without `layer_types`.
    pub full_attention_interval: Option<usize>,
    pub tie_word_embeddings: Option<bool>,
}

impl Config {
    /// Whether layer i attends; otherwise it is a delta net.
    fn attends(&self, i: usize) -> Result<bool> {
        if let (None, Some(interval)) = (&self.layer_types, self.full_attention_interval) {
            return Ok((i + 1).is_multiple_of(interval));
        }
        let kind = self.layer_types.as_ref().and_then(|types| types.get(i)).map_or("absent", String::as_str);
        match kind {
            "full_attention" => Ok(true),
            "linear_attention" => Ok(false),
            _ => Err(Error::field(&format!("layer_types[{i}]"), kind, "linear_attention or full_attention")),
        }
    }

    /// The sizes of the delta nets.
    pub fn delta(&self) -> DeltaShape {
        DeltaShape {
            key_heads: self.linear_num_key_heads,
            heads: self.linear_num_value_heads,
            key_dim: self.linear_key_head_dim,
            value_dim: self.linear_value_head_dim,
            taps: self.linear_conv_kernel_dim,
        }
    }

    fn attention(&self) -> AttentionShape {
        AttentionShape {
            n: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }
}

/// The products before a delta net.
pub(super) struct DeltaProducts {
    pub qkv: Linear, // (n, channels)
    pub z: Linear,   // (n, values)
    pub b: Linear,   // (n, heads)
    pub a: Linear,   // (n, heads)
}

impl DeltaProducts {
    fn load(at: &Loader<'_>, config: &Config) -> Result<DeltaProducts> {
        let (shape, n) = (config.delta(), config.hidden_size);
        Ok(DeltaProducts {
            qkv: at.linear("in_proj_qkv", (shape.channels(), n), false)?,
            z: at.linear("in_proj_z", (shape.values(), n), false)?,
            b: at.linear("in_proj_b", (shape.heads, n), false)?,
            a: at.linear("in_proj_a", (shape.heads, n), false)?,
        })
    }
}

/// The feed-forward part of a layer.
pub(super) trait FeedForwardPart {
    /// `x = x + layer(h)`.
    fn add_to(&self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()>;
}

impl FeedForwardPart for GatedFeedForward {
    fn add_to(&self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()> {
        GatedFeedForward::add_to(self, rt, h, 1.0, x)
    }
}

/// Loads the feed-forward part of layer i from `mlp`.
pub(super) type LoadFeedForward<'a> = &'a dyn Fn(&Loader<'_>, usize) -> Result<Box<dyn FeedForwardPart>>;

/// In what a decoder may differ from Qwen3.5.
pub(super) struct Design<'a> {
    /// Loads the products of a delta net.
    pub products: &'a dyn Fn(&Loader<'_>) -> Result<DeltaProducts>,
    /// Loads the feed-forward parts.
    pub feed_forward: LoadFeedForward<'a>,
}

/// Loads `model_type` qwen3_5_text.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let design = Design {
        products: &|at| DeltaProducts::load(at, &config),
        feed_forward: &|at, _| Ok(Box::new(dense(at, &config)?)),
    };
    load_design(root, &config, &design)
}

/// The feed-forward layer without experts.
pub(super) fn dense(at: &Loader<'_>, config: &Config) -> Result<GatedFeedForward> {
    let act = activation(&config.hidden_act)?;
    GatedFeedForward::load(at, config.hidden_size, config.intermediate_size, false, act)
}

/// Loads a decoder of Qwen3.5's design.
pub(super) fn load_design(root: &Loader<'_>, c: &Config, design: &Design<'_>) -> Result<Box<dyn Decoder>> {
    let mut options = StackOptions::new(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.rms_norm_eps);
    options.gain_offset = 1.0;
    options.tied = c.tie_word_embeddings;
    let rope = RopeConfig::read(root.checkpoint().config(), None)?;
    let rope = SharedRope::new(rope, c.head_dim, root.options().tokens);
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, c, design, &rope, i))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    mixer: Mixer,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: Box<dyn FeedForwardPart>,
    eps: f32,
}

/// What moves information between tokens.
enum Mixer {
    Delta(Box<GatedDelta>),
    Attention(Box<GatedAttention>),
}

struct GatedDelta {
    products: DeltaProducts,
    net: DeltaNet,
    output: Linear, // (values, n)
}

/// Attention whose result is multiplied by `sigmoid(gate)`.
struct GatedAttention {
    attention: SelfAttention,
    gate: Linear, // (n, heads * head_dim)
}

impl Block {
    fn load(
        at: &Loader<'_>,
        config: &Config,
        design: &Design<'_>,
        rope: &SharedRope,
        i: usize,
    ) -> Result<Block> {
        let n = config.hidden_size;
        let mixer = match config.attends(i)? {
            true => Mixer::Attention(Box::new(GatedAttention::load(&at.at("self_attn"), config, rope)?)),
            false => Mixer::Delta(Box::new(GatedDelta::load(&at.at("linear_attn"), config, design)?)),
        };
        Ok(Block {
            norm: gain(at, "input_layernorm", n)?,
            mixer,
            feed_forward_norm: gain(at, "post_attention_layernorm", n)?,
            feed_forward: (design.feed_forward)(&at.at("mlp"), i)?,
            eps: config.rms_norm_eps,
        })
    }
}

/// A gain that is stored as its difference from 1.
fn gain(at: &Loader<'_>, name: &str, n: usize) -> Result<Vec<f32>> {
    Ok(at.gain(name, n)?.iter().map(|gain| 1.0 + gain).collect())
}

impl GatedDelta {
    fn load(at: &Loader<'_>, config: &Config, design: &Design<'_>) -> Result<GatedDelta> {
        let shape = config.delta();
        let conv = (shape.channels(), shape.taps);
        let parameters = DeltaParameters {
            conv: ShortConv::load(at, "conv1d", conv, false, Activation::Silu)?,
            step_bias: at.tensor("dt_bias", &[shape.heads])?,
            rates: decay_rates(&at.tensor("A_log", &[shape.heads])?),
            gain: at.gain("norm", shape.value_dim)?,
            eps: config.rms_norm_eps,
            gate: Activation::Silu,
        };
        Ok(GatedDelta {
            products: (design.products)(at)?,
            net: DeltaNet::new(at.ctx(), shape, parameters)?,
            output: at.linear("out_proj", (config.hidden_size, shape.values()), false)?,
        })
    }

    fn add_to(&mut self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()> {
        let DeltaProducts { qkv, z, b, a } = &self.products;
        let [qkv, z, b, a] = Linear::apply_each(rt, h, [qkv, z, b, a])?;
        let y = self.net.apply(rt, DeltaInputs { qkv, a, b, z })?;
        self.output.add_to(rt, y.view()?, 1.0, x)
    }
}

impl GatedAttention {
    fn load(at: &Loader<'_>, config: &Config, rope: &SharedRope) -> Result<GatedAttention> {
        let (shape, bias) = (config.attention(), config.attention_bias);
        // Each head of the product has rows of its query, then as many of its gate.
        let both = at.at("q_proj");
        let rows = both.tensor("weight", &[shape.q().saturating_mul(2), shape.n])?;
        let biases = bias.then(|| both.tensor("bias", &[shape.q().saturating_mul(2)])).transpose()?;
        let part = |which| {
            let bias = biases.as_ref().map(|all| halves_of_heads(all, shape.head_dim, which));
            let rows = halves_of_heads(&rows, shape.head_dim.saturating_mul(shape.n), which);
            at.pack(&rows, (shape.q(), shape.n), bias)
        };
        let mut attention = SelfAttention::load_with(part(0)?, at, shape, "o_proj", bias)?;
        let gains = [gain(at, "q_norm", shape.head_dim)?, gain(at, "k_norm", shape.head_dim)?];
        attention.head_norms = Some((gains, config.rms_norm_eps));
        attention.rope = Some(rope.table()?);
        Ok(GatedAttention { attention, gate: part(1)? })
    }

    fn add_to(&mut self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()> {
        let attended = self.attention.attend(rt, h)?;
        let mut gated = self.gate.apply(rt, h)?;
        ops::activate_mul(&rt.ctx, Activation::Sigmoid, gated.view_mut()?, attended.view()?)?;
        self.attention.output.add_to(rt, gated.view()?, 1.0, x)
    }
}

/// The first (0) or second (1) `len` elements of each `2 * len`.
fn halves_of_heads(all: &[f32], len: usize, which: usize) -> Vec<f32> {
    all.chunks_exact(len.max(1)).skip(which).step_by(2).flatten().copied().collect()
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        match &mut self.mixer {
            Mixer::Delta(delta) => delta.add_to(rt, h.view()?, x)?,
            Mixer::Attention(attention) => attention.add_to(rt, h.view()?, x)?,
        }
        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, self.eps)?;
        self.feed_forward.add_to(rt, h.view()?, x)
    }

    fn reset(&mut self) {
        match &mut self.mixer {
            Mixer::Delta(delta) => delta.net.reset(),
            Mixer::Attention(attention) => attention.attention.cache.clear(),
        }
    }
}
