//! The accumulators of a register tile, loaded from and stored to a tile of C whose last vector may be
//! ragged.

use super::LANES;
use crate::kernels::simd::Simd;

/// Loads a tile of C into the accumulators.
///
/// # Safety
/// - C is valid for reads of MR rows, `row_stride` apart, of `16 * (NV - 1) + tail` f32.
#[inline(always)]
pub(super) unsafe fn load_tile<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    c: *const f32,
    row_stride: usize,
    tail: usize,
    acc: &mut [[S::F32s; NV]; MR],
) {
    for i in 0..MR {
        for j in 0..NV {
            // SAFETY: row i < MR, vector j < NV of C; the last vector is read up to `tail`.
            acc[i][j] = unsafe {
                let p = c.add(i * row_stride + j * LANES);
                if j + 1 == NV { s.load_n(p, tail) } else { s.load(p) }
            };
        }
    }
}

/// Stores the accumulators as a tile of C.
///
/// # Safety
/// - C is valid for writes of MR rows, `row_stride` apart, of `16 * (NV - 1) + tail` f32.
#[inline(always)]
pub(super) unsafe fn store_tile<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    c: *mut f32,
    row_stride: usize,
    tail: usize,
    acc: &[[S::F32s; NV]; MR],
) {
    for i in 0..MR {
        for j in 0..NV {
            // SAFETY: row i < MR, vector j < NV of C; the last vector is written up to `tail`.
            unsafe {
                let p = c.add(i * row_stride + j * LANES);
                if j + 1 == NV && tail < LANES {
                    s.store_n(p, acc[i][j], tail);
                } else {
                    s.store(p, acc[i][j]);
                }
            }
        }
    }
}
