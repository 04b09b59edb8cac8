//! Kimi Linear (Kimi Team 2025): most layers are Kimi delta attention, a delta net with a decay of each key
//! element; the others latent attention without positions. Experts as DeepSeek-V3.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rms_norm(x)
//!              delta attention:     x = x + W_o (delta_net(W_q h, W_k h, W_v h, F_b F_a h, W_b h)
//!                                                * sigmoid(G_b G_a h))
//!              or latent attention: x = x + latent_attention(h)
//!              h = rms_norm(x);  x = x + W_down (silu(W_gate h) * W_up h)
//!              or                x = x + experts(h) + shared(h)
//! logits = W_head rms_norm(x)
//! ```

use crate::delta_net::{DeltaInputs, DeltaNet, DeltaParameters, DeltaShape};
use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::experts::{ExpertNames, ExpertShape, Experts, FeedForward, Grouped, Mixture, Router};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::latent_attention::{LatentAttention, LatentConfig, LatentShape};
use crate::linear::{COMPUTE, Linear};
use crate::loader::Loader;
use crate::recurrence::{ShortConv, decay_rates};
use crate::rows::Rows;
use crate::stack::{Layer, Stack, StackOptions};
use kvern::quant::ExpertOptions;
use kvern::{Activation, MatRef};
use serde::Deserialize;

/// Epsilon of the norms of latents, whatever `rms_norm_eps`.
const LATENT_EPS: f32 = 1e-6;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    /// `linear_attention` or `full_attention` for each layer.
    layer_types: Vec<String>,
    linear_num_heads: usize,
    linear_head_dim: usize,
    linear_conv_kernel_dim: usize,
    /// `dense` or `sparse` for each layer.
    mlp_layer_types: Vec<String>,
    num_experts: usize,
    num_shared_experts: usize,
    num_experts_per_token: usize,
    moe_intermediate_size: usize,
    num_expert_group: usize,
    topk_group: usize,
    moe_renormalize: bool,
    routed_scaling_factor: f32,
    hidden_act: String,
    rms_norm_eps: f32,
    tie_word_embeddings: Option<bool>,
}

impl Config {
    /// Heads of queries, keys and values are alike.
    fn delta(&self) -> DeltaShape {
        let (heads, dim) = (self.linear_num_heads, self.linear_head_dim);
        DeltaShape {
            key_heads: heads,
            heads,
            key_dim: dim,
            value_dim: dim,
            taps: self.linear_conv_kernel_dim,
        }
    }
}

/// Loads `model_type` kimi_linear.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let c = &config;
    let mut options = StackOptions::new(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.rms_norm_eps);
    options.tied = c.tie_word_embeddings;
    let latent: LatentConfig = root.checkpoint().config_as()?;
    let shape = latent.shape();
    Ok(Box::new(Stack::load(root, &options, |at, i| Block::load(at, c, shape, i))?))
}

struct Block {
    norm: Vec<f32>, // (n)
    mixer: Mixer,
    feed_forward_norm: Vec<f32>, // (n)
    feed_forward: FeedForward,
    eps: f32,
}

/// What moves information between tokens.
enum Mixer {
    Delta(Box<DeltaAttention>),
    Latent(Box<LatentAttention>),
}

/// Kimi delta attention.
struct DeltaAttention {
    qkv: Linear,        // (n, channels)
    decay: [Linear; 2], // F_a, F_b: (n, head_dim), (head_dim, heads * head_dim)
    beta: Linear,       // (n, heads)
    gate: [Linear; 2],  // G_a, G_b: as the decay
    net: DeltaNet,
    output: Linear, // (heads * head_dim, n)
}

impl Block {
    fn load(at: &Loader<'_>, config: &Config, shape: LatentShape, i: usize) -> Result<Block> {
        let (n, eps) = (config.hidden_size, config.rms_norm_eps);
        let mixer = at.at("self_attn");
        let mixer = match kind(&config.layer_types, i) {
            "linear_attention" => Mixer::Delta(Box::new(DeltaAttention::load(&mixer, config)?)),
            "full_attention" => {
                Mixer::Latent(Box::new(LatentAttention::load(&mixer, shape, false, LATENT_EPS)?))
            }
            other => {
                let allowed = "linear_attention or full_attention";
                return Err(Error::field(&format!("layer_types[{i}]"), other, allowed));
            }
        };
        Ok(Block {
            norm: at.gain("input_layernorm", n)?,
            mixer,
            feed_forward_norm: at.gain("post_attention_layernorm", n)?,
            feed_forward: feed_forward(at, config, i)?,
            eps,
        })
    }
}

fn kind(types: &[String], i: usize) -> &str {
    types.get(i).map_or("absent", String::as_str)
}

