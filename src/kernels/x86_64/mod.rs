//! x86-64: one file for each tier.

mod avx2;
mod avx512;
mod avx512_bf16;
mod narrow;
mod token;
mod transpose;
#[cfg(all(test, target_os = "linux"))]
#[path = "../../../tests/avx_vnni/products.rs"]
mod vnni_products;

use crate::isa::{Isa, has_avx512_vnni};
use crate::kernels::set::KernelSet;

/// The kernels of a tier that this machine has.
pub(super) fn kernels(isa: Isa) -> Option<&'static KernelSet> {
    match isa {
        Isa::Avx2 => Some(&avx2::KERNELS),
        Isa::AvxVnni => Some(&avx2::VNNI_KERNELS),
        Isa::Avx512 if has_avx512_vnni() => Some(&avx512::VNNI_KERNELS),
        Isa::Avx512 => Some(&avx512::KERNELS),
        _ => None,
    }
}

/// The kernels of a tier that this machine has, without dot product instructions.
pub(super) fn kernels_without_dots(isa: Isa) -> Option<&'static KernelSet> {
    match isa {
        Isa::AvxVnni => Some(&avx2::VNNI_WITHOUT_DOTS),
        Isa::Avx512 => Some(&avx512::KERNELS),
        _ => kernels(isa),
    }
}
