//! The doors: safe functions that check every bound a kernel relies on, then enter it.
//!
//! A failed check is a bug of a driver, not of a caller (whose shapes were validated before), so it is an
//! assertion; it costs a few comparisons for each tile of thousands of operations.

use super::*;
use crate::matmul::Epilogue;
use crate::view::MatMut;

/// Index of the last element that is read, for `count` steps of `stride`.
pub(super) fn reach(count: usize, stride: usize) -> usize {
    count.saturating_sub(1).saturating_mul(stride)
}

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

    /// Copies `columns` columns of `k` elements, `column_stride` apart, as rows `row_stride` apart; both counts
    /// are multiples of 16.
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

    /// Applies `epilogue` to finished chains in `acc` (`None`: they are in `c`). `col` is the column of the
    /// tile in the whole output, where its part of the bias starts; `gate` holds a factor for each element of
    /// the tile, row after row.
    pub(crate) fn epilogue(
        &self,
        mut acc: Option<MatMut<'_>>,
        gate: Option<&[f32]>,
        mut c: MatMut<'_>,
        col: usize,
        epilogue: &Epilogue<'_>,
    ) {
        let cols = c.cols();
        let bias = epilogue.bias.map_or(std::ptr::null(), |bias| bias[col..col + cols].as_ptr());
        for i in 0..c.rows() {
            let c = c.row(i);
            let acc = match &mut acc {
                Some(acc) => {
                    let acc = acc.row(i);
                    assert!(acc.len() == cols);
                    acc.as_ptr()
                }
                None => c.as_ptr(),
            };
            let row = EpilogueRow {
                acc,
                c: c.as_mut_ptr(),
                bias,
                gate: gate.map_or(std::ptr::null(), |gate| gate[i * cols..(i + 1) * cols].as_ptr()),
                cols,
                alpha: epilogue.alpha,
                beta: epilogue.beta,
                activation: epilogue.activation,
            };
            // SAFETY: CPU checked; acc, c, bias and gate have `cols` elements each.
            unsafe { (self.epilogue)(&row) }
        }
    }
}
