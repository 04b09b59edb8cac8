//! A stack of layers between an embedding and the product of the vocabulary, for decoders whose layers are
//! of several kinds.

use crate::engine::{Decoder, Runtime};
use crate::error::Result;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::ops;

/// A layer of a [`Stack`].
pub trait Layer {
    /// Adds what the layer computes to the stream `x`, one token a row, and keeps what later tokens need.
    ///
    /// **Errors**: those of the library's calls.
    fn add_to(&mut self, rt: &mut Runtime, x: &mut Rows) -> Result<()>;

    /// Empties caches and states.
    fn reset(&mut self);
}

/// What a stack is loaded with.
#[derive(Debug, Clone)]
pub struct StackOptions<'a> {
    /// Where all but the head lies: `model`.
    pub root: &'a str,
    /// The embedding, below the root: `embed_tokens`.
    pub embedding: &'a str,
    /// The norm after the last layer, below the root: `norm`.
    pub norm: &'a str,
    /// Added to the gain of that norm.
    pub gain_offset: f32,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Elements of a row of the stream.
    pub n: usize,
    /// Layers.
    pub layers: usize,
    /// Whether the embedding is the head; where it is absent, a checkpoint without `lm_head.weight` is tied.
    pub tied: Option<bool>,
    /// Epsilon of the norm.
    pub eps: f32,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// Factor of the logits.
    pub logit_scale: f32,
}

impl StackOptions<'_> {
    /// The usual names, without factors.
    pub fn new(vocabulary: usize, n: usize, layers: usize, eps: f32) -> StackOptions<'static> {
        StackOptions {
            root: "model",
            embedding: "embed_tokens",
            norm: "norm",
            gain_offset: 0.0,
            vocabulary,
            n,
            layers,
            tied: None,
            eps,
            embedding_scale: 1.0,
            logit_scale: 1.0,
        }
    }
}

/// `logits = W_head rms_norm(layers(embedding[tokens]))`, the layers one after the other.
#[derive(Debug)]
pub struct Stack<L> {
    embedding: Linear, // (vocabulary, n)
    layers: Vec<L>,
    norm: Vec<f32>,       // (n)
    head: Option<Linear>, // (vocabulary, n); `None` for the embedding
    eps: f32,
    embedding_scale: f32,
    logit_scale: f32,
    capacity: usize,
    len: usize,
}

impl<L: Layer> Stack<L> {
    /// Loads the stack, and its layers by `layer`, which gets the place `layers.<i>` and i.
    ///
    /// **Errors**: as [`Loader::linear`] and [`Loader::gain`]; those of `layer`.
    pub fn load(
        root: &Loader<'_>,
        options: &StackOptions<'_>,
        mut layer: impl FnMut(&Loader<'_>, usize) -> Result<L>,
    ) -> Result<Stack<L>> {
        let (model, shape) = (root.at(options.root), (options.vocabulary, options.n));
        let embedding = model.linear(options.embedding, shape, false)?;
        let mut layers = Vec::new();
        for i in 0..options.layers {
            layers.push(layer(&model.at(&format!("layers.{i}")), i)?);
        }
        let mut norm = model.gain(options.norm, options.n)?;
        norm.iter_mut().for_each(|gain| *gain += options.gain_offset);
        let tied = options.tied.unwrap_or_else(|| !root.has("lm_head.weight"));
        let head = (!tied).then(|| root.linear("lm_head", shape, false)).transpose()?;
        Ok(Stack {
            embedding,
            layers,
            norm,
            head,
            eps: options.eps,
            embedding_scale: options.embedding_scale,
            logit_scale: options.logit_scale,
            capacity: root.options().tokens,
            len: 0,
        })
    }
}

impl<L: Layer> Decoder for Stack<L> {
    fn vocabulary(&self) -> usize {
        self.embedding.outputs()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn len(&self) -> usize {
        self.len
    }

    fn reset(&mut self) {
        self.layers.iter_mut().for_each(Layer::reset);
        self.len = 0;
    }

    fn run(&mut self, rt: &mut Runtime, tokens: &[u32]) -> Result<Rows> {
        let mut x = self.embedding.rows(rt, tokens)?;
        ops::scale(&rt.ctx, x.view_mut()?, self.embedding_scale);
        for layer in &mut self.layers {
            layer.add_to(rt, &mut x)?;
        }
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        let mut logits = self.head.as_ref().unwrap_or(&self.embedding).apply(rt, h.view()?)?;
        ops::scale(&rt.ctx, logits.view_mut()?, self.logit_scale);
        self.len += tokens.len();
        Ok(logits)
    }
}
