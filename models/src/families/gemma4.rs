//! Gemma 4 (Google 2026): Gemma 3 with gains as they are, values normed without gain, layers without a
//! window whose heads are wider and of whose pairs only some turn, a scalar for each layer, and, by the
//! model, inputs of each layer, layers that take the keys and values of others, and experts beside the
//! feed-forward layer.
//!
//! ```text
//! x = sqrt(n) * embedding[tokens]
//! each layer:  h = rms_norm(x);  q, k, v = W h, each head normed;  q, k turned by position
//!              x = x + rms_norm(W_o attention(q, K, V))
//!              y = feed_forward(rms_norm(x))
//!              y = rms_norm(y) + rms_norm(experts(rms_norm(x)))          where there are experts
//!              x = x + rms_norm(y)
//!              x = x + rms_norm(W_up (gelu(W_gate x) * input))           where layers have inputs
//!              x = x * scalar
//! logits = cap(W_embedding rms_norm(x))
//! ```

use super::gemma_attention::{Attention, Caches, Design, Memory, inverse_root, source};
use super::gemma_inputs::{LayerInput, LayerInputs};
use crate::attention::Windows;
use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::experts::{ExpertShape, Experts, FusedExperts, Router};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::{COMPUTE, Linear};
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::ops::{self, RouterScore};
use kvern::quant::ExpertOptions;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Without a list of layers, the last layer of each group of so many sees all tokens.
const PERIOD: usize = 6;

/// (experts, 2 hidden, n), the gate first.
const NAMES: FusedExperts = FusedExperts {
    gate_up: "experts.gate_up_proj",
    down: "experts.down_proj",
    alternating: false,
    transposed: false,
    bias: false,
};

#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f32,
    hidden_activation: String,
    #[serde(default)]
    attention_bias: bool,
    final_logit_softcapping: Option<f32>,
    /// Whether the values of layers without a window are their keys.
    #[serde(default)]
    attention_k_eq_v: bool,
    /// Elements of a head of layers without a window.
    global_head_dim: Option<usize>,
    /// Their key-value heads, where values are keys.
    num_global_key_value_heads: Option<usize>,
    /// What single layers have in place of the above, by their number.
    #[serde(default)]
    per_layer_config: BTreeMap<String, Heads>,
    /// The last layers, which take the keys and values of others.
    #[serde(default)]
    num_kv_shared_layers: usize,
    /// Whether those have feed-forward layers twice as wide.
    #[serde(default)]
    use_double_wide_mlp: bool,
    /// Elements of a layer's input; 0 for none.
    #[serde(default)]
    hidden_size_per_layer_input: usize,
    vocab_size_per_layer_input: Option<usize>,
    #[serde(default)]
    enable_moe_block: bool,
    num_experts: Option<usize>,
    top_k_experts: Option<usize>,
    moe_intermediate_size: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
struct Heads {
    head_dim: Option<usize>,
    num_key_value_heads: Option<usize>,
}

impl Config {
    /// Query heads, key-value heads and elements of a head of a layer.
    fn heads(&self, layer: usize, slides: bool) -> (usize, usize, usize) {
        let of_kind = if slides { None } else { self.global_head_dim };
        let of_values = self.num_global_key_value_heads.filter(|_| !slides && self.attention_k_eq_v);
        let own = self.per_layer_config.get(&layer.to_string());
        let head_dim = own.and_then(|own| own.head_dim).or(of_kind).unwrap_or(self.head_dim);
        let kv_heads = own.and_then(|own| own.num_key_value_heads).or(of_values);
        (self.num_attention_heads, kv_heads.unwrap_or(self.num_key_value_heads), head_dim)
    }

    /// Elements of a head of all layers of a kind, once the layers are known to be there.
    ///
    /// **Errors**: `Config` for layers that differ.
    fn head_dim(&self, windows: &Windows, slides: bool) -> Result<usize> {
        let layers = (0..self.num_hidden_layers).filter(|&layer| windows.slides(layer, PERIOD) == slides);
        let mut dims = layers.map(|layer| self.heads(layer, slides).2);
        let first = dims.next().unwrap_or(self.head_dim);
        match dims.find(|&dim| dim != first) {
            Some(other) => {
                Err(Error::field("head_dim", other, &format!("that of layers of its kind = {first}")))
            }
            None => Ok(first),
        }
    }
}

