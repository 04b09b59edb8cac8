//! Nemotron-H (NVIDIA 2025): each layer has one part: Mamba-2, attention without positions, a feed-forward
//! layer without a gate, or experts of that kind beside a shared one.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rms_norm(x);  x = x + part(h)
//!              feed-forward: W_down relu(W_up h)^2
//! logits = W_head rms_norm(x)
//! ```

use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::experts::{ExpertNames, ExpertShape, Experts, Grouped, Mixture, Router};
use crate::feed_forward::activation;
use crate::linear::{COMPUTE, Linear};
use crate::loader::Loader;
use crate::mamba2::{Mamba2, MambaOptions, step_limits};
use crate::rows::Rows;
use crate::self_attention::{AttentionShape, SelfAttention};
use crate::stack::{Layer, Stack, StackOptions};
use kvern::quant::ExpertOptions;
use kvern::{Activation, MatRef};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    mlp_hidden_act: String,
    layer_norm_epsilon: f32,
    tie_word_embeddings: Option<bool>,
    /// `mamba` or `linear_attention`, `attention` or `full_attention`, `mlp`, `moe`, for each layer.
    layers_block_type: Option<Vec<String>>,
    /// The same as letters: M, *, -, E.
    hybrid_override_pattern: Option<String>,
    mamba_num_heads: usize,
    mamba_head_dim: usize,
    ssm_state_size: usize,
    n_groups: usize,
    conv_kernel: usize,
    #[serde(default)]
    use_conv_bias: bool,
    #[serde(default)]
    mamba_proj_bias: bool,
    time_step_limit: Option<Value>,
}

/// The fields of models with experts.
#[derive(Deserialize)]
struct MixtureConfig {
    n_routed_experts: usize,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    moe_shared_expert_intermediate_size: usize,
    n_group: usize,
    topk_group: usize,
    #[serde(default)]
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
    /// Elements of the rows that experts see, where a product makes them shorter.
    moe_latent_size: Option<usize>,
}

/// What a layer is.
#[derive(Clone, Copy)]
enum Kind {
    Mamba,
    Attention,
    FeedForward,
    Experts,
}

impl Config {
    /// The kinds of all layers.
    fn kinds(&self) -> Result<Vec<Kind>> {
        if let Some(types) = &self.layers_block_type {
            let kind = |name: &String| match name.as_str() {
                "mamba" | "linear_attention" => Ok(Kind::Mamba),
                "attention" | "full_attention" => Ok(Kind::Attention),
                "mlp" => Ok(Kind::FeedForward),
                "moe" => Ok(Kind::Experts),
                _ => Err(Error::field("layers_block_type", name, "mamba, attention, mlp or moe")),
            };
            return types.iter().map(kind).collect();
        }
        let letters = self.hybrid_override_pattern.as_ref();
        let missing = || Error::Config { reason: "missing field `layers_block_type`".into() };
        let kind = |letter| match letter {
            'M' => Ok(Kind::Mamba),
            '*' => Ok(Kind::Attention),
            '-' => Ok(Kind::FeedForward),
            'E' => Ok(Kind::Experts),
            _ => Err(Error::field("hybrid_override_pattern", letter, "of M, *, - and E")),
        };
        letters.ok_or_else(missing)?.chars().map(kind).collect()
    }

    fn attention(&self) -> AttentionShape {
        AttentionShape {
            n: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }

    fn mamba(&self) -> Result<MambaOptions> {
        Ok(MambaOptions {
            n: self.hidden_size,
            heads: self.mamba_num_heads,
            head_dim: self.mamba_head_dim,
            state_dim: self.ssm_state_size,
            groups: self.n_groups,
            norm_groups: self.n_groups,
            taps: self.conv_kernel,
            conv_bias: self.use_conv_bias,
            bias: self.mamba_proj_bias,
            step_limits: step_limits(self.time_step_limit.as_ref())?,
            eps: self.layer_norm_epsilon,
        })
    }
}

/// Loads `model_type` nemotron_h.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let (c, kinds) = (&config, config.kinds()?);
    let mut options = StackOptions::new(c.vocab_size, c.hidden_size, kinds.len(), c.layer_norm_epsilon);
    (options.root, options.embedding, options.norm) = ("backbone", "embeddings", "norm_f");
    options.tied = c.tie_word_embeddings;
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, c, kinds[i]))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    part: Part,
    eps: f32,
}

