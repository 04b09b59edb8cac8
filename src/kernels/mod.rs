//! The kernels: algorithms in [`generic`], instruction sets beside it, and the table that joins them.
//!
//! ```text
//! driver (safe) -> checked entry (entry/, safe) -> instantiation for an ISA (#[target_feature])
//!                                                                  -> generic algorithm<Isa> (inlined)
//! ```
//! A new instruction set is a row in `isa.rs`, a file that implements [`simd::Simd`] and instantiates the
//! algorithms and their tables ([`set`], [`quant`]), and an arm where the kernels of a tier are chosen
//! ([`KernelSet::for_isa`]); CONTRIBUTING.md has the steps. Dispatch happens once, when a context is made.

// Indices keep the shape of a tile in view, and iterators would be compiled outside of the features.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod entry;
pub(crate) mod formats;
mod generic;
mod id;
mod lanes;
mod quant;
mod scalar;
mod set;
mod simd;
mod simd_bytes;
#[cfg(test)]
#[path = "../../tests/stub_tier/simd.rs"]
mod stub;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use entry::kv::{CodeBits, KeyCodes, Prefetch, ValueCodes};
pub(crate) use entry::operands::{
    AData, APanels, BPanels, COut, Elements, FusedEpilogue, Operand, Panel, TileCall,
};
pub(crate) use entry::quant::{ActivationRows, RowPanels, Unpacked};
pub(crate) use entry::recurrence::{RowsOf, Rule, TokenRows};
pub(crate) use entry::rows::{Adjust, Binary, MAX_SCORE_ROWS, Norm, NormKind, Pairs};
pub(crate) use generic::LANES;
pub(crate) use generic::codebooks;
pub(crate) use generic::convolve::MAX_TAPS;
pub(crate) use generic::quant_codes::{E2m1, Float8Shape, NonLinear, Plane, Table};
pub(crate) use generic::quant_floats::{E4m3, E5m2, Float8};
pub(crate) use generic::quant_format::{Factors, Fields, ScaleKind};
pub(crate) use generic::quant_int8::MAX_PANELS;
pub(crate) use generic::quantize::BLOCK;
pub(crate) use id::KernelId;
pub(crate) use quant::{Packing, Shape};
pub(crate) use set::KernelSet;

use crate::isa::Isa;

#[cfg(target_arch = "aarch64")]
use aarch64 as native;
#[cfg(target_arch = "x86_64")]
use x86_64 as native;

/// Architectures without kernels of their own.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
mod native {
    use super::{Isa, KernelSet};

    pub(super) fn kernels(_: Isa) -> Option<&'static KernelSet> {
        None
    }

    pub(super) use kernels as kernels_without_dots;
}

impl KernelSet {
    /// The kernels of `isa`, `None` where the machine cannot run them.
    pub(crate) fn for_isa(isa: Isa) -> Option<&'static KernelSet> {
        match isa {
            Isa::Scalar => Some(&scalar::KERNELS),
            isa if isa.is_available() => native::kernels(isa),
            _ => None,
        }
    }

    /// The same tier without dot product instructions.
    pub(crate) fn without_dots(&'static self) -> &'static KernelSet {
        native::kernels_without_dots(self.isa).unwrap_or(self)
    }

    /// The portable kernels, which every machine has.
    pub(crate) fn scalar() -> &'static KernelSet {
        &scalar::KERNELS
    }
}
