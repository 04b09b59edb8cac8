//! Whisper (Radford et al. 2022): an encoder of spectrograms, and a decoder that attends to it.
//!
//! ```text
//! encoder:  x = gelu(conv_3(gelu(conv_3(spectrogram)), stride 2)) + position
//!           pre-norm layers;  audio = norm(x)
//! decoder:  x = word[tokens] + position
//!   each layer:  h = norm(x);  x = x + W_o attention(W_q h, K, V)            causal, over its cache
//!                h = norm(x);  x = x + W_o attention(W_q h, W_k audio, W_v audio)
//!                h = norm(x);  x = x + W_down gelu(W_up h)
//! logits = word norm(x)
//! ```

use crate::attention::{attend, cache};
use crate::convolution::Convolution;
use crate::embedding::{Embedding, positions};
use crate::encoder::{SpeechDecoder, equal};
use crate::encoder_layer::{EncoderLayer, FeedForward};
use crate::engine::{Decoder, Runtime};
use crate::error::Result;
use crate::feed_forward::activation;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::multi_head::MultiHead;
use crate::rows::Rows;
use kvern::attention::{Bias, KvCache};
use kvern::{Activation, MatRef, ops};
use serde::Deserialize;

/// What norms add to the variance: no field of the configuration.
const EPS: f32 = 1e-5;

/// The second convolution takes every second frame.
const STRIDE: usize = 2;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    num_mel_bins: usize,
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_layers: usize,
    decoder_attention_heads: usize,
    decoder_ffn_dim: usize,
    max_source_positions: usize,
    max_target_positions: usize,
    activation_function: String,
    #[serde(default)]
    scale_embedding: bool,
}

struct Whisper {
    encoder: Encoder,
    words: Linear, // (vocabulary, n): embedding and head
    word_scale: f32,
    positions: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
    tokens: usize,
}

struct Encoder {
    convolutions: [Convolution; 2],
    activation: Activation,
    positions: Embedding,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    bands: usize,
}

/// A layer of the decoder.
struct Layer {
    attention_norm: LayerNorm,
    attention: MultiHead,
    cache: KvCache,
    audio_norm: LayerNorm,
    audio_attention: MultiHead,
    audio: KvCache, // keys and values of the encoder's rows
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
}

/// Loads `model_type` whisper.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn SpeechDecoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let (n, at) = (config.d_model, root.at("model.decoder"));
    // Tables of positions first: once their shapes are known to be right, so are the sizes of the caches.
    let encoder = Encoder::load(&root.at("model.encoder"), &config)?;
    let positions = Embedding::load(&at, "embed_positions", (config.max_target_positions, n))?;
    let mut layers = Vec::new();
    for i in 0..config.decoder_layers {
        layers.push(Layer::load(&at.at(&format!("layers.{i}")), &config)?);
    }
    Ok(Box::new(Whisper {
        encoder,
        words: at.linear("embed_tokens", (config.vocab_size, n), false)?,
        word_scale: if config.scale_embedding { (n as f32).sqrt() } else { 1.0 },
        positions,
        layers,
        norm: LayerNorm::load(&at, "layer_norm", n, EPS)?,
        tokens: root.options().tokens.min(config.max_target_positions),
    }))
}

impl Encoder {
    fn load(at: &Loader<'_>, config: &Config) -> Result<Encoder> {
        let (n, bands, hidden) = (config.d_model, config.num_mel_bins, config.encoder_ffn_dim);
        let act = activation(&config.activation_function)?;
        let mut layers = Vec::new();
        for i in 0..config.encoder_layers {
            let (at, heads) = (at.at(&format!("layers.{i}")), config.encoder_attention_heads);
            layers.push(EncoderLayer {
                attention_norm: LayerNorm::load(&at, "self_attn_layer_norm", n, EPS)?,
                attention: MultiHead::load(&at.at("self_attn"), n, heads, false, false)?,
                feed_forward_norm: LayerNorm::load(&at, "final_layer_norm", n, EPS)?,
                feed_forward: FeedForward::load(&at, n, hidden, act)?,
            });
        }
        Ok(Encoder {
            convolutions: [
                Convolution::along_time(at, "conv1", (n, bands), 1)?,
                Convolution::along_time(at, "conv2", (n, n), STRIDE)?,
            ],
            activation: act,
            positions: Embedding::load(at, "embed_positions", (config.max_source_positions, n))?,
            layers,
            norm: LayerNorm::load(at, "layer_norm", n, EPS)?,
            bands,
        })
    }