enum Part {
    Mamba(Box<Mamba2>),
    Attention(Box<SelfAttention>),
    FeedForward(FeedForward),
    Experts { mixture: Box<Mixture>, shared: FeedForward },
}

/// `down(act(up(x)))`.
struct FeedForward {
    up: Linear,   // (n, hidden)
    down: Linear, // (hidden, n)
    activation: Activation,
}

impl Block {
    fn load(at: &Loader<'_>, config: &Config, kind: Kind) -> Result<Block> {
        let (mixer, n) = (at.at("mixer"), config.hidden_size);
        let part = match kind {
            Kind::Mamba => Part::Mamba(Box::new(Mamba2::load(&mixer, config.mamba()?)?)),
            Kind::Attention => {
                let (shape, bias) = (config.attention(), config.attention_bias);
                Part::Attention(Box::new(SelfAttention::load(&mixer, shape, "o_proj", bias)?))
            }
            Kind::FeedForward => {
                Part::FeedForward(FeedForward::load(&mixer, config, config.intermediate_size)?)
            }
            Kind::Experts => {
                let sizes: MixtureConfig = at.checkpoint().config_as()?;
                let hidden = sizes.moe_shared_expert_intermediate_size;
                let shared = FeedForward::load(&mixer.at("shared_experts"), config, hidden)?;
                Part::Experts { mixture: Box::new(mixture(&mixer, config, &sizes)?), shared }
            }
        };
        Ok(Block { norm: at.gain("norm", n)?, part, eps: config.layer_norm_epsilon })
    }
}

impl FeedForward {
    fn load(at: &Loader<'_>, config: &Config, hidden: usize) -> Result<FeedForward> {
        let (n, bias) = (config.hidden_size, config.mlp_bias);
        Ok(FeedForward {
            up: at.linear("up_proj", (hidden, n), bias)?,
            down: at.linear("down_proj", (n, hidden), bias)?,
            activation: activation(&config.mlp_hidden_act)?,
        })
    }

    fn add_to(&self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()> {
        let hidden = self.up.activate(rt, h, self.activation)?;
        self.down.add_to(rt, hidden.view()?, 1.0, x)
    }
}

/// Experts by the logistic function, chosen by groups and with a bias.
fn mixture(at: &Loader<'_>, config: &Config, sizes: &MixtureConfig) -> Result<Mixture> {
    if let Some(latent) = sizes.moe_latent_size {
        return Err(Error::field("moe_latent_size", latent, "absent: experts see the stream's rows"));
    }
    let (experts, n, hidden) = (sizes.n_routed_experts, config.hidden_size, sizes.moe_intermediate_size);
    let router = Grouped {
        experts,
        chosen: sizes.num_experts_per_tok,
        groups: sizes.n_group,
        kept_groups: sizes.topk_group,
        renormalizes: sizes.norm_topk_prob,
        scale: sizes.routed_scaling_factor,
    };
    let options = ExpertOptions::new(COMPUTE, activation(&config.mlp_hidden_act)?);
    let shape = ExpertShape { experts, n, hidden };
    Ok(Mixture {
        router: Router::load_grouped(at, n, router)?,
        experts: Experts::load(at, ExpertNames::UNGATED, shape, options)?,
        shared: None,
    })
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        match &mut self.part {
            Part::Mamba(mamba) => mamba.add_to(rt, h.view()?, 1.0, x),
            Part::Attention(attention) => attention.add_to(rt, h.view()?, 1.0, x),
            Part::FeedForward(layer) => layer.add_to(rt, h.view()?, x),
            Part::Experts { mixture, shared } => {
                mixture.add_to(rt, h.view()?, 1.0, x)?;
                shared.add_to(rt, h.view()?, x)
            }
        }
    }

    fn reset(&mut self) {
        match &mut self.part {
            Part::Mamba(mamba) => mamba.reset(),
            Part::Attention(attention) => attention.cache.clear(),
            Part::FeedForward(_) | Part::Experts { .. } => {}
        }
    }
}