/// Loads `model_type` gemma4_text.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let windows: Windows = root.checkpoint().config_as()?;
    Ok(Box::new(Gemma4::load(root, &config, &windows)?))
}

struct Gemma4 {
    embedding: Linear, // (vocabulary, n)
    inputs: Option<LayerInputs>,
    layers: Vec<Layer>,
    norm: Vec<f32>, // (n)
    memory: Memory,
    eps: f32,
    logit_cap: Option<f32>,
    tokens: usize,
}

struct Layer {
    norm: Vec<f32>, // (n), as all of these
    attention: Attention,
    after_attention: Vec<f32>,
    feed_forward_norm: Vec<f32>,
    feed_forward: GatedFeedForward,
    experts: Option<ExpertBlock>,
    after_feed_forward: Vec<f32>,
    input: Option<LayerInput>,
    scalar: f32,
}

/// Experts beside the feed-forward layer. Router and experts see the stream by norms of their own.
struct ExpertBlock {
    after_feed_forward: Vec<f32>, // (n), as all of these
    router_norm: Vec<f32>,
    router: Router,
    norm: Vec<f32>,
    experts: Experts,
    after: Vec<f32>,
}

impl Gemma4 {
    fn load(root: &Loader<'_>, config: &Config, windows: &Windows) -> Result<Gemma4> {
        let (n, model, count) = (config.hidden_size, root.at("model"), config.num_hidden_layers);
        let embedding = model.linear("embed_tokens", (config.vocab_size, n), false)?;
        let (mut layers, mut caches) = (Vec::new(), Caches::new());
        for i in 0..count {
            let at = model.at(&format!("layers.{i}"));
            layers.push(Layer::load(&at, config, windows, i, &mut caches)?);
        }
        let dim = |slides| config.head_dim(windows, slides);
        let memory = Memory::load(root, caches, dim(true)?, dim(false)?)?;
        let (width, eps) = (config.hidden_size_per_layer_input, config.rms_norm_eps);
        let vocabulary = config.vocab_size_per_layer_input.unwrap_or(config.vocab_size);
        let inputs = || LayerInputs::load(&model, (vocabulary, n), (count, width), eps);
        Ok(Gemma4 {
            embedding,
            inputs: (width > 0).then(inputs).transpose()?,
            layers,
            norm: model.gain("norm", n)?,
            memory,
            eps,
            logit_cap: config.final_logit_softcapping,
            tokens: root.options().tokens,
        })
    }
}

impl Layer {
    fn load(
        at: &Loader<'_>,
        config: &Config,
        windows: &Windows,
        i: usize,
        caches: &mut Caches,
    ) -> Result<Layer> {
        let (n, eps) = (config.hidden_size, config.rms_norm_eps);
        let (act, gain) = (activation(&config.hidden_activation)?, |name| at.gain(name, n));
        let slides = windows.slides(i, PERIOD);
        let first_shared = config.num_hidden_layers.saturating_sub(config.num_kv_shared_layers);
        let design = Design {
            heads: config.heads(i, slides),
            bias: config.attention_bias,
            head_norms: Some(0.0),
            value_norm: true,
            values_are_keys: config.attention_k_eq_v && !slides,
            scale: 1.0,
            softcap: None,
            slides,
            window: windows.of(i, PERIOD),
            source: source(i, first_shared, |layer| windows.slides(layer, PERIOD))?,
        };
        let wide = config.use_double_wide_mlp && design.source.is_some();
        let hidden = config.intermediate_size.saturating_mul(if wide { 2 } else { 1 });
        let width = config.hidden_size_per_layer_input;
        let input = || LayerInput::load(at, n, width, act, eps);
        Ok(Layer {
            norm: gain("input_layernorm")?,
            attention: Attention::load(&at.at("self_attn"), n, eps, &design, caches)?,
            after_attention: gain("post_attention_layernorm")?,
            feed_forward_norm: gain("pre_feedforward_layernorm")?,
            feed_forward: GatedFeedForward::load(&at.at("mlp"), n, hidden, false, act)?,
            experts: config.enable_moe_block.then(|| ExpertBlock::load(at, config)).transpose()?,
            after_feed_forward: gain("post_feedforward_layernorm")?,
            input: (width > 0).then(input).transpose()?,
            scalar: at.tensor("layer_scalar", &[1])?.first().copied().unwrap_or(1.0),
        })
    }
}

