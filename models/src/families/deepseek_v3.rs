//! DeepSeek-V3 (DeepSeek-AI 2024): latent attention, and experts in groups beside a shared one, after some
//! layers without experts.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rms_norm(x);  x = x + latent_attention(h)
//!              h = rms_norm(x);  x = x + W_down (silu(W_gate h) * W_up h)
//!              or                x = x + experts(h) + shared(h)
//! experts:     s = sigmoid(W h); the best groups by the sum of their two best s + bias, the best experts in
//!              them; weights scale * s / sum of s
//! logits = W_head rms_norm(x)
//! ```

use crate::engine::{Decoder, Runtime};
use crate::error::Result;
use crate::experts::{ExpertNames, ExpertShape, Experts, FeedForward, Mixture, Router};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::latent_attention::{LatentAttention, LatentShape};
use crate::linear::COMPUTE;
use crate::loader::Loader;
use crate::rope::{RopeConfig, SharedRope};
use crate::rows::Rows;
use crate::stack::{Layer, Stack, StackOptions};
use kvern::ops::{GroupScore, RopePairs, RouterScore};
use kvern::quant::ExpertOptions;
use serde::Deserialize;

/// Epsilon of the norms of latents, whatever `rms_norm_eps`.
const LATENT_EPS: f32 = 1e-6;

/// Added to the sum that weights of experts are divided by.
const SUM_EPS: f32 = 1e-20;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    #[serde(default)]
    attention_bias: bool,
    q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    qk_nope_head_dim: usize,
    qk_rope_head_dim: usize,
    v_head_dim: usize,
    /// Whether neighbours are rotated together; otherwise halves.
    #[serde(default = "yes")]
    rope_interleave: bool,
    /// Layers without experts, at the beginning.
    first_k_dense_replace: usize,
    n_routed_experts: usize,
    n_shared_experts: usize,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    n_group: usize,
    topk_group: usize,
    #[serde(default)]
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
    hidden_act: String,
    rms_norm_eps: f32,
    tie_word_embeddings: Option<bool>,
}

fn yes() -> bool {
    true
}

impl Config {
    fn attention(&self) -> LatentShape {
        LatentShape {
            n: self.hidden_size,
            heads: self.num_attention_heads,
            latent: self.kv_lora_rank,
            q_latent: self.q_lora_rank,
            plain_dim: self.qk_nope_head_dim,
            rotated_dim: self.qk_rope_head_dim,
            value_dim: self.v_head_dim,
        }
    }
}

/// Loads `model_type` deepseek_v3.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let c = &config;
    let mut options = StackOptions::new(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.rms_norm_eps);
    options.tied = c.tie_word_embeddings;
    let rope = RopeConfig::read(root.checkpoint().config(), None)?;
    // YaRN's amplitude, which others have in the rotation, belongs to the whole score.
    let by = rope.score_scale()? as f32;
    let rope = SharedRope::new(rope, c.qk_rope_head_dim, root.options().tokens);
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, c, &rope, by, i))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    attention: LatentAttention,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: FeedForward,
    shared: Option<GatedFeedForward>,
    eps: f32,
}

impl Block {
    fn load(at: &Loader<'_>, config: &Config, rope: &SharedRope, by: f32, i: usize) -> Result<Block> {
        let (n, bias) = (config.hidden_size, config.attention_bias);
        let shape = config.attention();
        let mut attention = LatentAttention::load(&at.at("self_attn"), shape, bias, LATENT_EPS)?;
        let pairs = if config.rope_interleave { RopePairs::Interleaved } else { RopePairs::Halves };
        attention.rope = Some((rope.table()?, pairs));
        attention.options.scale = attention.options.scale.map(|scale| scale * by);
        let (mlp, act) = (at.at("mlp"), activation(&config.hidden_act)?);
        let gated = |at: &Loader<'_>, hidden| GatedFeedForward::load(at, n, hidden, false, act);
        let (feed_forward, shared) = if i < config.first_k_dense_replace {
            (FeedForward::Gated(gated(&mlp, config.intermediate_size)?), None)
        } else {
            let hidden = config.n_shared_experts.saturating_mul(config.moe_intermediate_size);
            let options = ExpertOptions::new(COMPUTE, act);
            let shared = gated(&mlp.at("shared_experts"), hidden)?;
            (FeedForward::Mixture(mixture(&mlp, config, options)?), Some(shared))
        };
        Ok(Block {
            norm: at.gain("input_layernorm", n)?,
            attention,
            feed_forward_norm: at.gain("post_attention_layernorm", n)?,
            feed_forward,
            shared,
            eps: config.rms_norm_eps,
        })
    }
}

fn mixture(at: &Loader<'_>, config: &Config, options: ExpertOptions) -> Result<Mixture> {
    let (experts, n) = (config.n_routed_experts, config.hidden_size);
    let (chosen, score) = (config.num_experts_per_tok, RouterScore::Sigmoid);
    let mut router = Router::load(at, "gate", (experts, n), false, chosen, score)?;
    router.selection_bias = Some(at.tensor("gate.e_score_correction_bias", &[experts])?);
    router.groups = Some((config.n_group, config.topk_group, GroupScore::BestTwo));
    router.renormalize = config.norm_topk_prob.then_some(SUM_EPS);
    router.scale = config.routed_scaling_factor;
    let shape = ExpertShape { experts, n, hidden: config.moe_intermediate_size };
    Ok(Mixture { router, experts: Experts::load(at, ExpertNames::PROJECTIONS, shape, options)? })
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        self.attention.add_to(rt, h.view()?, x)?;
        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, self.eps)?;
        self.feed_forward.add_to(rt, h.view()?, 1.0, x)?;
        match &self.shared {
            Some(shared) => shared.add_to(rt, h.view()?, 1.0, x),
            None => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.attention.reset();
    }
}
