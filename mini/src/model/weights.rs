//! The weights in f32, from which a model is packed.

use sha2::{Digest, Sha256};

use super::init::InitialWeights;
use super::shape::Shape;
use crate::hashes::hex;

/// A linear map with bias.
#[derive(Clone)]
pub struct LinearWeights {
    /// Rows are outputs: (outputs, inputs).
    pub weight: Vec<f32>,
    /// (outputs)
    pub bias: Vec<f32>,
    /// Columns of `weight`.
    pub inputs: usize,
}

impl LinearWeights {
    /// Rows of `weight`.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    fn initial(init: &mut InitialWeights, outputs: usize, inputs: usize) -> Self {
        Self { weight: init.matrix(outputs, inputs), bias: vec![0.0; outputs], inputs }
    }
}

/// Gain and bias of a LayerNorm.
#[derive(Clone)]
pub struct NormWeights {
    /// (dim)
    pub gain: Vec<f32>,
    /// (dim)
    pub bias: Vec<f32>,
}

impl NormWeights {
    fn initial(dim: usize) -> Self {
        Self { gain: vec![1.0; dim], bias: vec![0.0; dim] }
    }
}

/// One transformer block.
#[derive(Clone)]
pub struct BlockWeights {
    /// Norm before the attention.
    pub norm1: NormWeights,
    /// Queries, keys and values of all heads, one below the other: (3 dim, dim), so that one product makes
    /// all three.
    pub qkv: LinearWeights,
    /// Output projection of the attention: (dim, dim).
    pub output: LinearWeights,
    /// Norm before the feed-forward layer.
    pub norm2: NormWeights,
    /// (ffn, dim)
    pub up: LinearWeights,
    /// (dim, ffn)
    pub down: LinearWeights,
}

/// All weights of a model.
#[derive(Clone)]
pub struct Weights {
    /// (vocabulary, dim)
    pub embedding: Vec<f32>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockWeights>,
    /// (vocabulary, dim)
    pub head: LinearWeights,
}

impl Weights {
    /// Initial weights: matrices as [`InitialWeights::matrix`] draws them, in the order embedding, then block
    /// by block qkv, output, up, down, then the head; biases 0, gains 1. An embedding row counts as `dim`
    /// inputs.
    pub fn initial(shape: &Shape, seed: u64) -> Self {
        let Shape { vocabulary, dim, ffn, .. } = *shape;
        let init = &mut InitialWeights::new(seed);
        Self {
            embedding: init.matrix(vocabulary, dim),
            blocks: (0..shape.layers)
                .map(|_| BlockWeights {
                    norm1: NormWeights::initial(dim),
                    qkv: LinearWeights::initial(init, 3 * dim, dim),
                    output: LinearWeights::initial(init, dim, dim),
                    norm2: NormWeights::initial(dim),
                    up: LinearWeights::initial(init, ffn, dim),
                    down: LinearWeights::initial(init, dim, ffn),
                })
                .collect(),
            head: LinearWeights::initial(init, vocabulary, dim),
        }
    }

    /// The weights that a training begins with: the initial ones with a head of zeros, so that the first
    /// prediction is the uniform one. With a random head, a short training would spend its steps on
    /// unlearning it.
    pub fn to_train(shape: &Shape, seed: u64) -> Self {
        let mut weights = Self::initial(shape, seed);
        weights.head.weight.fill(0.0);
        weights
    }

    /// Weights of the same shape, all zero: for gradients and moments.
    pub fn zeros(shape: &Shape) -> Self {
        let Shape { vocabulary, dim, ffn, .. } = *shape;
        let linear = |outputs: usize, inputs: usize| LinearWeights {
            weight: vec![0.0; outputs * inputs],
            bias: vec![0.0; outputs],
            inputs,
        };
        let norm = || NormWeights { gain: vec![0.0; dim], bias: vec![0.0; dim] };
        let block = |_| BlockWeights {
            norm1: norm(),
            qkv: linear(3 * dim, dim),
            output: linear(dim, dim),
            norm2: norm(),
            up: linear(ffn, dim),
            down: linear(dim, ffn),
        };
        Self {
            embedding: vec![0.0; vocabulary * dim],
            blocks: (0..shape.layers).map(block).collect(),
            head: linear(vocabulary, dim),
        }
    }