impl ExpertBlock {
    fn load(at: &Loader<'_>, config: &Config) -> Result<ExpertBlock> {
        let need = |name: &str, value: Option<usize>| {
            value.ok_or_else(|| Error::Config { reason: format!("missing field `{name}`") })
        };
        let n = config.hidden_size;
        let experts = need("num_experts", config.num_experts)?;
        let chosen = need("top_k_experts", config.top_k_experts)?;
        let hidden = need("moe_intermediate_size", config.moe_intermediate_size)?;
        let options = ExpertOptions::new(COMPUTE, activation(&config.hidden_activation)?);
        let place = at.at("router");
        let mut router = Router::load(&place, "proj", (experts, n), false, chosen, RouterScore::Softmax)?;
        router.renormalize = Some(0.0);
        router.expert_scale = Some(place.tensor("per_expert_scale", &[experts])?);
        let mut router_norm = place.tensor("scale", &[n])?;
        router_norm.iter_mut().for_each(|gain| *gain *= inverse_root(n as f64));
        Ok(ExpertBlock {
            after_feed_forward: at.gain("post_feedforward_layernorm_1", n)?,
            router_norm,
            router,
            norm: at.gain("pre_feedforward_layernorm_2", n)?,
            experts: Experts::load_fused(at, NAMES, ExpertShape { experts, n, hidden }, options)?,
            after: at.gain("post_feedforward_layernorm_2", n)?,
        })
    }

    /// The feed-forward layer's result `y` and what experts make of the stream `x`, normed and added.
    fn apply(&self, rt: &mut Runtime, x: &Rows, y: &Rows, eps: f32) -> Result<Rows> {
        let h = rt.rms_norm(x.view()?, &self.router_norm, eps)?;
        let choice = self.router.route(rt, h.view()?)?;
        let h = rt.rms_norm(x.view()?, &self.norm, eps)?;
        let mut experts = Rows::zeros(x.rows(), x.cols());
        self.experts.add_to(rt, h.view()?, &choice, 1.0, &mut experts)?;
        let mut sum = rt.rms_norm(y.view()?, &self.after_feed_forward, eps)?;
        rt.add_rms_norm(experts.view()?, &self.after, eps, &mut sum)?;
        Ok(sum)
    }
}

impl Decoder for Gemma4 {
    fn vocabulary(&self) -> usize {
        self.embedding.outputs()
    }

    fn capacity(&self) -> usize {
        self.tokens
    }

    fn len(&self) -> usize {
        self.memory.len()
    }

    fn reset(&mut self) {
        self.memory.clear();
    }

    fn run(&mut self, rt: &mut Runtime, tokens: &[u32]) -> Result<Rows> {
        let eps = self.eps;
        let mut x = self.embedding.rows(rt, tokens)?;
        let root = (x.cols() as f32).sqrt();
        ops::scale(&rt.ctx, x.view_mut()?, root);
        let inputs = match &self.inputs {
            Some(inputs) => Some((inputs, inputs.of(rt, tokens, x.view()?)?)),
            None => None,
        };
        for (i, layer) in self.layers.iter().enumerate() {
            let h = rt.rms_norm(x.view()?, &layer.norm, eps)?;
            let attended = layer.attention.apply(rt, &mut self.memory, &h)?;
            rt.add_rms_norm(attended.view()?, &layer.after_attention, eps, &mut x)?;

            let h = rt.rms_norm(x.view()?, &layer.feed_forward_norm, eps)?;
            let mut y = layer.feed_forward.apply(rt, h.view()?)?;
            if let Some(experts) = &layer.experts {
                y = experts.apply(rt, &x, &y, eps)?;
            }
            rt.add_rms_norm(y.view()?, &layer.after_feed_forward, eps, &mut x)?;

            if let (Some(part), Some((all, inputs))) = (&layer.input, &inputs) {
                let y = part.apply(rt, x.view()?, inputs.columns(all.columns(i))?)?;
                ops::add(&rt.ctx, x.view_mut()?, y.view()?)?;
            }
            ops::scale(&rt.ctx, x.view_mut()?, layer.scalar);
        }
        let h = rt.rms_norm(x.view()?, &self.norm, eps)?;
        let mut logits = self.embedding.apply(rt, h.view()?)?;
        if let Some(cap) = self.logit_cap {
            ops::softcap(&rt.ctx, cap, logits.view_mut()?)?;
        }
        Ok(logits)
    }
}
