//! The kernels: algorithms in [`generic`], instruction sets beside it, and the table that joins them.
//!
//! ```text
//! driver (safe) -> checked entry (entry/, safe) -> instantiation for an ISA (#[target_feature])
//!                                                                  -> generic algorithm<Isa> (inlined)
//! ```
//! A new ISA is one file that implements [`simd::Simd`] and calls [`instantiate!`]; the line in
//! [`KernelSet::for_isa`] makes it selectable. Dispatch happens once, when a context is made.

// Indices keep the shape of a tile in view, and iterators would be compiled outside of the features.
#![allow(clippy::needless_range_loop)]

mod entry;
mod generic;
mod quant;
mod scalar;
mod set;
mod simd;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use entry::gemm::{APanels, BPanels, COut, Elements, FusedEpilogue, Operand, Panel};
pub(crate) use entry::kv::{Bits, KeyCodes, Prefetch, ValueCodes};
pub(crate) use entry::quant::{ActivationRows, Stripes, Unpacked};
pub(crate) use entry::rows::{Adjust, Binary, MOST_ROWS, Pairs, Unary};
pub(crate) use generic::LANES;
pub(crate) use generic::quant_int8::MAX_STRIPES;
pub(crate) use generic::quantize::BLOCK;
pub(crate) use quant::Packing;
pub(crate) use set::KernelSet;

use crate::isa::Isa;
use std::sync::OnceLock;

impl KernelSet {
    /// The kernels of `isa`, `None` where the machine cannot run them. The CPU is examined once.
    pub(crate) fn for_isa(isa: Isa) -> Option<&'static KernelSet> {
        static FOUND: OnceLock<[Option<&'static KernelSet>; 3]> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            Isa::ALL.map(|isa| match isa {
                Isa::Scalar => scalar::kernel_set(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => x86_64::avx2::kernel_set(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => x86_64::avx512::vnni_kernel_set().or_else(x86_64::avx512::kernel_set),
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx2 | Isa::Avx512 => None,
            })
        });
        Isa::ALL.iter().position(|&i| i == isa).and_then(|i| found[i])
    }

    /// The same tier without dot product instructions.
    pub(crate) fn without_dots(&'static self) -> &'static KernelSet {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86_64::avx512::kernel_set().unwrap_or(self),
            _ => self,
        }
    }

    /// The portable kernels, which every machine has.
    pub(crate) fn scalar() -> &'static KernelSet {
        &scalar::KERNELS
    }
}

/// The ids of the f32 product kernels, by tier: what a stored packed matrix may name.
pub(crate) const GEMM_IDS: [&str; 3] = ["scalar-f32-2x16", "avx2-f32-6x16", "avx512-f32-6x64"];
