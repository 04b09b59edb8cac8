//! Gemma 3n (Google 2025): Gemma 3 with several streams ([`AltUp`]), a low-rank path beside attention
//! (LAuReL, Menghani et al. 2024), activations of which most are zero, inputs of each layer, and layers that
//! take the keys and values of others.
//!
//! ```text
//! x = sqrt(n) * embedding[tokens];  s = streams of x
//! each layer:  p = predict(s);  x = p[active];  h = rms_norm(x)
//!              l = h + rms_norm(W_right W_left h)
//!              q, k, v = W h, each head normed;  q, k turned by position
//!              x = (x + rms_norm(W_o attention(q, K, V)) + l) / sqrt(2)
//!              g = W_gate rms_norm(x);  g = max(g - mean(g) - quantile * deviation(g), 0)
//!              x = x + rms_norm(W_down (gelu(g) * W_up rms_norm(x)))
//!              s = correct(p, x)
//!              s[1..] = s[1..] + rms_norm(W_up (gelu(W_gate (c * s[active])) * input))
//! logits = cap(W_embedding rms_norm(join(s)))
//! ```

use super::altup::{AltUp, Streams};
use super::gemma_attention::{Attention, Caches, Design, Memory, source};
use super::gemma_inputs::{LayerInput, LayerInputs};
use crate::attention::Windows;
use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::ops;
use serde::Deserialize;
use std::f32::consts::FRAC_1_SQRT_2;

/// Without a list of layers, the last layer of each group of so many sees all tokens.
const PERIOD: usize = 5;

#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: OneOrEach<usize>,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f32,
    hidden_activation: String,
    #[serde(default)]
    attention_bias: bool,
    final_logit_softcapping: Option<f32>,
    /// The last layers, which take the keys and values of others.
    #[serde(default)]
    num_kv_shared_layers: usize,
    /// Elements of a layer's input.
    hidden_size_per_layer_input: usize,
    vocab_size_per_layer_input: usize,
    altup_num_inputs: usize,
    altup_active_idx: usize,
    /// Whether the active stream has a factor for each element before it meets the layer's input.
    altup_correct_scale: bool,
    laurel_rank: usize,
    /// The part of a layer's gates that is zero, if they were normally distributed.
    activation_sparsity_pattern: Option<OneOrEach<f64>>,
}

/// A value of all layers, or one for each.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrEach<T> {
    One(T),
    Each(Vec<T>),
}

impl<T: Copy> OneOrEach<T> {
    /// The value of a layer.
    fn of(&self, name: &str, layer: usize) -> Result<T> {
        match self {
            OneOrEach::One(value) => Ok(*value),
            OneOrEach::Each(values) => {
                let short = || Error::field(&format!("{name}.len"), values.len(), &format!("above {layer}"));
                values.get(layer).copied().ok_or_else(short)
            }
        }
    }
}

/// Loads `model_type` gemma3n_text.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let windows: Windows = root.checkpoint().config_as()?;
    Ok(Box::new(Gemma3n::load(root, &config, &windows)?))
}

struct Gemma3n {
    embedding: Linear, // (vocabulary, n)
    inputs: LayerInputs,
    streams: Streams,
    active: usize,
    layers: Vec<Layer>,
    norm: Vec<f32>, // (n)
    memory: Memory,
    eps: f32,
    logit_cap: Option<f32>,
    tokens: usize,
}

struct Layer {
    altup: AltUp,
    norm: Vec<f32>, // (n), as all of these
    laurel: Laurel,
    attention: Attention,
    after_attention: Vec<f32>,
    feed_forward_norm: Vec<f32>,
    feed_forward: GatedFeedForward,
    /// Deviations above the mean from which on a gate is not zero; `None` for all gates as they are.
    quantile: Option<f64>,
    after_feed_forward: Vec<f32>,
    input_scale: Option<Vec<f32>>,
    input: LayerInput,
}

/// `x + rms_norm(W_right W_left x)`.
struct Laurel {
    left: Linear,   // (rank, n)
    right: Linear,  // (n, rank)
    norm: Vec<f32>, // (n)
}

