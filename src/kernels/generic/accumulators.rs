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

/// Loads one row of a tile of C of W vectors, of which `cols` elements exist; the others are zeros.
///
/// # Safety
/// - `c` is valid for reads of the first `min(cols, 16 W)` f32.
#[inline(always)]
pub(super) unsafe fn load_row<S: Simd, const W: usize>(s: S, c: *const f32, cols: usize) -> [S::F32s; W] {
    let mut row = [s.splat(0.0); W];
    for j in 0..W {
        let lanes = cols.saturating_sub(j * LANES).min(LANES);
        // SAFETY: `lanes` elements from 16 j on; without lanes nothing is touched.
        row[j] = unsafe { s.load_n(c.wrapping_add(j * LANES), lanes) };
    }
    row
}

/// Stores one row of a tile of C of W vectors, of which `cols` elements exist.
///
/// # Safety
/// - `c` is valid for writes of the first `min(cols, 16 W)` f32.
#[inline(always)]
pub(super) unsafe fn store_row<S: Simd, const W: usize>(s: S, c: *mut f32, cols: usize, row: [S::F32s; W]) {
    for j in 0..W {
        let lanes = cols.saturating_sub(j * LANES).min(LANES);
        // SAFETY: `lanes` elements from 16 j on; without lanes nothing is touched.
        unsafe { s.store_n(c.wrapping_add(j * LANES), row[j], lanes) };
    }
}

/// Loads a tile of C of `cols` columns into accumulators that stand by columns.
///
/// # Safety
/// - C is valid for reads of C rows, `row_stride` apart, of `min(cols, 16 W)` f32.
#[inline(always)]
pub(super) unsafe fn load_columns<S: Simd, const W: usize, const C: usize>(
    s: S,
    c: *const f32,
    row_stride: usize,
    cols: usize,
    acc: &mut [[S::F32s; C]; W],
) {
    for i in 0..C {
        // SAFETY: row i < C.
        let row = unsafe { load_row::<S, W>(s, c.wrapping_add(i * row_stride), cols) };
        for j in 0..W {
            acc[j][i] = row[j];
        }
    }
}

/// Stores accumulators that stand by columns as a tile of C of `cols` columns.
///
/// # Safety
/// - C is valid for writes of C rows, `row_stride` apart, of `min(cols, 16 W)` f32.
#[inline(always)]
pub(super) unsafe fn store_columns<S: Simd, const W: usize, const C: usize>(
    s: S,
    c: *mut f32,
    row_stride: usize,
    cols: usize,
    acc: &[[S::F32s; C]; W],
) {
    for i in 0..C {
        let mut row = [s.splat(0.0); W];
        for j in 0..W {
            row[j] = acc[j][i];
        }
        // SAFETY: row i < C.
        unsafe { store_row(s, c.wrapping_add(i * row_stride), cols, row) };
    }
}
