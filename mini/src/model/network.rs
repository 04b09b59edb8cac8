//! The network with its weights packed in one format.

use anyhow::Result;
use kvern::{Activation, Context};

use super::linear::{Embedding, Linear};
use super::quant::Quant;
use super::shape::Shape;
use super::weights::{BlockWeights, LinearWeights, NormWeights, Weights};

/// One transformer block, packed.
pub(super) struct Block {
    pub(super) norm1: NormWeights,
    pub(super) qkv: Linear,
    pub(super) output: Linear,
    pub(super) norm2: NormWeights,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// A model in one weight format. It holds no state: any number of sessions share it.
pub struct Model {
    shape: Shape,
    quant: Quant,
    pub(super) embedding: Embedding,
    pub(super) blocks: Vec<Block>,
    pub(super) head: Linear,
}

impl Model {
    /// Packs `weights` in the format `quant`. Norms and biases stay in f32.
    ///
    /// # Errors
    /// When `dim` or `ffn` is not a multiple of the format's block, or memory cannot be allocated.
    pub fn pack(ctx: &Context, shape: Shape, weights: Weights, quant: Quant) -> Result<Self> {
        let format = quant.format();
        let pack = |weights: &LinearWeights| Linear::pack(ctx, weights, format);
        let block = |block: BlockWeights| -> Result<Block> {
            Ok(Block {
                qkv: pack(&block.qkv)?,
                output: pack(&block.output)?.residual(),
                up: pack(&block.up)?.then(Activation::Relu),
                down: pack(&block.down)?.residual(),
                norm1: block.norm1,
                norm2: block.norm2,
            })
        };
        Ok(Self {
            shape,
            quant,
            embedding: Embedding::pack(&weights.embedding, shape.dim, format)?,
            head: pack(&weights.head)?,
            blocks: weights.blocks.into_iter().map(block).collect::<Result<_>>()?,
        })
    }

    /// The model with the initial weights of `seed`.
    ///
    /// # Errors
    /// As [`Model::pack`].
    pub fn initial(ctx: &Context, shape: Shape, seed: u64, quant: Quant) -> Result<Self> {
        Self::pack(ctx, shape, Weights::initial(&shape, seed), quant)
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The weight format.
    pub fn quant(&self) -> Quant {
        self.quant
    }

    /// Bytes held by all weights, as packed: padding included.
    pub fn bytes(&self) -> usize {
        self.embedding.bytes() + self.bytes_outside_the_table()
    }

    /// Bytes of weights that one decoded token reads: everything but the embedding table, of which it reads
    /// one row.
    ///
    /// # Errors
    /// When they exceed the address space.
    pub fn bytes_streamed(&self) -> Result<usize> {
        Ok(self.embedding.row_bytes()? + self.bytes_outside_the_table())
    }

    fn bytes_outside_the_table(&self) -> usize {
        let norm = |norm: &NormWeights| size_of_val(&norm.gain[..]) + size_of_val(&norm.bias[..]);
        let block = |block: &Block| {
            let linears = [&block.qkv, &block.output, &block.up, &block.down];
            norm(&block.norm1) + norm(&block.norm2) + linears.map(Linear::bytes).iter().sum::<usize>()
        };
        self.head.bytes() + self.blocks.iter().map(block).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    fn model(quant: Quant) -> Model {
        Model::initial(&Context::serial(), Shape::DEFAULT, 42, quant).unwrap()
    }

    #[test]
    fn packed_sizes_keep_their_limits() {
        let [fp32, int8, int4] = Quant::ALL.map(|quant| model(quant).bytes());
        // The head is padded from 1004 to 1008 columns.
        assert_eq!(fp32, 4 * (456_300 + 4 * 128));
        assert!(int8 as f64 / MIB <= 0.50, "{int8}");
        assert!(int4 as f64 / MIB <= 0.35, "{int4}");
    }

    #[test]
    fn a_decoded_token_streams_all_but_the_rest_of_the_table() {
        let fp32 = model(Quant::Fp32);
        assert_eq!(fp32.bytes_streamed().unwrap(), fp32.bytes() - 4 * 1003 * 128);
        let int4 = model(Quant::Int4);
        assert_eq!(int4.bytes_streamed().unwrap(), int4.bytes() - 1008 * 72 + 72);
        assert_eq!(int4.quant(), Quant::Int4);
    }

    #[test]
    fn a_ragged_width_cannot_be_quantized() {
        let shape = Shape { dim: 80, heads: 2, ..Shape::DEFAULT };
        let ctx = Context::serial();
        assert!(Model::initial(&ctx, shape, 1, Quant::Fp32).is_ok());
        assert!(Model::initial(&ctx, shape, 1, Quant::Int8).is_err());
    }
}
