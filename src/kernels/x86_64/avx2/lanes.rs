//! Helpers of the 16 lanes of AVX2, which are two ymm registers.

use std::arch::x86_64::*;

/// Both halves of two operands through one intrinsic.
macro_rules! each {
    ($f:ident, $a:expr, $b:expr) => {
        v!([$f($a[0], $b[0]), $f($a[1], $b[1])])
    };
}
pub(super) use each;

/// The same expression for both halves, `$h` being 0 and 1. No closures: one that is compiled inside a
/// function of std would be compiled without the features.
macro_rules! halves {
    ($h:ident => $e:expr) => {
        v!([
            {
                let $h = 0usize;
                $e
            },
            {
                let $h = 1usize;
                $e
            },
        ])
    };
}
pub(super) use halves;

/// Keeps the sums of a tile in the order of the source. Left alone, the compiler works through the tile
/// accumulator by accumulator, and to that end copies all weights of a block to the stack: 70 to 90 spills.
#[target_feature(enable = "avx")]
#[inline]
pub(super) fn in_order(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction at all, only a value that the compiler cannot look through or move.
    unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) x, options(nomem, nostack, preserves_flags)) };
    x
}

/// The mask for `maskload`: the first `n` of 8 lanes, `n` clamped to 0..=8.
#[inline(always)]
pub(super) fn mask(n: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: n <= 8, so 8 numbers from 8 - n on lie inside the table; only called under an Avx2 token.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - n.min(8)).cast()) }
}
