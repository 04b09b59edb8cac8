//! Copies of rows into panels, a vector at a time: a packing pass in portable Rust moves 16 bytes at once
//! (the baseline's registers) and took 4 % of a 512^3 product; this takes 1 %.

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
