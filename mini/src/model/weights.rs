//! The weights in f32, as they are initialised: the source that the packed
//! model is made from.

use super::Shape;
use super::init::InitialWeights;

/// A linear map with bias.
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
pub struct BlockWeights {
    /// Norm before the attention.
    pub norm1: NormWeights,
    /// Queries, keys and values of all heads, one below the other:
    /// (3 dim, dim), so that one product makes all three.
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
pub struct Weights {
    /// (vocabulary, dim)
    pub embedding: Vec<f32>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockWeights>,
    /// (vocabulary, dim)
    pub head: LinearWeights,
}

impl Weights {
    /// Initial weights: matrices as [`InitialWeights::matrix`] draws them, in
    /// the order embedding, then block by block qkv, output, up, down, then
    /// the head; biases 0, gains 1. An embedding row counts as `dim` inputs.
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

    /// Number of values.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.len()).sum()
    }

    /// Every tensor once.
    fn tensors(&self) -> Vec<&[f32]> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ModelArgs;
    use crate::corpus::sha256_hex;

    fn digest(seed: u64) -> String {
        let weights = Weights::initial(&ModelArgs::default().shape(), seed);
        let tensors = weights.tensors();
        let bytes: Vec<u8> =
            tensors.iter().flat_map(|tensor| tensor.iter().flat_map(|x| x.to_le_bytes())).collect();
        sha256_hex(&bytes)
    }

    #[test]
    fn the_default_model_has_its_456_300_parameters() {
        let args = ModelArgs::default();
        assert_eq!(Weights::initial(&args.shape(), 42).parameters(), 456_300);
        let deeper = ModelArgs { layers: 3, dim: 64, ffn: 96, ..args };
        let count = Weights::initial(&deeper.shape(), 42).parameters() as u64;
        assert_eq!(count, deeper.parameters(1004));
    }

    #[test]
    fn the_weights_are_the_same_on_every_machine() {
        assert_eq!(digest(42), "f3c3a375ca2b819a27c97d5f2b4628bc3238075a113f32742f4ff475698e5610");
        assert_ne!(digest(42), digest(43));
    }
}
