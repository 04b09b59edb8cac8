//! x86-64: one file for each tier.

pub(super) mod avx2;
pub(super) mod avx512;
mod avx512_bf16;
mod narrow;
mod transpose;

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
