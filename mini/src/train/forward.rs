//! The forward pass over a batch of sequences. It stores the activations that the backward pass reads.

use anyhow::Result;
use kvern::ops::{self, RopeTable};
use kvern::{Activation, MatMut, MatRef};

use super::attention::{self, Heads};
use super::products::Products;
use crate::model::{NORM_EPSILON, NormWeights, Shape, Weights};

/// Stored activations of one block; rows are the tokens of all sequences.
pub(super) struct BlockTape {
    pub input: Vec<f32>,         // (rows, dim)
    pub norm1: Vec<f32>,         // (rows, dim)
    pub qkv: Vec<f32>,           // (rows, 3 dim), rotated
    pub probabilities: Vec<f32>, // (sequences, heads, tokens, tokens)
    pub attended: Vec<f32>,      // (rows, dim)
    pub middle: Vec<f32>,        // (rows, dim)
    pub norm2: Vec<f32>,         // (rows, dim)
    pub hidden: Vec<f32>,        // (rows, ffn), after ReLU
}

/// Stored activations of one forward pass.
pub(super) struct Tape {
    pub heads: Heads,
    pub blocks: Vec<BlockTape>,
    pub output: Vec<f32>, // (rows, dim)
    pub logits: Vec<f32>, // (rows, vocabulary); then their gradient
}

impl Tape {
    pub fn new(shape: &Shape, sequences: usize, tokens: usize) -> Self {
        let heads = Heads { tokens, heads: shape.heads, dim: shape.dim };
        let rows = sequences * tokens;
        let of_width = |width: usize| vec![0f32; rows * width];
        let block = |_| BlockTape {
            input: of_width(shape.dim),
            norm1: of_width(shape.dim),
            qkv: of_width(3 * shape.dim),
            probabilities: vec![0.0; sequences * heads.probabilities()],
            attended: of_width(shape.dim),
            middle: of_width(shape.dim),
            norm2: of_width(shape.dim),
            hidden: of_width(shape.ffn),
        };
        Self {
            heads,
            blocks: (0..shape.layers).map(block).collect(),
            output: of_width(shape.dim),
            logits: of_width(shape.vocabulary),
        }
    }
}

/// Fills the tape with the logits of `ids`: whole sequences, one after the other.
pub(super) fn forward(
    products: &mut Products<'_>,
    rope: &RopeTable,
    weights: &Weights,
    ids: &[u32],
    tape: &mut Tape,
) -> Result<()> {
    let heads = tape.heads;
    let (rows, dim) = (ids.len(), heads.dim);
    let x = &mut tape.output;
    let table = MatRef::dense(&weights.embedding, weights.embedding.len() / dim.max(1), dim)?;
    ops::embedding(products.ctx, table, ids, MatMut::dense(x, rows, dim)?)?;
    for (block, kept) in weights.blocks.iter().zip(&mut tape.blocks) {
        kept.input.copy_from_slice(x);
        norm(products, &block.norm1, x, &mut kept.norm1)?;
        products.forward(&block.qkv, &kept.norm1, &mut kept.qkv, 0.0, Activation::Identity)?;
        let sequences = kept
            .qkv
            .chunks_exact_mut(heads.tokens * 3 * dim)
            .zip(kept.probabilities.chunks_exact_mut(heads.probabilities()))
            .zip(kept.attended.chunks_exact_mut(heads.tokens * dim));
        for ((qkv, probabilities), out) in sequences {
            attention::rotate(products, rope, heads, qkv)?;
            attention::forward(products, heads, qkv, probabilities, out)?;
        }
        products.forward(&block.output, &kept.attended, x, 1.0, Activation::Identity)?;

        kept.middle.copy_from_slice(x);
        norm(products, &block.norm2, x, &mut kept.norm2)?;
        products.forward(&block.up, &kept.norm2, &mut kept.hidden, 0.0, Activation::Relu)?;
        products.forward(&block.down, &kept.hidden, x, 1.0, Activation::Identity)?;
    }
    products.forward(&weights.head, x, &mut tape.logits, 0.0, Activation::Identity)
}

fn norm(products: &Products<'_>, weights: &NormWeights, x: &[f32], y: &mut [f32]) -> Result<()> {
    let dim = weights.gain.len();
    let rows = x.len() / dim.max(1);
    let (x, y) = (MatRef::dense(x, rows, dim)?, MatMut::dense(y, rows, dim)?);
    Ok(ops::layer_norm(products.ctx, x, &weights.gain, &weights.bias, NORM_EPSILON, y)?)
}