    /// The rows that the decoder attends to, one for two frames.
    fn run(&self, rt: &mut Runtime, spectrogram: MatRef<'_>) -> Result<Rows> {
        // Frames as rows.
        let mut x = Rows::zeros(spectrogram.cols(), self.bands);
        for band in 0..self.bands {
            let from = spectrogram.row(band).unwrap_or_default();
            let to = x.as_mut_slice().iter_mut().skip(band).step_by(self.bands);
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
        for convolution in &self.convolutions {
            x = convolution.apply(rt, &x, (1, x.rows()), self.activation)?;
        }
        let starts = [0, x.rows()];
        self.positions.add_to(rt, &positions(&starts), &mut x)?;
        for layer in &self.layers {
            layer.apply(rt, &starts, &mut x)?;
        }
        self.norm.apply(rt, x.view()?)
    }
}

impl Layer {
    fn load(at: &Loader<'_>, config: &Config) -> Result<Layer> {
        let (n, hidden, heads) = (config.d_model, config.decoder_ffn_dim, config.decoder_attention_heads);
        let act = activation(&config.activation_function)?;
        let attention = MultiHead::load(&at.at("self_attn"), n, heads, true, false)?;
        let audio_attention = MultiHead::load(&at.at("encoder_attn"), n, heads, false, false)?;
        let tokens = at.options().tokens.min(config.max_target_positions);
        // Both have been loaded, so the heads divide n.
        let empty = |tokens| cache(at.ctx(), heads, n / heads, tokens);
        Ok(Layer {
            attention_norm: LayerNorm::load(at, "self_attn_layer_norm", n, EPS)?,
            attention,
            cache: empty(tokens)?,
            audio_norm: LayerNorm::load(at, "encoder_attn_layer_norm", n, EPS)?,
            audio_attention,
            audio: empty(config.max_source_positions)?,
            feed_forward_norm: LayerNorm::load(at, "final_layer_norm", n, EPS)?,
            feed_forward: FeedForward::load(at, n, hidden, act)?,
        })
    }

    /// The layer, in place, for tokens that follow those of the cache.
    fn apply(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()> {
        let h = self.attention_norm.apply(rt, x.view()?)?;
        let MultiHead { q, k, v, output, options } = &self.attention;
        let [q, k, v] = Linear::apply_each(rt, h.view()?, [q, k, v])?;
        self.cache.append(k.view()?, v.view()?)?;
        let attended = attend(rt, options, &Bias::default(), q.view()?, &self.cache)?;
        output.add_to(rt, attended.view()?, 1.0, x)?;

        let h = self.audio_norm.apply(rt, x.view()?)?;
        let MultiHead { q, output, options, .. } = &self.audio_attention;
        let q = q.apply(rt, h.view()?)?;
        let attended = attend(rt, options, &Bias::default(), q.view()?, &self.audio)?;
        output.add_to(rt, attended.view()?, 1.0, x)?;

        let h = self.feed_forward_norm.apply(rt, x.view()?)?;
        self.feed_forward.add_to(rt, h.view()?, x)
    }
}

impl Decoder for Whisper {
    fn vocabulary(&self) -> usize {
        self.words.outputs()
    }

    fn capacity(&self) -> usize {
        self.tokens
    }

    fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.cache.len())
    }

    fn reset(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.cache.clear());
    }

    fn run(&mut self, rt: &mut Runtime, tokens: &[u32]) -> Result<Rows> {
        let silent = self.layers.iter().any(|layer| layer.audio.is_empty());
        if silent {
            let (what, relation) = ("rows of the encoder", "must be at least");
            return Err(kvern::Error::Shape { what, got: 0, relation, want: 1 }.into());
        }
        let len = self.len();
        let mut x = self.words.rows(rt, tokens)?;
        ops::scale(&rt.ctx, x.view_mut()?, self.word_scale);
        let places: Vec<u32> = (len..len + tokens.len()).map(|place| place as u32).collect();
        self.positions.add_to(rt, &places, &mut x)?;
        for layer in &mut self.layers {
            layer.apply(rt, &mut x)?;
        }
        let h = self.norm.apply(rt, x.view()?)?;
        self.words.apply(rt, h.view()?)
    }
}

impl SpeechDecoder for Whisper {
    fn bands(&self) -> usize {
        self.encoder.bands
    }

    fn frames(&self) -> usize {
        self.encoder.positions.ids().saturating_mul(STRIDE)
    }

    fn listen(&mut self, rt: &mut Runtime, spectrogram: MatRef<'_>) -> Result<Rows> {
        equal("spectrogram.rows", spectrogram.rows(), "must equal num_mel_bins =", self.bands())?;
        let (frames, most) = (spectrogram.cols(), self.frames());
        if !(1..=most).contains(&frames) {
            let (what, relation) = ("spectrogram.cols", "must be at least 1 and at most");
            return Err(kvern::Error::Shape { what, got: frames, relation, want: most }.into());
        }
        self.reset();
        self.layers.iter_mut().for_each(|layer| layer.audio.clear());
        let audio = self.encoder.run(rt, spectrogram)?;
        for layer in &mut self.layers {
            let maps = [&layer.audio_attention.k, &layer.audio_attention.v];
            let [k, v] = Linear::apply_each(rt, audio.view()?, maps)?;
            layer.audio.append(k.view()?, v.view()?)?;
        }
        Ok(audio)
    }
}
