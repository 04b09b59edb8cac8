//! Quantised weights times f32 activations (NUMERICS rule 3): each weight is widened exactly in a
//! register, `w = (q - offset) * d`, and joins the rule-1 chain over k ascending. Nothing is dequantised
//! to memory. One widening (5 operations) serves C rows.

use super::quant_int8::{Format, block};
use super::quantize::BLOCK;
use crate::kernels::simd::Simd;

/// Operands of one tile of 16 weight rows by `C` activation rows.
pub(crate) struct ExactTile {
    pub blocks: usize,
    pub w: *const u8,  // one stripe
    pub x: *const f32, // (C, 32 * blocks), row c at x + c * x_row_stride
    pub x_row_stride: usize,
    pub c: *mut f32, // (C, tail), row c at c + c * c_row_stride
    pub c_row_stride: usize,
    /// Weight rows of the stripe that exist: 1..=16.
    pub tail: usize,
}

/// # Safety
/// - every operand is valid as the comments of [`ExactTile`] say; the stripe is whole pairs of blocks.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, F: Format, const C: usize>(s: S, t: &ExactTile) {
    let mut acc = [s.splat(0.0); C];
    let offset = s.splat(F::OFFSET);
    for b in 0..t.blocks {
        // SAFETY: the stripe holds block b < blocks.
        let (scales, quants) = unsafe { block::<F>(t.w, b) };
        // SAFETY: 16 scales of block b.
        let d = unsafe { s.load_f16(scales) };
        for g in 0..BLOCK / 4 {
            // SAFETY: group g < 8 of block b.
            let q = unsafe { F::group(s, quants, g) };
            let w =
                [s.byte_to_f32::<0>(q), s.byte_to_f32::<1>(q), s.byte_to_f32::<2>(q), s.byte_to_f32::<3>(q)];
            for i in 0..4 {
                let wi = s.mul(s.sub(w[i], offset), d);
                for c in 0..C {
                    // SAFETY: k = 32 b + 4 g + i of activation row c < C.
                    let x = unsafe { *t.x.add(c * t.x_row_stride + b * BLOCK + 4 * g + i) };
                    acc[c] = s.fma(s.splat(x), wi, acc[c]);
                }
            }
        }
    }
    for c in 0..C {
        // SAFETY: `tail` columns of row c < C.
        unsafe { s.store_n(t.c.add(c * t.c_row_stride), acc[c], t.tail) };
    }
}
