//! Granite 4 (IBM 2025): Mamba-2 and attention, both followed by experts beside a layer that all tokens take,
//! with the four factors of Granite 3. Without positions, but for configurations that ask for a rotation.
//!
//! ```text
//! x = embedding_multiplier * embedding[tokens]
//! each layer:  h = rms_norm(x);  x = x + residual_multiplier * (mamba2(h) or W_o attention(q, K, V))
//!              h = rms_norm(x);  x = x + residual_multiplier * (experts(h) + shared(h))
//! logits = embedding rms_norm(x) / logits_scaling
//! ```

use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::experts::{ExpertShape, Experts, FeedForward, FusedExperts, Mixture, Router};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::COMPUTE;
use crate::loader::Loader;
use crate::mamba2::{Mamba2, MambaOptions, step_limits};
use crate::rope::{RopeConfig, SharedRope};
use crate::rows::Rows;
use crate::self_attention::{AttentionShape, SelfAttention};
use crate::stack::{Layer, Stack, StackOptions};
use kvern::Activation;
use kvern::ops::RouterScore;
use kvern::quant::ExpertOptions;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    shared_intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    #[serde(default)]
    attention_bias: bool,
    /// 0 in models whose layers have only what all tokens take.
    #[serde(default)]
    num_local_experts: usize,
    #[serde(default)]
    num_experts_per_tok: usize,
    hidden_act: String,
    rms_norm_eps: f32,
    /// `mamba` or `linear_attention`, `attention` or `full_attention`, for each layer.
    layer_types: Vec<String>,
    /// `rope` where queries and keys are turned.
    position_embedding_type: Option<String>,
    tie_word_embeddings: Option<bool>,
    mamba_n_heads: usize,
    mamba_d_head: usize,
    mamba_d_state: usize,
    mamba_n_groups: usize,
    mamba_d_conv: usize,
    #[serde(default)]
    mamba_conv_bias: bool,
    #[serde(default)]
    mamba_proj_bias: bool,
    time_step_limit: Option<Value>,
    embedding_multiplier: f32,
    attention_multiplier: f32,
    residual_multiplier: f32,
    logits_scaling: f32,
}

impl Config {
    fn attention(&self) -> Result<AttentionShape> {
        let head_dim = self.head_dim.or_else(|| self.hidden_size.checked_div(self.num_attention_heads));
        Ok(AttentionShape {
            n: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: head_dim.ok_or_else(|| Error::field("num_attention_heads", 0, "at least 1"))?,
        })
    }

    fn mamba(&self) -> Result<MambaOptions> {
        Ok(MambaOptions {
            n: self.hidden_size,
            heads: self.mamba_n_heads,
            head_dim: self.mamba_d_head,
            state_dim: self.mamba_d_state,
            groups: self.mamba_n_groups,
            // The norm is of the whole row, whatever the groups of B and C.
            norm_groups: 1,
            taps: self.mamba_d_conv,
            conv_bias: self.mamba_conv_bias,
            bias: self.mamba_proj_bias,
            step_limits: step_limits(self.time_step_limit.as_ref())?,
            eps: self.rms_norm_eps,
        })
    }
}

/// Loads `model_type` granitemoehybrid.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let c = &config;
    let rope = match c.position_embedding_type.as_deref() {
        Some("rope") => Some(RopeConfig::read(root.checkpoint().config(), None)?),
        _ => None,
    };
    let head_dim = c.attention()?.head_dim;
    let rope = rope.map(|rope| SharedRope::new(rope, head_dim, root.options().tokens));
    let mut options = StackOptions::new(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.rms_norm_eps);
    options.tied = c.tie_word_embeddings;
    options.embedding_scale = c.embedding_multiplier;
    options.logit_scale = 1.0 / c.logits_scaling;
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, c, rope.as_ref(), i))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    mixer: Mixer,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: FeedForward,
    eps: f32,
    residual_scale: f32,
}

/// What moves information between tokens.
enum Mixer {
    Mamba(Box<Mamba2>),
    Attention(Box<SelfAttention>),
}

