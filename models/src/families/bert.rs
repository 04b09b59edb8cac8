//! BERT (Devlin et al. 2019), with the sentence encoders of its design (MiniLM, bge, e5), whose vectors are
//! [`Encoding::mean`].
//!
//! ```text
//! x = norm(word[tokens] + type[0] + position[0, 1, 2 ...])
//! each layer:  x = norm(x + W_o attention(W_q x, W_k x, W_v x))
//!              x = norm(x + W_down gelu(W_up x))
//! pooled = tanh(W_p x[0])
//! ```

use crate::embedding::{Embedding, positions};
use crate::encoder::{Encoding, TextEncoder};
use crate::encoder_layer::FeedForward;
use crate::engine::Runtime;
use crate::error::Result;
use crate::feed_forward::activation;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::multi_head::{MultiHead, heads};
use crate::rows::Rows;
use kvern::{Activation, ops};
use serde::Deserialize;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
}

struct Bert {
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
    pooler: Option<Linear>, // (n, n)
    tokens: usize,
}

struct Layer {
    attention: MultiHead,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    feed_forward_norm: LayerNorm,
}

/// Loads `model_type` bert. Models for a task have the same names below `bert`.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn TextEncoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let named = root.has("bert.embeddings.word_embeddings.weight");
    let model = if named { root.at("bert") } else { root.clone() };
    let (n, at) = (config.hidden_size, model.at("embeddings"));
    let mut layers = Vec::new();
    for i in 0..config.num_hidden_layers {
        layers.push(Layer::load(&model.at(&format!("encoder.layer.{i}")), &config)?);
    }
    let pools = model.has("pooler.dense.weight");
    Ok(Box::new(Bert {
        words: Embedding::load(&at, "word_embeddings", (config.vocab_size, n))?,
        positions: Embedding::load(&at, "position_embeddings", (config.max_position_embeddings, n))?,
        types: Embedding::load(&at, "token_type_embeddings", (config.type_vocab_size, n))?,
        norm: LayerNorm::load(&at, "LayerNorm", n, config.layer_norm_eps)?,
        layers,
        pooler: pools.then(|| model.linear("pooler.dense", (n, n), true)).transpose()?,
        tokens: root.options().tokens.min(config.max_position_embeddings),
    }))
}

impl Layer {
    fn load(at: &Loader<'_>, config: &Config) -> Result<Layer> {
        let (n, hidden, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        Ok(Layer {
            attention: MultiHead {
                q: at.linear("attention.self.query", (n, n), true)?,
                k: at.linear("attention.self.key", (n, n), true)?,
                v: at.linear("attention.self.value", (n, n), true)?,
                output: at.linear("attention.output.dense", (n, n), true)?,
                options: heads(n, config.num_attention_heads)?.causal(false),
            },
            attention_norm: LayerNorm::load(at, "attention.output.LayerNorm", n, eps)?,
            feed_forward: FeedForward {
                up: at.linear("intermediate.dense", (hidden, n), true)?,
                down: at.linear("output.dense", (n, hidden), true)?,
                activation: activation(&config.hidden_act)?,
            },
            feed_forward_norm: LayerNorm::load(at, "output.LayerNorm", n, eps)?,
        })
    }
}

impl TextEncoder for Bert {
    fn vocabulary(&self) -> usize {
        self.words.ids()
    }

    fn capacity(&self) -> usize {
        self.tokens
    }

    fn run(&self, rt: &mut Runtime, tokens: &[u32], starts: Vec<usize>) -> Result<Encoding> {
        let mut x = self.words.rows(rt, tokens)?;
        // One text a sequence: all tokens are of the first type.
        self.types.add_to(rt, &vec![0; tokens.len()], &mut x)?;
        self.positions.add_to(rt, &positions(&starts), &mut x)?;
        x = self.norm.apply(rt, x.view()?)?;
        for layer in &self.layers {
            let h = x.clone();
            layer.attention.add_to(rt, h.view()?, &starts, &mut x)?;
            x = layer.attention_norm.apply(rt, x.view()?)?;

            let h = x.clone();
            layer.feed_forward.add_to(rt, h.view()?, &mut x)?;
            x = layer.feed_forward_norm.apply(rt, x.view()?)?;
        }
        let pooled = self.pooler.as_ref().map(|map| pool(rt, map, &x, &starts)).transpose()?;
        Ok(Encoding { hidden: x, starts, pooled })
    }
}

/// `tanh(W_p x[0] + b)` of the first row of each sequence.
fn pool(rt: &mut Runtime, map: &Linear, x: &Rows, starts: &[usize]) -> Result<Rows> {
    let firsts: Vec<u32> = starts.windows(2).map(|pair| pair[0] as u32).collect();
    let mut first = Rows::zeros(firsts.len(), x.cols());
    ops::embedding(&rt.ctx, x.view()?, &firsts, first.view_mut()?)?;
    map.activate(rt, first.view()?, Activation::Tanh)
}
