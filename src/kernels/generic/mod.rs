//! The algorithms, each written once against [`Simd`](super::simd::Simd).
//!
//! Everything here is `#[inline(always)]` and has no features of its own: a function that was not inlined
//! into its `#[target_feature]` entry would be compiled for the baseline and run 100 times slower.
//! Loops are plain `for` over ranges and `while`: a closure handed to an iterator of std would be compiled
//! there, without the features.

mod accumulators;
pub(super) mod attention;
pub(crate) mod codebooks;
pub(super) mod convolve;
pub(super) mod elementwise;
pub(super) mod epilogue;
pub(super) mod gemm;
pub(super) mod kv;
pub(super) mod math;
pub(super) mod norm;
pub(super) mod pack;
pub(super) mod pack_codes;
pub(super) mod quant_codes;
mod quant_dots;
pub(super) mod quant_entries;
pub(super) mod quant_entry_headers;
pub(super) mod quant_exact;
pub(super) mod quant_floats;
pub(super) mod quant_format;
pub(super) mod quant_group_headers;
pub(super) mod quant_headers;
mod quant_in_place;
pub(super) mod quant_int8;
#[cfg(target_arch = "aarch64")]
pub(super) mod quant_pairs;
#[cfg(target_arch = "aarch64")]
pub(super) mod quant_parts;
pub(super) mod quant_row;
pub(super) mod quantize;
pub(super) mod recurrence;
pub(super) mod rope;

/// Whatever the list of formats names.
pub(super) mod packings {
    pub(in crate::kernels) use super::codebooks::*;
    pub(in crate::kernels) use super::quant_codes::*;
    pub(in crate::kernels) use super::quant_entries::*;
    pub(in crate::kernels) use super::quant_entry_headers::*;
    pub(in crate::kernels) use super::quant_floats::*;
    pub(in crate::kernels) use super::quant_format::*;
    pub(in crate::kernels) use super::quant_group_headers::*;
    pub(in crate::kernels) use super::quant_headers::*;
}

pub(crate) use super::simd::{IOTA, LANES};
