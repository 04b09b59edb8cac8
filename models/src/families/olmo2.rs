//! OLMo 2 (OLMo Team 2024): no norms before attention and feed-forward layer but behind them, and an RMS norm
//! of queries and of keys over all heads together.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  q, k, v = W x;  q = rms_norm(q);  k = rms_norm(k);  q, k turned by position
//!              x = x + rms_norm(W_o attention(q, K, V))
//!              x = x + rms_norm(W_down (silu(W_gate x) * W_up x))
//! logits = W_head rms_norm(x)
//! ```

use super::llama::Config;
use crate::attention::{attend, cache};
use crate::engine::{Decoder, Runtime};
use crate::error::Result;
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rope::RopeConfig;
use crate::rows::Rows;
use kvern::attention::{AttentionOptions, Bias, KvCache, Preparation};
use kvern::ops::{RopePairs, RopeTable};

/// Loads `model_type` olmo2.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    Ok(Box::new(Olmo2::load(root, &config)?))
}

struct Olmo2 {
    embedding: Linear, // (vocabulary, n)
    layers: Vec<Layer>,
    norm: Vec<f32>,       // (n)
    head: Option<Linear>, // (vocabulary, n); `None` for the embedding
    rope: RopeTable,
    eps: f32,
    tokens: usize,
}

struct Layer {
    attention: Attention,
    after_attention: Vec<f32>, // (n)
    feed_forward: GatedFeedForward,
    after_feed_forward: Vec<f32>, // (n)
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: Vec<f32>, // (heads * head_dim)
    k_norm: Vec<f32>, // (kv_heads * head_dim)
    output: Linear,
    options: AttentionOptions,
    cache: KvCache,
}

impl Olmo2 {
    fn load(root: &Loader<'_>, config: &Config) -> Result<Olmo2> {
        let (n, vocabulary, model) = (config.hidden_size, config.vocab_size, root.at("model"));
        let embedding = model.linear("embed_tokens", (vocabulary, n), false)?;
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            layers.push(Layer::load(&model.at(&format!("layers.{i}")), config)?);
        }
        let tied = config.tie_word_embeddings.unwrap_or_else(|| !root.has("lm_head.weight"));
        let (rope, tokens) = (RopeConfig::read(root.checkpoint().config(), None)?, root.options().tokens);
        Ok(Olmo2 {
            embedding,
            layers,
            norm: model.gain("norm", n)?,
            head: (!tied).then(|| root.linear("lm_head", (vocabulary, n), false)).transpose()?,
            rope: rope.table(config.head_dim()?, tokens)?,
            eps: config.rms_norm_eps,
            tokens,
        })
    }
}

impl Layer {
    fn load(at: &Loader<'_>, config: &Config) -> Result<Layer> {
        let (n, hidden, act) =
            (config.hidden_size, config.intermediate_size, activation(&config.hidden_act)?);
        Ok(Layer {
            attention: Attention::load(&at.at("self_attn"), config)?,
            after_attention: at.gain("post_attention_layernorm", n)?,
            feed_forward: GatedFeedForward::load(&at.at("mlp"), n, hidden, config.mlp_bias, act)?,
            after_feed_forward: at.gain("post_feedforward_layernorm", n)?,
        })
    }
}

impl Attention {
    fn load(at: &Loader<'_>, config: &Config) -> Result<Attention> {
        let (n, head_dim, heads) = (config.hidden_size, config.head_dim()?, config.num_attention_heads);
        let kv_heads = config.num_key_value_heads.unwrap_or(heads);
        let (q, kv) = (heads.saturating_mul(head_dim), kv_heads.saturating_mul(head_dim));
        let map = |name, outputs| at.linear(name, (outputs, n), config.attention_bias);
        Ok(Attention {
            q: map("q_proj", q)?,
            k: map("k_proj", kv)?,
            v: map("v_proj", kv)?,
            q_norm: at.gain("q_norm", q)?,
            k_norm: at.gain("k_norm", kv)?,
            output: at.linear("o_proj", (n, q), config.attention_bias)?,
            options: AttentionOptions::new(heads),
            cache: cache(at.ctx(), kv_heads, head_dim, at.options().tokens)?,
        })
    }

    /// `W_o attention(q, K, V)` of the rows `x`, after their keys and values have been appended.
    fn apply(&mut self, rt: &mut Runtime, rope: &RopeTable, eps: f32, x: &Rows) -> Result<Rows> {
        let [q, k, v] = Linear::apply_each(rt, x.view()?, [&self.q, &self.k, &self.v])?;
        let mut q = rt.rms_norm(q.view()?, &self.q_norm, eps)?;
        let mut k = rt.rms_norm(k.view()?, &self.k_norm, eps)?;
        let preparation = Preparation::default().rope(rope, RopePairs::Halves);
        self.cache.append_prepared(&rt.ctx, 0, &preparation, q.view_mut()?, k.view_mut()?, v.view()?)?;
        let attended = attend(rt, &self.options, &Bias::default(), q.view()?, &self.cache)?;
        self.output.apply(rt, attended.view()?)
    }
}

impl Decoder for Olmo2 {
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
        let eps = self.eps;
        let mut x = self.embedding.rows(rt, tokens)?;
        for layer in &mut self.layers {
            let attended = layer.attention.apply(rt, &self.rope, eps, &x)?;
            rt.add_rms_norm(attended.view()?, &layer.after_attention, eps, &mut x)?;

            let y = layer.feed_forward.apply(rt, x.view()?)?;
            rt.add_rms_norm(y.view()?, &layer.after_feed_forward, eps, &mut x)?;
        }
        let h = rt.rms_norm(x.view()?, &self.norm, eps)?;
        self.head.as_ref().unwrap_or(&self.embedding).apply(rt, h.view()?)
    }
}
