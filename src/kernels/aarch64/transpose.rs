//! 16 x 16 f32 transposed in registers: element `(i, j)` of `from` becomes element `(j, i)` of `to`.

use std::arch::aarch64::*;

/// 16 blocks of 4 x 4, each in two steps of `trn1` and `trn2`: of f32, then of pairs of f32.
///
/// # Safety
/// - `from` is valid for reads and `to` for writes of 16 rows of 16 f32.
#[inline(always)]
pub(super) unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    for block in 0..16 {
        let (i, j) = (block / 4 * 4, block % 4 * 4);
        // SAFETY: rows i..i + 4, columns j..j + 4 of the caller's 16 by 16; every AArch64 CPU that runs std
        // has NEON.
        unsafe {
            let row = |r: usize| vld1q_f32(from.add((i + r) * from_stride + j));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let even = [vtrn1q_f32(a, b), vtrn1q_f32(c, d)].map(|x| vreinterpretq_f64_f32(x));
            let odd = [vtrn2q_f32(a, b), vtrn2q_f32(c, d)].map(|x| vreinterpretq_f64_f32(x));
            let store = |r: usize, x| vst1q_f32(to.add((j + r) * to_stride + i), vreinterpretq_f32_f64(x));
            store(0, vtrn1q_f64(even[0], even[1]));
            store(1, vtrn1q_f64(odd[0], odd[1]));
            store(2, vtrn2q_f64(even[0], even[1]));
            store(3, vtrn2q_f64(odd[0], odd[1]));
        }
    }
}
