//! Entries of the copies into panels.

use super::bounds::reach;
use crate::kernels::generic::pack::{CopyColumns, CopyRows};
use crate::kernels::generic::pack_codes::PackCodes;
use crate::kernels::{KernelSet, LANES, Packing};

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

    /// Stores the codes of 16 rows, 64 of each, in one or two blocks of 32 k: those that start at
    /// `starts` bytes of `panel`. Codes are not entries of codebooks.
    pub(crate) fn pack_codes(
        &self,
        packing: Packing,
        codes: &[[u8; 64]; LANES],
        panel: &mut [u8],
        starts: [Option<usize>; 2],
    ) {
        let shape = packing.shape();
        assert!(shape.strands.is_empty());
        let (len, panel) = (panel.len(), panel.as_mut_ptr());
        let to = starts.map(|start| match start {
            Some(start) => {
                assert!(start <= len && shape.codes <= len - start);
                panel.wrapping_add(start)
            }
            None => std::ptr::null_mut(),
        });
        // SAFETY: CPU checked; the blocks lie inside the panel, and the planes of a packing inside its codes.
        unsafe { (self.pack_codes)(&PackCodes { codes: codes.as_ptr().cast(), planes: shape.planes, to }) }
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
