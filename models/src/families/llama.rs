//! Llama (Touvron et al. 2023), and the decoders that differ from it in a number or in one part.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rms_norm(x);  q, k, v = W h;  q, k turned by position
//!              x = x + W_o attention(q, K, V)
//!              h = rms_norm(x);  x = x + W_down (silu(W_gate h) * W_up h)
//! logits = W_head rms_norm(x)
//! ```

use crate::attention::{attend, cache};
use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::experts::FeedForward;
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rope::RopeConfig;
use crate::rows::Rows;
use kvern::attention::{AttentionOptions, Bias, KvCache, Preparation};
use kvern::ops::{self, RopePairs, RopeTable};
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
    Ok(Box::new(Llama::load(root, &config, &design)?))
}

/// A decoder of Llama's design.
pub(super) struct Llama {
    embedding: Linear, // (vocabulary, n)
    layers: Vec<Layer>,
    norm: Vec<f32>,       // (n)
    head: Option<Linear>, // (vocabulary, n); `None` for the embedding
    rope: RopeTable,
    eps: f32,
    embedding_scale: f32,
    residual_scale: f32,
    logit_scale: f32,
    tokens: usize,
}

struct Layer {
    norm: Vec<f32>, // (n)
    attention: Attention,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: FeedForward,
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    output: Linear,
    head_norms: Option<[Vec<f32>; 2]>, // (head_dim) of queries, of keys
    sinks: Option<Vec<f32>>,           // (heads)
    rotates: bool,
    options: AttentionOptions,
    cache: KvCache,
}

impl Llama {
    /// Loads a decoder whose tensors have the names of Llama's.
    ///
    /// **Errors**: as [`load_decoder`](super::load_decoder).
    pub fn load(root: &Loader<'_>, config: &Config, design: &Design) -> Result<Llama> {
        let (n, vocabulary) = (config.hidden_size, config.vocab_size);
        let (head_dim, tokens) = (config.head_dim()?, root.options().tokens);
        let model = root.at("model");
        let embedding = model.linear("embed_tokens", (vocabulary, n), false)?;
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            layers.push(Layer::load(&model.at(&format!("layers.{i}")), config, design, i)?);
        }
        let tied = config.tie_word_embeddings.unwrap_or_else(|| !root.has("lm_head.weight"));
        let head = (!tied).then(|| root.linear("lm_head", (vocabulary, n), false)).transpose()?;
        Ok(Llama {
            embedding,
            layers,
            norm: model.gain("norm", n)?,
            head,
            rope: RopeConfig::read(root.checkpoint().config(), None)?.table(head_dim, tokens)?,
            eps: config.rms_norm_eps,
            embedding_scale: design.embedding_scale,
            residual_scale: design.residual_scale,
            logit_scale: design.logit_scale,
            tokens,
        })
    }
}

impl Layer {
    fn load(at: &Loader<'_>, config: &Config, design: &Design, i: usize) -> Result<Layer> {
        let n = config.hidden_size;
        Ok(Layer {
            norm: at.gain("input_layernorm", n)?,
            attention: Attention::load(&at.at("self_attn"), config, design, i)?,
            feed_forward_norm: at.gain("post_attention_layernorm", n)?,
            feed_forward: (design.feed_forward)(at, i)?,
        })
    }
}

impl Attention {
    fn load(at: &Loader<'_>, config: &Config, design: &Design, i: usize) -> Result<Attention> {
        let (n, head_dim, heads) = (config.hidden_size, config.head_dim()?, config.num_attention_heads);
        let kv_heads = config.num_key_value_heads.unwrap_or(heads);
        // A product beyond the address space is no tensor's shape, and refused as such.
        let (q, kv) = (heads.saturating_mul(head_dim), kv_heads.saturating_mul(head_dim));
        let [q_map, k_map, v_map] = if design.fused_qkv {
            fused_qkv(at, (q, kv), n)?
        } else {
            let map = |name, outputs| at.linear(name, (outputs, n), design.qkv_bias);
            [map("q_proj", q)?, map("k_proj", kv)?, map("v_proj", kv)?]
        };
        let norm = |name| at.gain(name, head_dim);
        let mut options = AttentionOptions::new(heads);
        (options.scale, options.window) = (design.score_scale, (design.window)(i));
        Ok(Attention {
            q: q_map,
            k: k_map,
            v: v_map,
            output: at.linear("o_proj", (n, q), design.output_bias)?,
            head_norms: if design.head_norms { Some([norm("q_norm")?, norm("k_norm")?]) } else { None },
            sinks: design.sinks.then(|| at.tensor("sinks", &[heads])).transpose()?,
            rotates: (design.rotates)(i),
            options,
            cache: cache(at.ctx(), kv_heads, head_dim, at.options().tokens)?,
        })
    }

    /// `attention(q, K, V)` of the rows `h`, after their keys and values have been appended.
    fn attend(&mut self, rt: &mut Runtime, rope: &RopeTable, eps: f32, h: &Rows) -> Result<Rows> {
        let [mut q, mut k, v] = Linear::apply_each(rt, h.view()?, [&self.q, &self.k, &self.v])?;
        let mut preparation = Preparation::default();
        if let Some([q_gain, k_gain]) = &self.head_norms {
            preparation = preparation.norms(q_gain, k_gain, eps);
        }
        if self.rotates {
            preparation = preparation.rope(rope, RopePairs::Halves);
        }
        self.cache.append_prepared(&rt.ctx, 0, &preparation, q.view_mut()?, k.view_mut()?, v.view()?)?;
        let bias =
            self.sinks.as_deref().map_or_else(Bias::default, |sinks| Bias::default().sink_logits(sinks));
        attend(rt, &self.options, &bias, q.view()?, &self.cache)
    }
}

/// The maps for queries, keys and values out of one tensor.
fn fused_qkv(at: &Loader<'_>, (q, kv): (usize, usize), n: usize) -> Result<[Linear; 3]> {
    let (v, end) = (q.saturating_add(kv), q.saturating_add(kv.saturating_mul(2)));
    let rows = at.at("qkv_proj").tensor("weight", &[end, n])?;
    let map = |part: Range<usize>| at.pack(&rows[part.start * n..part.end * n], (part.len(), n), None);
    Ok([map(0..q)?, map(q..v)?, map(v..end)?])
}

impl Decoder for Llama {
    fn vocabulary(&self) -> usize {
        self.embedding.outputs()
    }

    fn capacity(&self) -> usize {
        self.tokens
    }

    fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.attention.cache.len())
    }

    fn reset(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.attention.cache.clear());
    }

    fn run(&mut self, rt: &mut Runtime, tokens: &[u32]) -> Result<Rows> {
        let (eps, by) = (self.eps, self.residual_scale);
        let mut x = self.embedding.rows(rt, tokens)?;
        ops::scale(&rt.ctx, x.view_mut()?, self.embedding_scale);
        for layer in &mut self.layers {
            let h = rt.rms_norm(x.view()?, &layer.norm, eps)?;
            let attended = layer.attention.attend(rt, &self.rope, eps, &h)?;
            layer.attention.output.add_to(rt, attended.view()?, by, &mut x)?;

            let h = rt.rms_norm(x.view()?, &layer.feed_forward_norm, eps)?;
            layer.feed_forward.add_to(rt, h.view()?, by, &mut x)?;
        }
        let h = rt.rms_norm(x.view()?, &self.norm, eps)?;
        let mut logits = self.head.as_ref().unwrap_or(&self.embedding).apply(rt, h.view()?)?;
        ops::scale(&rt.ctx, logits.view_mut()?, self.logit_scale);
        Ok(logits)
    }
}
