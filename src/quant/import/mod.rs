//! Weights that other tools quantised and that are in no GGUF file.
//!
//! In groups along k, in one neutral form:
//! ```text
//! GPTQ tensors --from_gptq-->  GroupWise: codes, a scale and a zero (or a minimum) for each group of a row,
//! AWQ tensors  --from_awq--->             and the order in which k is stored
//! own codes    --symmetric / with_zeros / affine-->
//! ```
//! As floats of 8 bits with scales: [`Float8`] and [`Mxfp8`].

mod awq;
mod float8;
mod gptq;
mod group_wise;
mod words;

pub use awq::Awq;
#[cfg(feature = "capi")]
pub(crate) use float8::tiles as float8_tiles;
pub use float8::{Float8, Float8Kind, Mxfp8, quantize_float8, quantize_mxfp8};
#[cfg(feature = "capi")]
pub(crate) use gptq::gptq_words;
pub use gptq::{Gptq, StoredZeros};
pub(super) use group_wise::HALF;
pub use group_wise::{GroupRow, GroupWise};
