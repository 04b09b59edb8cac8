//! The tokens: proofs that the CPU has the features of a tier; and what the tiers of x86-64 share.

/// Proof of the features of the set `avx2`, or `avx_vnni`. Only the dot products differ.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>(pub(super) ());

/// Proof of the features of the set `avx512`, or `avx512_vnni`. Only the dot products differ.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool>(pub(super) ());

/// Hands a token and the features that it proves to a macro. The pairs stand here and nowhere else.
macro_rules! tier {
    (avx2 => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx2, $($then)::+ { token: $crate::kernels::x86_64::token::Avx2<false>, $($arguments)* }
        }
    };
    (avx_vnni => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx_vnni, $($then)::+ { token: $crate::kernels::x86_64::token::Avx2<true>, $($arguments)* }
        }
    };
    (avx512 => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx512, $($then)::+ { token: $crate::kernels::x86_64::token::Avx512<false>, $($arguments)* }
        }
    };
    (avx512_vnni => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx512_vnni, $($then)::+ { token: $crate::kernels::x86_64::token::Avx512<true>, $($arguments)* }
        }
    };
    (avx512_bf16 => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx512_bf16, $($then)::+ { token: $crate::kernels::x86_64::token::Avx512<false>, $($arguments)* }
        }
    };
}
pub(in crate::kernels) use tier;

/// The methods of [`Simd`](crate::kernels::simd::Simd) that are hints and no arithmetic.
macro_rules! hints {
    () => {
        #[inline(always)]
        fn prefetch(self, p: *const f32) {
            v!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
        }
        #[inline(always)]
        fn prefetch_l2(self, p: *const u8) {
            v!(_mm_prefetch::<_MM_HINT_T1>(p.cast()))
        }
        /// An empty instruction that could have changed the pointer.
        #[inline(always)]
        #[allow(clippy::pointers_in_nomem_asm_block)] // the pointer may be another one, not what it points to
        fn opaque(self, mut p: *const f32) -> *const f32 {
            // SAFETY: nothing is executed.
            unsafe {
                std::arch::asm!("/* {0} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags))
            };
            p
        }
    };
}
pub(super) use hints;

/// Evaluates an expression of register-only intrinsics. They are `unsafe` to call here only because the
/// methods of [`Simd`](crate::kernels::simd::Simd) cannot carry `#[target_feature]` themselves.
macro_rules! v {
    ($e:expr) => {{
        // SAFETY: `self` proves that the CPU has the features (its constructor checked them), and no
        // operand is a pointer.
        unsafe { $e }
    }};
}
pub(super) use v;
