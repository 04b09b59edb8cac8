//! The doors: safe functions that check every bound a kernel relies on, then enter it.
//!
//! A failed check is a bug of a driver, not of a caller (whose shapes were validated before), so it is an
//! assertion; it costs a few comparisons for each tile of thousands of operations.

use super::*;
use crate::matmul::Epilogue;
use crate::view::MatMut;

/// Stripes of 16 packed weight rows, each `stripe_bytes` long.
#[derive(Clone, Copy)]
pub(crate) struct Stripes<'a> {
    pub data: &'a [u8],
    pub stripe_bytes: usize,
    /// Blocks of 32 along k.
    pub blocks: usize,
    /// 4 or 8 bits.
    pub bits: u32,
}

/// Quantised activation rows. A record is `[q: 32 * blocks][d: 4 * blocks][neg_sum: 4 * blocks]` bytes.
#[derive(Clone, Copy)]
pub(crate) struct ActivationRows<'a> {
    pub data: &'a [u8],
    pub record_bytes: usize,
    pub blocks: usize,
}

impl ActivationRows<'_> {
    /// Bytes of a record, padded to a cache line.
    pub(crate) fn record_bytes(blocks: usize) -> usize {
        (blocks * (BLOCK + 8)).next_multiple_of(64)
    }
}

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

    /// Quantises one row of `32 * blocks` activations into its record.
    pub(crate) fn quantize(&self, x: &[f32], record: &mut [u8]) {
        let blocks = x.len() / BLOCK;
        assert!(x.len().is_multiple_of(BLOCK) && record.len() >= ActivationRows::record_bytes(blocks));
        let (q, rest) = record.split_at_mut(BLOCK * blocks);
        let (d, rest) = rest.split_at_mut(4 * blocks);
        let d: &mut [f32] = bytemuck::cast_slice_mut(d);
        let neg_sum: &mut [i32] = bytemuck::cast_slice_mut(&mut rest[..4 * blocks]);
        let row = QuantizeRow {
            x: x.as_ptr(),
            blocks,
            q: q.as_mut_ptr().cast(),
            d: d.as_mut_ptr(),
            neg_sum: neg_sum.as_mut_ptr(),
        };
        // SAFETY: CPU checked; the parts of the record were cut to the lengths that the kernel writes.
        unsafe { (self.quantize)(&row) }
    }

    /// The most stripes of weights and rows of activations of one int8 tile.
    pub(crate) fn int8_tile(&self) -> (usize, usize) {
        (self.int8_q4.len(), self.int8_q4[0].len())
    }

    /// `c[row][n] = product of weight row n and activation row` for one tile, int8 arithmetic.
    /// `a` starts at the tile's first activation row, `w` at its first stripe.
    pub(crate) fn int8(&self, w: Stripes<'_>, a: ActivationRows<'_>, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let stripes = cols.div_ceil(LANES);
        let (table, pair) =
            if w.bits == 4 { (self.int8_q4, Q4_PAIR_BYTES) } else { (self.int8_q8, Q8_PAIR_BYTES) };
        let blocks = w.blocks;
        assert!(a.blocks == blocks && w.stripe_bytes == blocks.div_ceil(2) * pair);
        assert!(stripes * w.stripe_bytes <= w.data.len() && rows * a.record_bytes <= a.data.len());
        assert!(
            a.record_bytes >= ActivationRows::record_bytes(blocks)
                && a.data.as_ptr().addr().is_multiple_of(4)
        );
        let d = &a.data[BLOCK * blocks..];
        let tile = Int8Tile {
            blocks,
            w: w.data.as_ptr(),
            stripe_bytes: w.stripe_bytes,
            q: a.data.as_ptr().cast(),
            d: d.as_ptr().cast(),
            neg_sum: d[4 * blocks..].as_ptr().cast(),
            record_bytes: a.record_bytes,
            c_row_stride: c.row_stride(),
            tail: cols - (stripes - 1) * LANES,
            c: c.as_mut_ptr(),
        };
        // SAFETY: CPU checked; the asserts cover weights and activations (records are multiples of 64
        // bytes, so scales stay aligned), and C has `rows` rows of `cols` elements.
        unsafe { table[stripes - 1][rows - 1](&tile) }
    }

    /// The most rows of activations of one exact tile.
    pub(crate) fn exact_rows(&self) -> usize {
        self.exact_q4.len()
    }

    /// The same product with f32 activations `x` (element `(row, k)` at `row * row_stride + k`), for one
    /// stripe of weights.
    pub(crate) fn exact(&self, w: Stripes<'_>, x: &[f32], x_row_stride: usize, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let (table, pair) =
            if w.bits == 4 { (self.exact_q4, Q4_PAIR_BYTES) } else { (self.exact_q8, Q8_PAIR_BYTES) };
        assert!(cols <= LANES && w.blocks.div_ceil(2) * pair <= w.data.len());
        assert!(reach(rows, x_row_stride) + BLOCK * w.blocks <= x.len());
        let tile = ExactTile {
            blocks: w.blocks,
            w: w.data.as_ptr(),
            x: x.as_ptr(),
            x_row_stride,
            c_row_stride: c.row_stride(),
            tail: cols,
            c: c.as_mut_ptr(),
        };
        // SAFETY: CPU checked; the asserts cover weights and activations, and C has `rows` rows of `cols`.
        unsafe { table[rows - 1](&tile) }
    }
}