impl Block {
    fn load(at: &Loader<'_>, config: &Config, rope: Option<&SharedRope>, i: usize) -> Result<Block> {
        let n = config.hidden_size;
        let act = activation(&config.hidden_act)?;
        let shared = shared(&at.at("shared_mlp"), config, act)?;
        let feed_forward = match config.num_local_experts {
            0 => FeedForward::Gated(shared),
            _ => FeedForward::Mixture(mixture(&at.at("block_sparse_moe"), config, act, shared)?),
        };
        Ok(Block {
            norm: at.gain("input_layernorm", n)?,
            mixer: Mixer::load(at, config, rope, i)?,
            feed_forward_norm: at.gain("post_attention_layernorm", n)?,
            feed_forward,
            eps: config.rms_norm_eps,
            residual_scale: config.residual_multiplier,
        })
    }
}

impl Mixer {
    fn load(at: &Loader<'_>, config: &Config, rope: Option<&SharedRope>, i: usize) -> Result<Mixer> {
        let kind = config.layer_types.get(i).map_or("absent", String::as_str);
        match kind {
            "mamba" | "linear_attention" => {
                Ok(Mixer::Mamba(Box::new(Mamba2::load(&at.at("mamba"), config.mamba()?)?)))
            }
            "attention" | "full_attention" => {
                let (at, shape) = (at.at("self_attn"), config.attention()?);
                let mut attention = SelfAttention::load(&at, shape, "o_proj", config.attention_bias)?;
                attention.options.scale = Some(config.attention_multiplier);
                attention.rope = rope.map(SharedRope::table).transpose()?;
                Ok(Mixer::Attention(Box::new(attention)))
            }
            _ => Err(Error::field(&format!("layer_types[{i}]"), kind, "mamba or attention")),
        }
    }
}

/// Softmax over the logits of the chosen experts.
fn mixture(at: &Loader<'_>, config: &Config, act: Activation, shared: GatedFeedForward) -> Result<Mixture> {
    let (experts, n, hidden) = (config.num_local_experts, config.hidden_size, config.intermediate_size);
    let (chosen, score) = (config.num_experts_per_tok, RouterScore::SoftmaxOfChosen);
    let names = FusedExperts {
        gate_up: "input_linear.weight",
        down: "output_linear.weight",
        alternating: false,
        transposed: false,
        bias: false,
    };
    let shape = ExpertShape { experts, n, hidden };
    Ok(Mixture {
        router: Router::load(at, "router.layer", (experts, n), false, chosen, score)?,
        experts: Experts::load_fused(at, names, shape, ExpertOptions::new(COMPUTE, act))?,
        shared: Some(Box::new(shared)),
    })
}

/// The layer that all tokens take: `input_linear` has the rows of the gate, then those of up.
fn shared(at: &Loader<'_>, config: &Config, act: Activation) -> Result<GatedFeedForward> {
    let (n, hidden) = (config.hidden_size, config.shared_intermediate_size);
    let both = at.tensor("input_linear.weight", &[hidden.saturating_mul(2), n])?;
    let (gate, up) = both.split_at(both.len() / 2);
    Ok(GatedFeedForward {
        gate: at.pack(gate, (hidden, n), None)?,
        up: at.pack(up, (hidden, n), None)?,
        down: at.linear("output_linear", (n, hidden), false)?,
        activation: act,
    })
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let by = self.residual_scale;
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        match &mut self.mixer {
            Mixer::Mamba(mamba) => mamba.add_to(rt, h.view()?, by, x)?,
            Mixer::Attention(attention) => attention.add_to(rt, h.view()?, by, x)?,
        }
        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, self.eps)?;
        self.feed_forward.add_to(rt, h.view()?, by, x)
    }

    fn reset(&mut self) {
        match &mut self.mixer {
            Mixer::Mamba(mamba) => mamba.reset(),
            Mixer::Attention(attention) => attention.cache.clear(),
        }
    }
}
