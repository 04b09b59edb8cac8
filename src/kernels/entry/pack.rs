//! Entries of the copies into panels.

use super::bounds::reach;
use crate::kernels::generic::pack::{CopyColumns, CopyRows};
use crate::kernels::{KernelSet, LANES};

impl KernelSet {
    /// Copies `rows` rows of `16 * vectors` elements, `row_stride` apart, so that they follow each other.
    pub(crate) fn copy_rows(
        &self,
        from: &[f32],
        row_stride: usize,
        rows: usize,
        vectors: usize,
        to: &mut [f32],
    ) {
        let width = vectors * LANES;
        if rows == 0 || width == 0 {
            return;
        }
        assert!(reach(rows, row_stride) + width <= from.len() && rows * width <= to.len());
        let copy = CopyRows { from: from.as_ptr(), row_stride, rows, vectors, to: to.as_mut_ptr() };
        // SAFETY: CPU checked; the assert covers both operands.
        unsafe { (self.copy_rows)(&copy) }
    }

    /// Copies `columns` columns of `k` elements, `column_stride` apart, as rows `row_stride` apart; both
    /// counts are multiples of 16.
    pub(crate) fn copy_columns(
        &self,
        (from, column_stride): (&[f32], usize),
        (columns, k): (usize, usize),
        (to, row_stride): (&mut [f32], usize),
    ) {
        if columns == 0 || k == 0 {
            return;
        }
        assert!(columns.is_multiple_of(LANES) && k.is_multiple_of(LANES));
        assert!(reach(columns, column_stride) + k <= from.len());
        assert!(reach(k, row_stride) + columns <= to.len());
        let (from, to, vectors) = (from.as_ptr(), to.as_mut_ptr(), columns / LANES);
        // SAFETY: CPU checked; the asserts cover both operands.
        unsafe { (self.copy_columns)(&CopyColumns { from, column_stride, vectors, k, to, row_stride }) }
    }
}