    /// Number of values.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.len()).sum()
    }

    /// Every tensor once, in a fixed order.
    pub fn tensors(&self) -> Vec<&[f32]> {
        let mut all: Vec<&[f32]> = vec![&self.embedding];
        for block in &self.blocks {
            for norm in [&block.norm1, &block.norm2] {
                all.extend([&norm.gain[..], &norm.bias]);
            }
            for linear in [&block.qkv, &block.output, &block.up, &block.down] {
                all.extend([&linear.weight[..], &linear.bias]);
            }
        }
        all.extend([&self.head.weight[..], &self.head.bias]);
        all
    }

    /// Every tensor once, in the order of [`Weights::tensors`].
    pub fn tensors_mut(&mut self) -> Vec<&mut [f32]> {
        let mut all: Vec<&mut [f32]> = vec![&mut self.embedding];
        for block in &mut self.blocks {
            for norm in [&mut block.norm1, &mut block.norm2] {
                all.extend([&mut norm.gain[..], &mut norm.bias]);
            }
            for linear in [&mut block.qkv, &mut block.output, &mut block.up, &mut block.down] {
                all.extend([&mut linear.weight[..], &mut linear.bias]);
            }
        }
        all.extend([&mut self.head.weight[..], &mut self.head.bias]);
        all
    }

    /// The names of the tensors, in the order of [`Weights::tensors`].
    pub fn names(&self) -> Vec<String> {
        let mut all = vec!["embedding".to_owned()];
        for i in 0..self.blocks.len() {
            for norm in ["norm1", "norm2"] {
                all.extend(["gain", "bias"].map(|part| format!("blocks.{i}.{norm}.{part}")));
            }
            for linear in ["qkv", "output", "up", "down"] {
                all.extend(["weight", "bias"].map(|part| format!("blocks.{i}.{linear}.{part}")));
            }
        }
        all.extend(["head.weight", "head.bias"].map(str::to_owned));
        all
    }

    /// SHA-256 over the bits of all tensors in order, as little-endian f32.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for tensor in self.tensors() {
            let bytes: Vec<u8> = tensor.iter().flat_map(|x| x.to_le_bytes()).collect();
            hash.update(&bytes);
        }
        hex(&hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(seed: u64) -> String {
        Weights::initial(&Shape::DEFAULT, seed).sha256()
    }

    #[test]
    fn the_default_model_has_its_456_300_parameters() {
        assert_eq!(Weights::initial(&Shape::DEFAULT, 42).parameters(), 456_300);
        let deeper = Shape { layers: 3, dim: 64, ffn: 96, ..Shape::DEFAULT };
        let count = Weights::initial(&deeper, 42).parameters() as u64;
        assert_eq!(count, deeper.parameters());
    }

    #[test]
    fn the_weights_are_the_same_on_every_machine() {
        assert_eq!(digest(42), "f3c3a375ca2b819a27c97d5f2b4628bc3238075a113f32742f4ff475698e5610");
        assert_ne!(digest(42), digest(43));
    }

    #[test]
    fn tensors_names_and_zeros_go_together() {
        let shape = Shape { layers: 2, dim: 32, heads: 1, ffn: 32, ..Shape::DEFAULT };
        let (mut weights, zeros) = (Weights::initial(&shape, 1), Weights::zeros(&shape));
        let lengths: Vec<usize> = weights.tensors().iter().map(|tensor| tensor.len()).collect();
        assert!(zeros.tensors().iter().map(|tensor| tensor.len()).eq(lengths.iter().copied()));
        assert!(weights.tensors_mut().iter().map(|tensor| tensor.len()).eq(lengths.iter().copied()));
        assert_eq!(weights.names().len(), lengths.len());
        assert_eq!(weights.names()[5], "blocks.0.qkv.weight");
        assert!(zeros.tensors().concat().iter().all(|&x| x == 0.0));
    }
}
