
use crate::isa::Isa;

crate::kernels::set::instantiate! {
    features: [],
    token: Stub,
    isa: Isa::Stub,
    bf16_fast: || None,
    gemm: { 1: [1 2] 2: [1 2] 3: [1] },
    keys: { 1: [1] 2: [1] },
    values: { 1: [1] 2: [1] },
    quant: &quant::QUANT,
}

mod quant {
    use super::Stub;
    use crate::kernels::quant::QuantKernels;

    mod products {
        use super::Stub;

        crate::kernels::quant::instantiate_int8! {
            features: [],
            token: Stub,
            direct: 1 [],
            unpacked: 1 [1],
            halves: 1 [1],
        }
    }

    crate::kernels::quant::instantiate_widening! {
        features: [],
        token: Stub,
        exact: 1 [1],
        wide: 1 [1 2],
    }

    pub(super) static QUANT: QuantKernels =
        QuantKernels { int8: &products::INT8, widening: &WIDENING, wide: WIDE };
}
