//! The quantised products of AVX2, with and without AVX-VNNI: which tiles there are.

use crate::kernels::quant::QuantKernels;
use crate::kernels::x86_64::token::tier;

/// Without the dot instruction.
mod maddubs {
    use crate::kernels::x86_64::token::tier;

    tier! {
        avx2 => crate::kernels::quant::instantiate_int8,
        direct: 1 [2],
        unpacked: 1 [1 2 3],
        halves: 1 [1 2],
    }
}

/// With the dot instruction.
mod vnni {
    use crate::kernels::x86_64::token::tier;

    tier! {
        avx_vnni => crate::kernels::quant::instantiate_int8,
        direct: 1 [2 3],
        unpacked: 1 [1 2 3],
        halves: 1 [1 2],
    }
}

tier! {
    avx2 => crate::kernels::quant::instantiate_widening,
    exact: 2 [1 2],
    wide: 1 [1 2 3 4 5 6],
}

pub(super) static QUANT: QuantKernels =
    QuantKernels { int8: &maddubs::INT8, widening: &WIDENING, wide: WIDE };
pub(super) static VNNI: QuantKernels = QuantKernels { int8: &vnni::INT8, widening: &WIDENING, wide: WIDE };
