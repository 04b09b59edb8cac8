//! x86-64: one file for each tier.

mod avx2;
mod avx512;
mod avx512_bf16;
mod narrow;
mod transpose;

use crate::isa::{Isa, has_avx512_vnni};
use crate::kernels::set::KernelSet;

/// Hands a token and the features that it proves to a macro. The pairs stand here and nowhere else.
macro_rules! tier {
    (avx2 => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx2, $($then)::+ { token: $crate::kernels::x86_64::avx2::Avx2, $($arguments)* }
        }
    };
    (avx512 => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx512, $($then)::+ { token: $crate::kernels::x86_64::avx512::Avx512<false>, $($arguments)* }
        }
    };
    (avx512_vnni => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx512_vnni, $($then)::+ { token: $crate::kernels::x86_64::avx512::Avx512<true>, $($arguments)* }
        }
    };
    (avx512_bf16 => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            avx512_bf16, $($then)::+ { token: $crate::kernels::x86_64::avx512::Avx512<false>, $($arguments)* }
        }
    };
}
use tier;

/// The kernels of a tier that this machine has.
pub(super) fn kernels(isa: Isa) -> Option<&'static KernelSet> {
    match isa {
        Isa::Avx2 => Some(&avx2::KERNELS),
        Isa::Avx512 if has_avx512_vnni() => Some(&avx512::VNNI_KERNELS),
        Isa::Avx512 => Some(&avx512::KERNELS),
        _ => None,
    }
}

/// The kernels of a tier that this machine has, without dot product instructions.
pub(super) fn kernels_without_dots(isa: Isa) -> Option<&'static KernelSet> {
    match isa {
        Isa::Avx512 => Some(&avx512::KERNELS),
        _ => kernels(isa),
    }
}

/// [`Simd::opaque`](super::simd::Simd::opaque): an empty instruction that could have changed the pointer.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)] // it is the pointer that may be another one, not what it points to
fn opaque(mut p: *const f32) -> *const f32 {
    // SAFETY: nothing is executed.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags)) };
    p
}

/// Evaluates an expression of register-only intrinsics. They are `unsafe` to call here only because the
/// methods of [`Simd`](super::simd::Simd) cannot carry `#[target_feature]` themselves.
macro_rules! v {
    ($e:expr) => {{
        // SAFETY: `self` proves that the CPU has the features (its constructor checked them), and no
        // operand is a pointer.
        unsafe { $e }
    }};
}
use v;
