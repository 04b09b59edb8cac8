//! Quantised weights: GGUF block formats, one packed layout, products that dequantise in registers.
//!
//! ```text
//! f32 rows --quantize--> GGUF blocks --pack--> PackedWeights --multiply--> C
//!                            \--dequantize--> f32 rows
//! GPTQ, AWQ, own codes --import--> GroupWise --pack--> PackedWeights
//! ```
//! [`quantize`], [`dequantize`] and [`PackedWeights`] know every [`WeightFormat`]. Weights that other tools
//! quantised in groups come in through [`import`] and [`PackedWeights::from_groups_with`]. Products that share
//! their activations (q, k, v; gate, up) run together: [`multiply_many`], [`PackedWeights::multiply_gated`].
//!
//! Two ways to compute ([`Compute`]): `Int8` quantises the activations too (fast, the default), `F32` uses
//! them as they are (exact weights, exact activations). Both give the same bits on every machine.

mod blob;
mod codec;
mod driver;
mod format;
pub mod import;
mod item;
mod layout;
mod packed;
mod plan;
mod quantize;
#[doc(hidden)]
pub mod reference;

pub use driver::{Product, multiply_many, workspace_bytes_many};
pub use format::WeightFormat;
pub use packed::PackedWeights;
pub use quantize::{dequantize, quantize};

/// How a product with quantised weights treats its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum Compute {
    /// Activations are rounded to int8 in blocks of 32 along k (`d = absmax / 127`), dot products of blocks
    /// are exact integers, and blocks are chained by FMA in ascending order; a format's minimum follows each
    /// block as a second FMA, with the block's sum of activations. Against the exact product of
    /// the quantised weights the error is at most `sum over blocks of d/2 * sum |w|` (plus f32 rounding):
    /// about 0.4 % of the block's largest activation for each weight. A NaN or infinity in a block of
    /// activations makes every output of its row NaN.
    #[default]
    Int8 = 0,
    /// Weights are widened exactly in registers and multiplied with the f32 activations: one FMA chain over
    /// k ascending, the same bits as dequantising first and multiplying with [`matmul`](crate::matmul).
    F32 = 1,
}