impl Gemma3n {
    fn load(root: &Loader<'_>, config: &Config, windows: &Windows) -> Result<Gemma3n> {
        let (n, model, count) = (config.hidden_size, root.at("model"), config.num_hidden_layers);
        let (streams, active, eps) = (config.altup_num_inputs, config.altup_active_idx, config.rms_norm_eps);
        if active >= streams {
            return Err(Error::field("altup_active_idx", active, &format!("below the streams = {streams}")));
        }
        let embedding = model.linear("embed_tokens", (config.vocab_size, n), false)?;
        let (mut layers, mut caches) = (Vec::new(), Caches::new());
        for i in 0..count {
            let at = model.at(&format!("layers.{i}"));
            layers.push(Layer::load(&at, config, windows, i, &mut caches)?);
        }
        let sizes = (config.vocab_size_per_layer_input, n);
        Ok(Gemma3n {
            embedding,
            inputs: LayerInputs::load(&model, sizes, (count, config.hidden_size_per_layer_input), eps)?,
            streams: Streams::load(&model, n, streams)?,
            active,
            layers,
            norm: model.gain("norm", n)?,
            memory: Memory::load(root, caches, config.head_dim, config.head_dim)?,
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
        let (n, eps, rank) = (config.hidden_size, config.rms_norm_eps, config.laurel_rank);
        let (act, gain) = (activation(&config.hidden_activation)?, |name| at.gain(name, n));
        let (streams, active) = (config.altup_num_inputs, config.altup_active_idx);
        let first_shared = config.num_hidden_layers.saturating_sub(config.num_kv_shared_layers);
        let slides = |layer| windows.slides(layer, PERIOD);
        let design = Design {
            heads: (config.num_attention_heads, config.num_key_value_heads, config.head_dim),
            bias: config.attention_bias,
            head_norms: Some(0.0),
            value_norm: true,
            values_are_keys: false,
            scale: 1.0,
            softcap: None,
            slides: slides(i),
            window: windows.of(i, PERIOD),
            source: source(i, first_shared, slides)?,
        };
        let hidden = config.intermediate_size.of("intermediate_size", i)?;
        let zeros = match &config.activation_sparsity_pattern {
            Some(pattern) => pattern.of("activation_sparsity_pattern", i)?,
            None => 0.0,
        };
        if !(0.0..1.0).contains(&zeros) {
            return Err(Error::field("activation_sparsity_pattern", zeros, "at least 0 and below 1"));
        }
        let (laurel, altup) = (at.at("laurel"), at.at("altup"));
        let input_scale = || altup.tensor("correct_output_scale", &[n]);
        Ok(Layer {
            altup: AltUp::load(&altup, n, streams, active, eps)?,
            norm: gain("input_layernorm")?,
            laurel: Laurel {
                left: laurel.linear("linear_left", (rank, n), false)?,
                right: laurel.linear("linear_right", (n, rank), false)?,
                norm: laurel.gain("post_laurel_norm", n)?,
            },
            attention: Attention::load(&at.at("self_attn"), n, eps, &design, caches)?,
            after_attention: gain("post_attention_layernorm")?,
            feed_forward_norm: gain("pre_feedforward_layernorm")?,
            feed_forward: GatedFeedForward::load(&at.at("mlp"), n, hidden, false, act)?,
            quantile: (zeros > 0.0).then(|| normal_quantile(zeros)),
            after_feed_forward: gain("post_feedforward_layernorm")?,
            input_scale: config.altup_correct_scale.then(input_scale).transpose()?,
            input: LayerInput::load(at, n, config.hidden_size_per_layer_input, act, eps)?,
        })
    }

    /// What the layer makes of the active stream.
    fn apply(&self, rt: &mut Runtime, memory: &mut Memory, x: &Rows, eps: f32) -> Result<Rows> {
        let h = rt.rms_norm(x.view()?, &self.norm, eps)?;
        let mut x = x.clone();
        let attended = self.attention.apply(rt, memory, &h)?;
        rt.add_rms_norm(attended.view()?, &self.after_attention, eps, &mut x)?;
        let beside = self.laurel.apply(rt, h, eps)?;
        ops::add(&rt.ctx, x.view_mut()?, beside.view()?)?;
        ops::scale(&rt.ctx, x.view_mut()?, FRAC_1_SQRT_2);

        let h = rt.rms_norm(x.view()?, &self.feed_forward_norm, eps)?;
        let y = self.feed_forward(rt, &h)?;
        rt.add_rms_norm(y.view()?, &self.after_feed_forward, eps, &mut x)?;
        Ok(x)
    }

    /// The feed-forward layer, with the small gates set to zero.
    fn feed_forward(&self, rt: &mut Runtime, h: &Rows) -> Result<Rows> {
        let layer = &self.feed_forward;
        let Some(quantile) = self.quantile else { return layer.apply(rt, h.view()?) };
        let [mut gate, up] = Linear::apply_each(rt, h.view()?, [&layer.gate, &layer.up])?;
        keep_large(&mut gate, quantile);
        ops::activate_mul(&rt.ctx, layer.activation, gate.view_mut()?, up.view()?)?;
        layer.down.apply(rt, gate.view()?)
    }
}

impl Laurel {
    fn apply(&self, rt: &mut Runtime, mut h: Rows, eps: f32) -> Result<Rows> {
        let low = self.left.apply(rt, h.view()?)?;
        let y = self.right.apply(rt, low.view()?)?;
        rt.add_rms_norm(y.view()?, &self.norm, eps, &mut h)?;
        Ok(h)
    }
}

/// `max(g - (mean + quantile * deviation), 0)` for each row, with the deviation of the row itself (divided by
/// n). Sums are of f64.
fn keep_large(gate: &mut Rows, quantile: f64) {
    let n = gate.cols().max(1);
    for row in gate.as_mut_slice().chunks_exact_mut(n) {
        let mean = |f: &dyn Fn(f64) -> f64| row.iter().map(|&g| f(f64::from(g))).sum::<f64>() / n as f64;
        let middle = mean(&|g| g);
        let deviation = mean(&|g| (g - middle) * (g - middle)).sqrt();
        let least = (middle + quantile * deviation) as f32;
        row.iter_mut().for_each(|g| *g = (*g - least).max(0.0));
    }
}

/// The number below which a standard normal variable lies with probability `p`, 0 < p < 1: bisection of
/// `erfc(-z / sqrt(2)) / 2 = p` down to neighbouring doubles.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    loop {
        let z = 0.5 * (low + high);
        if z <= low || z >= high {
            return z;
        }
        let below = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2) < p;
        *(if below { &mut low } else { &mut high }) = z;
    }
}

