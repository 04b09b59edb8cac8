//! The quantised products of AVX-512, with and without the dot instructions: which tiles there are.

use super::Avx512;
use crate::kernels::QuantKernels;

/// Without the dot instructions.
mod plain {
    use super::Avx512;

    crate::kernels::quant::dots! {
        token: Avx512,
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

    crate::kernels::quant::dots! {
        token: Avx512Vnni,
        attributes: [target_feature(
            enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt"
        )],
        direct: 2 [1 2 3 4],
        panel: 2 [1 2 3 4 5 6],
        halves: 2 [1 2 3 4],
    }
}

crate::kernels::quant::widening! {
    token: Avx512,
    attributes: [target_feature(
        enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt"
    )],
    exact: 4 [1 2 3 4],
    wide: 4 [1 2 3 4 5 6],
}

pub(super) static QUANT: QuantKernels = QuantKernels { dots: &plain::DOTS, widening: &WIDENING, wide: WIDE };
pub(super) static VNNI: QuantKernels = QuantKernels { dots: &vnni::DOTS, widening: &WIDENING, wide: WIDE };
