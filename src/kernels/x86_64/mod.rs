//! x86-64: one file for each tier.

pub(super) mod avx2;
pub(super) mod avx512;
mod avx512_bf16;
mod narrow;
mod transpose;

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
