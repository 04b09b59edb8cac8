//! The quantised products of AVX2: which tiles there are.

use super::Avx2;
use crate::kernels::quant::QuantKernels;

mod maddubs {
    use super::Avx2;

    crate::kernels::quant::instantiate_int8! {
        token: Avx2,
        attributes: [target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt")],
        direct: 1 [1 2],
        panel: 1 [1 2 3],
        halves: 1 [1 2],
    }
}

crate::kernels::quant::instantiate_widening! {
    token: Avx2,
    attributes: [target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt")],
    exact: 2 [1 2],
    wide: 1 [1 2 3 4 5 6],
}

pub(super) static QUANT: QuantKernels =
    QuantKernels { int8: &maddubs::INT8, widening: &WIDENING, wide: WIDE };
