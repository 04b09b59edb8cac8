//! The network: a pre-norm decoder without a final norm.
//!
//! ```text
//! x = embedding[token]
//! x = x + Wo attention(rope(Wq ln1(x)), rope(Wk ln1(x)), Wv ln1(x))   in each block
//! x = x + W2 relu(W1 ln2(x))                                          in each block
//! logits = Whead x
//! ```
//! Every product has a bias; positions are rotated in halves of a head with
//! base 10000. [`Weights`] are the f32 source, [`Model`] is what the kernels
//! read, and a [`Session`] runs it.

mod forward;
mod init;
mod linear;
mod weights;

use anyhow::Result;
use kvern::quant::WeightFormat;
use kvern::{Activation, Context};

use crate::cli::Quant;
pub use forward::Session;
pub(crate) use forward::{NORM_EPSILON, ROPE_BASE};
pub use init::InitialWeights;
pub use linear::{Embedding, Linear};
pub use weights::{BlockWeights, LinearWeights, NormWeights, Weights};

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Different tokens.
    pub vocabulary: usize,
    /// Width of the model.
    pub dim: usize,
    /// Attention heads, each with keys and values of its own.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Longest context in tokens.
    pub context: usize,
}

/// One transformer block, packed.
struct Block {
    norm1: NormWeights,
    qkv: Linear,
    output: Linear,
    norm2: NormWeights,
    up: Linear,
    down: Linear,
}

/// A model in one weight format. It holds no state: any number of sessions
/// share it.
pub struct Model {
    shape: Shape,
    quant: Quant,
    embedding: Embedding,
    blocks: Vec<Block>,
    head: Linear,
}

impl Model {
    /// Packs `weights` in the format `quant`. Norms and biases stay in f32.
    ///
    /// # Errors
    /// When the width or that of the feed-forward layer is no multiple of the
    /// format's block, or memory is short.
    pub fn pack(ctx: &Context, shape: Shape, weights: Weights, quant: Quant) -> Result<Self> {
        let format = match quant {
            Quant::Fp32 => None,
            Quant::Int8 => Some(WeightFormat::Q8_0),
            Quant::Int4 => Some(WeightFormat::Q4_0),
        };
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

    /// Bytes of weights that one decoded token reads: everything but the
    /// embedding table, of which it reads one row.
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
    use crate::cli::ModelArgs;

    const MIB: f64 = (1 << 20) as f64;

    fn model(quant: Quant) -> Model {
        Model::initial(&Context::serial(), ModelArgs::default().shape(), 42, quant).unwrap()
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
    fn a_ragged_width_cannot_be_quantised() {
        let shape = ModelArgs { dim: 80, heads: 2, ..ModelArgs::default() }.shape();
        let ctx = Context::serial();
        assert!(Model::initial(&ctx, shape, 1, Quant::Fp32).is_ok());
        assert!(Model::initial(&ctx, shape, 1, Quant::Int8).is_err());
    }
}