impl Decoder for Gemma3n {
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
        let inputs = self.inputs.of(rt, tokens, x.view()?)?;
        let mut streams = self.streams.split(rt, x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            streams = layer.altup.predict(rt, &streams)?;
            let y = layer.apply(rt, &mut self.memory, &streams[self.active], eps)?;
            layer.altup.correct(rt, &mut streams, &y)?;

            let mut active = streams[self.active].clone();
            if let Some(scale) = &layer.input_scale {
                let rows = active.as_mut_slice().chunks_exact_mut(scale.len().max(1));
                rows.for_each(|row| row.iter_mut().zip(scale).for_each(|(x, by)| *x *= by));
            }
            let y = layer.input.apply(rt, active.view()?, inputs.columns(self.inputs.columns(i))?)?;
            for stream in &mut streams[1..] {
                ops::add(&rt.ctx, stream.view_mut()?, y.view()?)?;
            }
        }
        let x = self.streams.join(rt, &streams)?;
        let h = rt.rms_norm(x.view()?, &self.norm, eps)?;
        let mut logits = self.embedding.apply(rt, h.view()?)?;
        if let Some(cap) = self.logit_cap {
            ops::softcap(&rt.ctx, cap, logits.view_mut()?)?;
        }
        Ok(logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_tables() {
        for (p, z) in [(0.5, 0.0), (0.95, 1.6448536269514722), (0.75, 0.6744897501960817)] {
            assert!((normal_quantile(p) - z).abs() < 1e-15, "{p}");
        }
    }

    #[test]
    fn gates_below_the_cut_are_zero() {
        let mut gate = Rows::zeros(1, 4);
        gate.as_mut_slice().copy_from_slice(&[1.0, 3.0, 5.0, 7.0]);
        // Mean 4, deviation sqrt(5).
        keep_large(&mut gate, 0.2);
        assert_eq!(gate.as_slice()[..2], [0.0, 0.0]);
        assert!((gate.as_slice()[3] - (3.0 - 0.2 * 5f32.sqrt())).abs() < 1e-6);
    }
}
