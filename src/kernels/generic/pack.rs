//! Copies into panels, a vector at a time: a packing pass in portable Rust moves 16 bytes at once (the
//! baseline's registers) and took 4 % of a 512^3 product; this takes 1 %. A transposed operand goes through
//! registers in blocks of 16 x 16.

use super::LANES;
use crate::kernels::simd::Simd;

/// `rows` rows of `vectors` vectors of 16 f32.
pub(crate) struct CopyRows {
    pub from: *const f32, // (rows, 16 * vectors), row i at from + i * row_stride
    pub row_stride: usize,
    pub rows: usize,
    pub vectors: usize,
    pub to: *mut f32, // (rows, vectors, 16)
}

/// # Safety
/// - both operands are valid as the comments of [`CopyRows`] say.
#[inline(always)]
pub(crate) unsafe fn copy_rows<S: Simd>(s: S, r: &CopyRows) {
    let (mut from, mut to) = (r.from, r.to);
    for _ in 0..r.rows {
        for v in 0..r.vectors {
            // SAFETY: vector v of a row below `rows`.
            unsafe { s.store(to.add(v * LANES), s.load(from.add(v * LANES))) };
        }
        // Wrapping: after the last row both point past their operand and are not followed.
        from = from.wrapping_add(r.row_stride);
        to = to.wrapping_add(r.vectors * LANES);
    }
}

/// Columns of `k` consecutive f32 that become rows.
pub(crate) struct CopyColumns {
    pub from: *const f32, // (16 * vectors, k), column j at from + j * column_stride
    pub column_stride: usize,
    pub vectors: usize,
    /// A multiple of 16.
    pub k: usize,
    pub to: *mut f32, // (k, 16 * vectors), row p at to + p * row_stride
    pub row_stride: usize,
}

/// # Safety
/// - both operands are valid as the comments of [`CopyColumns`] say.
#[inline(always)]
pub(crate) unsafe fn copy_columns<S: Simd>(s: S, c: &CopyColumns) {
    // 16 columns at a time over all of k: sequential streams from memory, which the prefetchers follow.
    for v in 0..c.vectors {
        for p in (0..c.k).step_by(LANES) {
            // SAFETY: columns 16 v.. and rows p.., 16 of each, inside both operands.
            unsafe {
                let from = c.from.add(v * LANES * c.column_stride + p);
                s.transpose(from, c.column_stride, c.to.add(p * c.row_stride + v * LANES), c.row_stride);
            }
        }
    }
}
