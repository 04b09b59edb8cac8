//! Quantised weights: GGUF block formats, one packed layout, products that dequantise in registers.
//!
//! ```text
//! f32 rows --quantize--> GGUF blocks --pack--> PackedWeights --multiply--> C
//!                            \--dequantize--> f32 rows
//! GPTQ, AWQ, own codes --import--> GroupWise --pack--> PackedWeights
//! floats of 8 bits --from_float8_on, from_mxfp8_on--> PackedWeights
//! ```
//! [`quantize`], [`dequantize`] and [`PackedWeights`] know every [`WeightFormat`]. Weights that other tools
//! quantised in groups come in through [`import`] and [`PackedWeights::from_groups_on`]. Products that share
//! their activations (q, k, v; gate, up) run together: [`multiply_many`], [`PackedWeights::multiply_gated`];
//! the experts that a router chose, too: [`multiply_experts`]; and heads with weights of their own:
//! [`multiply_heads`].
//!
//! Two ways to compute ([`Compute`]): `Int8` quantises the activations too (fast, the default), `F32` uses
//! them as they are (exact weights, exact activations). Both give the same bits on every machine.

mod blob;
mod codec;
mod compute;
mod driver;
mod experts;
mod format;
mod heads;
pub mod import;
mod item;
mod layout;
mod layout_groups;
mod pack_panel;
mod packed;
mod packed_blocks;
mod packed_groups;
mod plan;
mod quantize;
#[doc(hidden)]
pub mod reference;
mod rows;

pub use compute::Compute;
#[cfg(feature = "capi")]
pub(crate) use driver::workspace_bytes_each;
pub use driver::{Product, multiply_many, workspace_bytes_many};
pub use experts::{Expert, ExpertOptions, experts_workspace_bytes, multiply_experts};
#[cfg(feature = "capi")]
pub(crate) use experts::{experts_bytes_of, multiply_experts_of};
pub use format::WeightFormat;
pub use heads::{HeadStrides, heads_workspace_bytes, multiply_heads};
#[cfg(feature = "capi")]
pub(crate) use heads::{heads_bytes_of, multiply_heads_of};
pub use packed::PackedWeights;
pub use quantize::{dequantize, quantize};
pub use rows::QuantizedRows;
