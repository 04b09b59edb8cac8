//! Gemma 2 (Riviere et al. 2024): norms before and after each part, gains of 1 + weight, soft caps, a window
//! in every second layer. Gemma 3 (Kamath et al. 2025): norms of the heads of queries and keys in place of
//! the caps, a window in five layers of six, and two rotations.
//!
//! ```text
//! x = sqrt(n) * embedding[tokens]
//! each layer:  h = rms_norm(x);  q, k, v = W h;  q, k normed (3) and turned by position
//!              x = x + rms_norm(W_o attention(q, K, V))
//!              h = rms_norm(x);  x = x + rms_norm(W_down (gelu(W_gate h) * W_up h))
//! logits = cap(W_embedding rms_norm(x))
//! ```

use super::gemma_attention::{Attention, Caches, Design, Memory, gain, inverse_root};
use crate::attention::Windows;
use crate::engine::{Decoder, Runtime};
use crate::error::Result;
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::ops;
use serde::Deserialize;

/// What the weights of gains lack.
const OFFSET: f32 = 1.0;

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
    #[serde(default = "gelu")]
    hidden_activation: String,
    #[serde(default)]
    attention_bias: bool,
    /// Scores are divided by the root of this number.
    query_pre_attn_scalar: f64,
    /// Cap of the scores.
    attn_logit_softcapping: Option<f32>,
    /// Cap of the logits.
    final_logit_softcapping: Option<f32>,
    /// Where there is no list of layers: the last layer of each group of so many sees all tokens.
    sliding_window_pattern: Option<usize>,
}

fn gelu() -> String {
    "gelu_pytorch_tanh".into()
}

/// Loads `model_type` gemma2.
pub(super) fn load_2(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    Ok(Box::new(Gemma::load(root, None, 2)?))
}

/// Loads `model_type` gemma3_text.
pub(super) fn load_3(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    Ok(Box::new(Gemma::load(root, Some(OFFSET), 6)?))
}

struct Gemma {
    embedding: Linear, // (vocabulary, n)
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
    after_feed_forward: Vec<f32>,
}

impl Gemma {
    /// Loads a decoder with these norms of heads, whose layers without a window are the last ones of so many.
    fn load(root: &Loader<'_>, head_norms: Option<f32>, period: usize) -> Result<Gemma> {
        let config: Config = root.checkpoint().config_as()?;
        let windows: Windows = root.checkpoint().config_as()?;
        let period = config.sliding_window_pattern.unwrap_or(period);
        let (n, model, eps) = (config.hidden_size, root.at("model"), config.rms_norm_eps);
        let embedding = model.linear("embed_tokens", (config.vocab_size, n), false)?;
        let (mut layers, mut caches) = (Vec::new(), Caches::new());
        for i in 0..config.num_hidden_layers {
            let design = Design {
                heads: (config.num_attention_heads, config.num_key_value_heads, config.head_dim),
                bias: config.attention_bias,
                head_norms,
                value_norm: false,
                values_are_keys: false,
                scale: inverse_root(config.query_pre_attn_scalar),
                softcap: config.attn_logit_softcapping,
                slides: windows.slides(i, period),
                window: windows.of(i, period),
                source: None,
            };
            layers.push(Layer::load(&model.at(&format!("layers.{i}")), &config, &design, &mut caches)?);
        }
        let memory = Memory::load(root, caches, config.head_dim, config.head_dim)?;
        let (norm, logit_cap) = (gain(&model, "norm", n, OFFSET)?, config.final_logit_softcapping);
        Ok(Gemma { embedding, layers, norm, memory, eps, logit_cap, tokens: root.options().tokens })
    }
}

impl Layer {
    fn load(at: &Loader<'_>, config: &Config, design: &Design, caches: &mut Caches) -> Result<Layer> {
        let (n, hidden, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        let (gain, act) = (|name| gain(at, name, n, OFFSET), activation(&config.hidden_activation)?);
        Ok(Layer {
            norm: gain("input_layernorm")?,
            attention: Attention::load(&at.at("self_attn"), n, eps, design, caches)?,
            after_attention: gain("post_attention_layernorm")?,
            feed_forward_norm: gain("pre_feedforward_layernorm")?,
            feed_forward: GatedFeedForward::load(&at.at("mlp"), n, hidden, false, act)?,
            after_feed_forward: gain("post_feedforward_layernorm")?,
        })
    }
}

impl Decoder for Gemma {
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
        for layer in &self.layers {
            let h = rt.rms_norm(x.view()?, &layer.norm, eps)?;
            let attended = layer.attention.apply(rt, &mut self.memory, &h)?;
            rt.add_rms_norm(attended.view()?, &layer.after_attention, eps, &mut x)?;

            let h = rt.rms_norm(x.view()?, &layer.feed_forward_norm, eps)?;
            let y = layer.feed_forward.apply(rt, h.view()?)?;
            rt.add_rms_norm(y.view()?, &layer.after_feed_forward, eps, &mut x)?;
        }
        let h = rt.rms_norm(x.view()?, &self.norm, eps)?;
        let mut logits = self.embedding.apply(rt, h.view()?)?;
        if let Some(cap) = self.logit_cap {
            ops::softcap(&rt.ctx, cap, logits.view_mut()?)?;
        }
        Ok(logits)
    }
}
