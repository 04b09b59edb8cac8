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
use crate::experts::{ExpertNames, ExpertShape, Experts, FeedForward, Grouped, Mixture, Router};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::latent_attention::{LatentAttention, LatentConfig, LatentShape};
use crate::linear::COMPUTE;
use crate::loader::Loader;
use crate::rope::{RopeConfig, SharedRope};
use crate::rows::Rows;
use crate::stack::{Layer, Stack, StackOptions};
use kvern::Activation;
use kvern::ops::RopePairs;
use kvern::quant::ExpertOptions;
use serde::Deserialize;

/// Epsilon of the norms of latents, whatever `rms_norm_eps`.
const LATENT_EPS: f32 = 1e-6;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    #[serde(default)]
    attention_bias: bool,
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

/// Loads `model_type` deepseek_v3.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let c = &config;
    let mut options = StackOptions::new(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.rms_norm_eps);
    options.tied = c.tie_word_embeddings;
    let rope = RopeConfig::read(root.checkpoint().config(), None)?;
    // YaRN's amplitude, which others have in the rotation, belongs to the whole score.
    let by = rope.score_scale()? as f32;
    let latent: LatentConfig = root.checkpoint().config_as()?;
    let rope = SharedRope::new(rope, latent.qk_rope_head_dim, root.options().tokens);
    let shape = latent.shape();
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, c, shape, (&rope, by), i))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    attention: LatentAttention,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: FeedForward,
    eps: f32,
}

impl Block {
    fn load(
        at: &Loader<'_>,
        config: &Config,
        shape: LatentShape,
        (rope, by): (&SharedRope, f32),
        i: usize,
    ) -> Result<Block> {
        let (n, bias) = (config.hidden_size, config.attention_bias);
        let mut attention = LatentAttention::load(&at.at("self_attn"), shape, bias, LATENT_EPS)?;
        let pairs = if config.rope_interleave { RopePairs::Interleaved } else { RopePairs::Halves };
        attention.rope = Some((rope.table()?, pairs));
        attention.options.scale = attention.options.scale.map(|scale| scale * by);
        let (mlp, act) = (at.at("mlp"), activation(&config.hidden_act)?);
        let feed_forward = if i < config.first_k_dense_replace {
            FeedForward::Gated(GatedFeedForward::load(&mlp, n, config.intermediate_size, false, act)?)
        } else {
            FeedForward::Mixture(mixture(&mlp, config, act)?)
        };
        Ok(Block {
            norm: at.gain("input_layernorm", n)?,
            attention,
            feed_forward_norm: at.gain("post_attention_layernorm", n)?,
            feed_forward,
            eps: config.rms_norm_eps,
        })
    }
}

fn mixture(at: &Loader<'_>, config: &Config, act: Activation) -> Result<Mixture> {
    let (experts, n, hidden) = (config.n_routed_experts, config.hidden_size, config.moe_intermediate_size);
    let router = Grouped {
        experts,
        chosen: config.num_experts_per_tok,
        groups: config.n_group,
        kept_groups: config.topk_group,
        renormalizes: config.norm_topk_prob,
        scale: config.routed_scaling_factor,
    };
    let (shape, options) = (ExpertShape { experts, n, hidden }, ExpertOptions::new(COMPUTE, act));
    let shared = config.n_shared_experts.saturating_mul(hidden);
    Ok(Mixture {
        router: Router::load_grouped(at, n, router)?,
        experts: Experts::load(at, ExpertNames::PROJECTIONS, shape, options)?,
        shared: Some(Box::new(GatedFeedForward::load(&at.at("shared_experts"), n, shared, false, act)?)),
    })
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        self.attention.add_to(rt, h.view()?, x)?;
        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, self.eps)?;
        self.feed_forward.add_to(rt, h.view()?, 1.0, x)
    }

    fn reset(&mut self) {
        self.attention.reset();
    }
}