fn feed_forward(at: &Loader<'_>, config: &Config, i: usize) -> Result<FeedForward> {
    let (n, act) = (config.hidden_size, activation(&config.hidden_act)?);
    let moe = at.at("block_sparse_moe");
    match kind(&config.mlp_layer_types, i) {
        "dense" => {
            // Both names occur.
            let at = if at.has("mlp.gate_proj.weight") { at.at("mlp") } else { moe };
            let layer = GatedFeedForward::load(&at, n, config.intermediate_size, false, act)?;
            Ok(FeedForward::Gated(layer))
        }
        "sparse" => Ok(FeedForward::Mixture(mixture(&moe, config, act)?)),
        other => Err(Error::field(&format!("mlp_layer_types[{i}]"), other, "dense or sparse")),
    }
}

fn mixture(at: &Loader<'_>, config: &Config, act: Activation) -> Result<Mixture> {
    let (experts, n, hidden) = (config.num_experts, config.hidden_size, config.moe_intermediate_size);
    let router = Grouped {
        experts,
        chosen: config.num_experts_per_token,
        groups: config.num_expert_group,
        kept_groups: config.topk_group,
        renormalizes: config.moe_renormalize,
        scale: config.routed_scaling_factor,
    };
    let (shape, options) = (ExpertShape { experts, n, hidden }, ExpertOptions::new(COMPUTE, act));
    let shared = config.num_shared_experts.saturating_mul(hidden);
    Ok(Mixture {
        router: Router::load_grouped(at, n, router)?,
        experts: Experts::load(at, ExpertNames::NUMBERS, shape, options)?,
        shared: Some(Box::new(GatedFeedForward::load(&at.at("shared_experts"), n, shared, false, act)?)),
    })
}

impl DeltaAttention {
    fn load(at: &Loader<'_>, config: &Config) -> Result<DeltaAttention> {
        let (shape, n) = (config.delta(), config.hidden_size);
        let (heads, dim, taps, inner) = (shape.heads, shape.key_dim, shape.taps, shape.keys());
        // q, k and v are one product and one convolution.
        let join = |names: [&str; 3], tensor_shape: &[usize]| -> Result<Vec<f32>> {
            let part = |name| at.at(name).tensor("weight", tensor_shape);
            Ok([part(names[0])?, part(names[1])?, part(names[2])?].concat())
        };
        let rows = join(["q_proj", "k_proj", "v_proj"], &[inner, n])?;
        let taps_of = join(["q_conv1d", "k_conv1d", "v_conv1d"], &[inner, 1, taps])?;
        let low_rank = |a: &str, b: &str| -> Result<[Linear; 2]> {
            Ok([at.linear(a, (dim, n), false)?, at.linear(b, (inner, dim), false)?])
        };
        // A rate is of a head, and here of each of its elements.
        let rates = decay_rates(&at.tensor("A_log", &[1, 1, heads, 1])?);
        let parameters = DeltaParameters {
            conv: ShortConv::new(&taps_of, taps, None, Activation::Silu),
            step_bias: at.tensor("dt_bias", &[inner])?,
            rates: rates.iter().flat_map(|&rate| std::iter::repeat_n(rate, dim)).collect(),
            gain: at.gain("o_norm", dim)?,
            eps: config.rms_norm_eps,
            gate: Activation::Sigmoid,
        };
        Ok(DeltaAttention {
            qkv: at.pack(&rows, (shape.channels(), n), None)?,
            decay: low_rank("f_a_proj", "f_b_proj")?,
            beta: at.linear("b_proj", (heads, n), false)?,
            gate: low_rank("g_a_proj", "g_b_proj")?,
            net: DeltaNet::new(at.ctx(), shape, parameters)?,
            output: at.linear("o_proj", (n, inner), false)?,
        })
    }

    fn add_to(&mut self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()> {
        let ([f_a, f_b], [g_a, g_b]) = (&self.decay, &self.gate);
        let [qkv, f, b, g] = Linear::apply_each(rt, h, [&self.qkv, f_a, &self.beta, g_a])?;
        let (a, z) = (f_b.apply(rt, f.view()?)?, g_b.apply(rt, g.view()?)?);
        let y = self.net.apply(rt, DeltaInputs { qkv, a, b, z })?;
        self.output.add_to(rt, y.view()?, 1.0, x)
    }
}

impl Layer for Block {
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        match &mut self.mixer {
            Mixer::Delta(delta) => delta.add_to(rt, h.view()?, x)?,
            Mixer::Latent(latent) => latent.add_to(rt, h.view()?, x)?,
        }
        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, self.eps)?;
        self.feed_forward.add_to(rt, h.view()?, 1.0, x)
    }

    fn reset(&mut self) {
        match &mut self.mixer {
            Mixer::Delta(delta) => delta.net.reset(),
            Mixer::Latent(latent) => latent.reset(),
        }
    }
}
