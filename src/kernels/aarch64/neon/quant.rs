//! The quantised products of NEON: which tiles there are.

use crate::kernels::aarch64::token::tier;
use crate::kernels::quant::QuantKernels;

/// Without dot instructions: each sum of 16 bits takes 8 registers.
mod widening {
    use crate::kernels::aarch64::token::tier;

    tier! {
        neon => crate::kernels::quant::instantiate_int8,
        direct: 1 [2],
        unpacked: 1 [1 2],
        halves: 1 [1],
    }
}

/// `sdot`.
mod dotprod {
    use crate::kernels::aarch64::token::tier;

    tier! {
        neon_dotprod => crate::kernels::quant::instantiate_int8,
        direct: 1 [2 3 4],
        unpacked: 1 [1 2 3 4],
        halves: 1 [1 2],
    }
}

/// `usmmla`.
mod i8mm {
    use crate::kernels::aarch64::token::tier;

    tier! {
        neon_i8mm => crate::kernels::quant::instantiate_int8,
        tiles: quant_pairs,
        direct: 1 [2 3 4],
        unpacked: 1 [1 2 3 4 5 6],
        halves: 1 [1 2],
    }

    /// What widens weights is that of the other tiers, but for the order of unpacked codes.
    pub(super) mod widening {
        use crate::kernels::aarch64::token::tier;
        use crate::kernels::formats::for_each_packing;
        use crate::kernels::generic::quant_codes::*;
        use crate::kernels::generic::quant_exact::Expand;
        use crate::kernels::generic::quant_format::*;
        use crate::kernels::generic::quant_headers::*;
        use crate::kernels::generic::quant_pairs;
        use crate::kernels::quant::{FORMATS, WideningKernels, table};
        use crate::kernels::simd::Simd;
        use std::marker::PhantomData;

        macro_rules! unpacking {
            (features: [$($feature:tt)*], token: $S:ty,) => {
                /// # Safety
                /// - the CPU has the features; and as the algorithm says.
                $(#[target_feature(enable = $feature)])*
                #[inline(never)]
                unsafe fn expand<F: Format>(e: &Expand) {
                    // SAFETY: handed on to the caller, both parts.
                    unsafe { quant_pairs::expand::<$S, F>(<$S>::assume(), e) }
                }
            };
        }
        tier! { neon_i8mm => unpacking, }

        struct Of<F>(PhantomData<F>);

        impl<F: Format> Of<F> {
            const KERNELS: WideningKernels =
                WideningKernels { expand: expand::<F>, ..super::super::Of::<F>::KERNELS };
        }

        pub(in crate::kernels) static WIDENING: [WideningKernels; FORMATS] = for_each_packing!(table);
    }
}

tier! {
    neon => crate::kernels::quant::instantiate_widening,
    exact: 1 [1 2 3 4],
    wide: 1 [1 2 3 4 5 6],
}

pub(super) static QUANT: QuantKernels =
    QuantKernels { int8: &widening::INT8, widening: &WIDENING, wide: WIDE };
pub(super) static DOTPROD: QuantKernels =
    QuantKernels { int8: &dotprod::INT8, widening: &WIDENING, wide: WIDE };
pub(super) static I8MM: QuantKernels =
    QuantKernels { int8: &i8mm::INT8, widening: &i8mm::widening::WIDENING, wide: WIDE };
