//! LFM2 (Liquid AI 2025): most layers have a short convolution between two gates in place of attention.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rms_norm(x)
//!              short convolution:  B, C, u = W_in h;  x = x + W_out (C * conv(B * u))
//!              or attention:       q, k normed by head and turned;  x = x + W_o attention(q, K, V)
//!              h = rms_norm(x);  x = x + W_2 (silu(W_1 h) * W_3 h)
//! logits = embedding rms_norm(x)
//! ```

use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::feed_forward::GatedFeedForward;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::recurrence::ShortConv;
use crate::rope::{RopeConfig, SharedRope};
use crate::rows::Rows;
use crate::self_attention::{AttentionShape, SelfAttention};
use crate::stack::{Layer, Stack, StackOptions};
use kvern::ops;
use kvern::{Activation, MatRef};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    norm_eps: f32,
    /// Taps of the convolutions.
    #[serde(rename = "conv_L_cache")]
    taps: usize,
    #[serde(default)]
    conv_bias: bool,
    /// `conv` or `full_attention` for each layer.
    layer_types: Option<Vec<String>>,
    /// The layers with attention, in older configurations.
    full_attn_idxs: Option<Vec<usize>>,
    tie_word_embeddings: Option<bool>,
}

impl Config {
    /// Whether layer i attends; otherwise it convolves.
    fn attends(&self, i: usize) -> Result<bool> {
        if let (None, Some(layers)) = (&self.layer_types, &self.full_attn_idxs) {
            return Ok(layers.contains(&i));
        }
        let kind = self.layer_types.as_ref().and_then(|types| types.get(i)).map_or("absent", String::as_str);
        match kind {
            "full_attention" => Ok(true),
            "conv" => Ok(false),
            _ => Err(Error::field(&format!("layer_types[{i}]"), kind, "conv or full_attention")),
        }
    }

    fn attention(&self) -> Result<AttentionShape> {
        let head_dim = self.head_dim.or_else(|| self.hidden_size.checked_div(self.num_attention_heads));
        Ok(AttentionShape {
            n: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: head_dim.ok_or_else(|| Error::field("num_attention_heads", 0, "at least 1"))?,
        })
    }
}

/// Loads `model_type` lfm2.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let head_dim = config.attention()?.head_dim;
    let rope = RopeConfig::read(root.checkpoint().config(), None)?;
    let (rope, c) = (SharedRope::new(rope, head_dim, root.options().tokens), &config);
    let mut options = StackOptions::new(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.norm_eps);
    options.norm = "embedding_norm";
    options.tied = config.tie_word_embeddings;
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, &config, &rope, i))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    mixer: Mixer,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: GatedFeedForward,
    eps: f32,
}

/// What moves information between tokens.
enum Mixer {
    Convolution(Box<GatedConv>),
    Attention(Box<SelfAttention>),
}

/// `W_out (C * conv(B * u))` with `B, C, u = W_in h`.
struct GatedConv {
    input: [Linear; 3], // B, C, u: (n, n) each
    conv: ShortConv,
    output: Linear,  // (n, n)
    state: Vec<f32>, // (taps - 1, n): the last B * u
}

impl Block {
    fn load(at: &Loader<'_>, config: &Config, rope: &SharedRope, i: usize) -> Result<Block> {
        let (n, eps) = (config.hidden_size, config.norm_eps);
        let mixer = if config.attends(i)? {
            let at = at.at("self_attn");
            let shape = config.attention()?;
            let mut attention = SelfAttention::load(&at, shape, "out_proj", false)?;
            let gains = [at.gain("q_layernorm", shape.head_dim)?, at.gain("k_layernorm", shape.head_dim)?];
            attention.head_norms = Some((gains, eps));
            attention.rope = Some(rope.table()?);
            Mixer::Attention(Box::new(attention))
        } else {
            Mixer::Convolution(Box::new(GatedConv::load(&at.at("conv"), config)?))
        };
        let ffn = at.at("feed_forward");
        // intermediate_size is not the width where block_auto_adjust_ff_dim adapts it: the tensor says it.
        let hidden = ffn.shape("w1.weight")?.first().copied().unwrap_or(0);
        Ok(Block {
            norm: at.gain("operator_norm", n)?,
            mixer,
            feed_forward_norm: at.gain("ffn_norm", n)?,
            feed_forward: GatedFeedForward {
                gate: ffn.linear("w1", (hidden, n), false)?,
                up: ffn.linear("w3", (hidden, n), false)?,
                down: ffn.linear("w2", (n, hidden), false)?,
                activation: Activation::Silu,
            },
            eps,
        })
    }
}

impl GatedConv {
    fn load(at: &Loader<'_>, config: &Config) -> Result<GatedConv> {
        let (n, taps, bias) = (config.hidden_size, config.taps, config.conv_bias);
        let conv = ShortConv::load(at, "conv", (n, taps), bias, Activation::Identity)?;
        let input = at.at("in_proj");
        let rows = input.tensor("weight", &[n.saturating_mul(3), n])?;
        let biases = bias.then(|| input.tensor("bias", &[n.saturating_mul(3)])).transpose()?;
        let third = |i: usize| {
            let bias = biases.as_ref().map(|all| all[i * n..][..n].to_vec());
            at.pack(&rows[i * n * n..], (n, n), bias)
        };
        Ok(GatedConv {
            input: [third(0)?, third(1)?, third(2)?],
            state: vec![0.0; conv.taps().saturating_sub(1) * n],
            conv,
            output: at.linear("out_proj", (n, n), bias)?,
        })
    }

    fn add_to(&mut self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()> {
        let [b, c, mut u] = Linear::apply_each(rt, h, self.input.each_ref())?;
        ops::mul(&rt.ctx, u.view_mut()?, b.view()?)?;
        let mut y = self.conv.apply(rt, u.view()?, &mut self.state)?;
        ops::mul(&rt.ctx, y.view_mut()?, c.view()?)?;
        self.output.add_to(rt, y.view()?, 1.0, x)
    }
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        match &mut self.mixer {
            Mixer::Convolution(conv) => conv.add_to(rt, h.view()?, x)?,
            Mixer::Attention(attention) => attention.add_to(rt, h.view()?, 1.0, x)?,
        }
        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, self.eps)?;
        self.feed_forward.add_to(rt, h.view()?, 1.0, x)
    }

    fn reset(&mut self) {
        match &mut self.mixer {
            Mixer::Convolution(conv) => conv.state.fill(0.0),
            Mixer::Attention(attention) => attention.cache.clear(),
        }
    }
}
