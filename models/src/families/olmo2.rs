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
use crate::rope::{RopeConfig, SharedRope};
use crate::rows::Rows;
use crate::stack::{Layer, Stack};
use kvern::attention::{AttentionOptions, Bias, KvCache, Preparation};
use kvern::ops::{RopePairs, RopeTable};
use std::sync::Arc;

/// Loads `model_type` olmo2.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let rope = RopeConfig::read(root.checkpoint().config(), None)?;
    let rope = SharedRope::new(rope, config.head_dim()?, root.options().tokens);
    Ok(Box::new(Stack::load(root, &config.stack(), |at, _| Block::load(at, &config, &rope))?))
}

struct Block {
    attention: Attention,
    after_attention: Vec<f32>, // (n)
    feed_forward: GatedFeedForward,
    after_feed_forward: Vec<f32>, // (n)
    eps: f32,
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: Vec<f32>, // (heads * head_dim)
    k_norm: Vec<f32>, // (kv_heads * head_dim)
    output: Linear,
    rope: Arc<RopeTable>,
    options: AttentionOptions,
    cache: KvCache,
}

impl Block {
    fn load(at: &Loader<'_>, config: &Config, rope: &SharedRope) -> Result<Block> {
        let (n, hidden, act) =
            (config.hidden_size, config.intermediate_size, activation(&config.hidden_act)?);
        Ok(Block {
            attention: Attention::load(&at.at("self_attn"), config, rope)?,
            after_attention: at.gain("post_attention_layernorm", n)?,
            feed_forward: GatedFeedForward::load(&at.at("mlp"), n, hidden, config.mlp_bias, act)?,
            after_feed_forward: at.gain("post_feedforward_layernorm", n)?,
            eps: config.rms_norm_eps,
        })
    }
}

impl Attention {
    fn load(at: &Loader<'_>, config: &Config, rope: &SharedRope) -> Result<Attention> {
        let shape = config.attention()?;
        let map = |name, outputs| at.linear(name, (outputs, shape.n), config.attention_bias);
        Ok(Attention {
            q: map("q_proj", shape.q())?,
            k: map("k_proj", shape.kv())?,
            v: map("v_proj", shape.kv())?,
            q_norm: at.gain("q_norm", shape.q())?,
            k_norm: at.gain("k_norm", shape.kv())?,
            output: at.linear("o_proj", (shape.n, shape.q()), config.attention_bias)?,
            rope: rope.table()?,
            options: AttentionOptions::new(shape.heads),
            cache: cache(at.ctx(), shape.kv_heads, shape.head_dim, at.options().tokens)?,
        })
    }

    /// `W_o attention(q, K, V)` of the rows `x`, after their keys and values have been appended.
    fn apply(&mut self, rt: &mut Runtime, eps: f32, x: &Rows) -> Result<Rows> {
        let [q, k, v] = Linear::apply_each(rt, x.view()?, [&self.q, &self.k, &self.v])?;
        let mut q = rt.rms_norm(q.view()?, &self.q_norm, eps)?;
        let mut k = rt.rms_norm(k.view()?, &self.k_norm, eps)?;
        let preparation = Preparation::default().rope(&self.rope, RopePairs::Halves);
        self.cache.append_prepared(&rt.ctx, 0, &preparation, q.view_mut()?, k.view_mut()?, v.view()?)?;
        let attended = attend(rt, &self.options, &Bias::default(), q.view()?, &self.cache)?;
        self.output.apply(rt, attended.view()?)
    }
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let attended = self.attention.apply(rt, self.eps, x)?;
        rt.add_rms_norm(attended.view()?, &self.after_attention, self.eps, x)?;
        let y = self.feed_forward.apply(rt, x.view()?)?;
        rt.add_rms_norm(y.view()?, &self.after_feed_forward, self.eps, x)
    }

    fn reset(&mut self) {
        self.attention.cache.clear();
    }
}
