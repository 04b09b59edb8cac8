//! The quantised products of AVX-512, with and without the dot instructions: which tiles there are.

use super::Avx512Base;
use crate::kernels::quant::QuantKernels;

/// Without the dot instructions.
mod maddubs {
    use super::Avx512Base;

    crate::kernels::quant::instantiate_int8! {
        token: Avx512Base,
        attributes: [target_feature(
            enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt"
        )],
        direct: 2 [1 2],
        panel: 2 [1 2 3 4],
        halves: 2 [1 2],
    }
}

/// With the dot instructions.
mod vnni {
    use crate::kernels::x86_64::avx512::Avx512Vnni;

    crate::kernels::quant::instantiate_int8! {
        token: Avx512Vnni,
        attributes: [target_feature(
            enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt"
        )],
        direct: 2 [1 2 3 4],
        panel: 2 [1 2 3 4 5 6],
        halves: 2 [1 2 3 4],
    }
}

crate::kernels::quant::instantiate_widening! {
    token: Avx512Base,
    attributes: [target_feature(
        enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt"
    )],
    exact: 4 [1 2 3 4],
    wide: 4 [1 2 3 4 5 6],
}

pub(super) static QUANT: QuantKernels =
    QuantKernels { int8: &maddubs::INT8, widening: &WIDENING, wide: WIDE };
pub(super) static VNNI: QuantKernels = QuantKernels { int8: &vnni::INT8, widening: &WIDENING, wide: WIDE };
