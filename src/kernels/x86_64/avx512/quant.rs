//! The quantised products of AVX-512, with and without the dot instructions: which tiles there are.

use crate::kernels::quant::QuantKernels;
use crate::kernels::x86_64::token::tier;

/// Without the dot instructions.
mod maddubs {
    use crate::kernels::x86_64::token::tier;

    tier! {
        avx512 => crate::kernels::quant::instantiate_int8,
        direct: 2 [2],
        unpacked: 2 [1 2 3 4],
        halves: 2 [1 2],
    }
}

/// With the dot instructions.
mod vnni {
    use crate::kernels::x86_64::token::tier;

    tier! {
        avx512_vnni => crate::kernels::quant::instantiate_int8,
        direct: 2 [2 3 4],
        unpacked: 2 [1 2 3 4 5 6],
        halves: 2 [1 2 3 4],
    }
}

tier! {
    avx512 => crate::kernels::quant::instantiate_widening,
    exact: 4 [1 2 3 4],
    wide: 4 [1 2 3 4 5 6],
}

pub(super) static QUANT: QuantKernels =
    QuantKernels { int8: &maddubs::INT8, widening: &WIDENING, wide: WIDE };
pub(super) static VNNI: QuantKernels = QuantKernels { int8: &vnni::INT8, widening: &WIDENING, wide: WIDE };
