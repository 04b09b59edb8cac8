//! The quantised products of NEON: which tiles there are.

use crate::kernels::aarch64::token::tier;
use crate::kernels::quant::QuantKernels;

/// The kernels that widen weights: those of the tier without dot instructions, but for the order or the sign
/// of unpacked codes, which are those of the module `tiles`.
macro_rules! instantiate_unpacking {
    (features: [$($feature:tt)*], token: $S:ty, tiles: $tiles:ident,) => {
        use crate::kernels::formats::for_each_packing;
        use crate::kernels::generic::packings::*;
        use crate::kernels::generic::quant_exact::Expand;
        use crate::kernels::generic::$tiles;
        use crate::kernels::quant::{FORMATS, WideningKernels, table};
        use crate::kernels::simd::Simd;
        use std::marker::PhantomData;

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn expand<F: Format>(e: &Expand) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { $tiles::expand::<$S, F>(<$S>::assume(), e) }
        }

        struct Of<F>(PhantomData<F>);

        impl<F: Format> Of<F> {
            const KERNELS: WideningKernels = WideningKernels {
                expand: if F::INT8 { Some(expand::<F>) } else { None },
                ..crate::kernels::aarch64::neon::quant::Of::<F>::KERNELS
            };
        }

        pub(in crate::kernels) static WIDENING: [WideningKernels; FORMATS] = for_each_packing!(table);
    };
}

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
        tiles: quant_parts,
        direct: 1 [2 3],
        unpacked: 1 [1 2 3],
        halves: 1 [1 2 3],
    }

    pub(super) mod widening {
        use crate::kernels::aarch64::token::tier;

        tier! { neon_dotprod => instantiate_unpacking, tiles: quant_parts, }
    }

    /// `usmmla` on unpacked weights. Packed ones would have to be put into the order that it takes, group by
    /// group, which takes more than it saves: there and for a single row, `sdot`.
    pub(super) mod i8mm {
        use crate::kernels::aarch64::token::tier;

        macro_rules! unpacked {
            (features: [$($feature:tt)*], token: $S:ty,) => {
                use crate::kernels::formats::for_each_packing;
        use crate::kernels::generic::packings::*;
                use crate::kernels::generic::quant_int8::Int8Tile;
                use crate::kernels::generic::quant_pairs;
                use crate::kernels::quant::{FORMATS, Int8Kernels, table};
                use crate::kernels::simd::Simd;
                use std::marker::PhantomData;

                /// # Safety
                /// - the CPU has the features; and as the algorithm says.
                $(#[target_feature(enable = $feature)])*
                #[inline(never)]
                unsafe fn int8<F: Format, const W: usize, const C: usize>(t: &Int8Tile) {
                    // SAFETY: handed on to the caller, both parts.
                    unsafe { quant_pairs::tile::<$S, F, W, C>(<$S>::assume(), t) }
                }
            };
        }
        tier! { neon_i8mm => unpacked, }

        struct Of<F>(PhantomData<F>);

        impl<F: Format> Of<F> {
            const KERNELS: Int8Kernels = Int8Kernels {
                unpacked: (1, &[int8::<F::Unpacked, 1, 1>, int8::<F::Unpacked, 1, 2>]),
                ..super::Of::<F>::KERNELS
            };
        }

        pub(in crate::kernels) static INT8: [Int8Kernels; FORMATS] = for_each_packing!(table);

        pub(in crate::kernels::aarch64::neon::quant) mod widening {
            use crate::kernels::aarch64::token::tier;

            tier! { neon_i8mm => instantiate_unpacking, tiles: quant_pairs, }
        }
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
    QuantKernels { int8: &dotprod::INT8, widening: &dotprod::widening::WIDENING, wide: WIDE };
pub(super) static I8MM: QuantKernels =
    QuantKernels { int8: &dotprod::i8mm::INT8, widening: &dotprod::i8mm::widening::WIDENING, wide: WIDE };
