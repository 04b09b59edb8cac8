//! The entries of the quantised products.

use super::bounds::reach;
use crate::kernels::generic::quant_exact::{ExactTile, Expand, WideTile};
use crate::kernels::generic::quant_int8::{Int8Tile, MAX_STRIPES};
use crate::kernels::generic::quant_row::Int8Row;
use crate::kernels::generic::quantize::{QuantizeRow, Record};
use crate::kernels::{BLOCK, KernelSet, LANES, Packing};
use crate::view::MatMut;

/// Stripes of 16 packed weight rows, each `stripe_bytes` long.
#[derive(Clone, Copy)]
pub(crate) struct Stripes<'a> {
    pub data: &'a [u8],
    pub stripe_bytes: usize,
    /// Blocks of 32 along k.
    pub blocks: usize,
    pub packing: Packing,
    /// log2 of the blocks of a unit.
    pub unit_shift: u32,
}

impl Stripes<'_> {
    /// Checks that each stripe holds its blocks.
    fn check(&self) {
        let shape = self.packing.shape();
        assert!(self.unit_shift < 16 && (shape.blocks == 0 || shape.blocks == 1 << self.unit_shift));
        assert!(self.stripe_bytes >= self.blocks.div_ceil(1 << self.unit_shift) * self.unit_bytes());
    }

    /// Bytes of a unit.
    pub(crate) fn unit_bytes(&self) -> usize {
        let shape = self.packing.shape();
        shape.header + (shape.codes << self.unit_shift)
    }

    /// The pointers of the first `count` stripes; the others repeat the last of them.
    fn pointers(&self, count: usize) -> [*const u8; MAX_STRIPES] {
        assert!(count >= 1 && count * self.stripe_bytes <= self.data.len());
        std::array::from_fn(|j| self.data[j.min(count - 1) * self.stripe_bytes..].as_ptr())
    }
}

/// Stripes unpacked to a panel, each of `blocks` blocks.
#[derive(Clone, Copy)]
pub(crate) struct Unpacked<'a> {
    pub data: &'a [u8],
    pub blocks: usize,
    pub packing: Packing,
}

/// Quantised activation rows: of each the records from one block on.
#[derive(Clone, Copy)]
pub(crate) struct ActivationRows<'a> {
    pub data: &'a [u8],
    pub record_bytes: usize,
}

impl ActivationRows<'_> {
    /// Bytes of a row: an odd number of cache lines, so that the rows of a tile do not meet in the same sets
    /// of the L1 cache. Saturates far beyond any memory: weights without rows may have absurdly many blocks.
    pub(crate) fn record_bytes(blocks: usize) -> usize {
        let blocks = blocks.min(isize::MAX as usize / (2 * size_of::<Record>()));
        (blocks * size_of::<Record>()).next_multiple_of(64) | 64
    }

    /// Bytes from one block to the next.
    pub(crate) const STEP: usize = size_of::<Record>();

    fn check(&self, rows: usize, blocks: usize) {
        let row = blocks * size_of::<Record>();
        assert!(reach(rows, self.record_bytes) + row <= self.data.len());
        assert!(self.record_bytes.is_multiple_of(16) && self.data.as_ptr().addr().is_multiple_of(16));
    }
}

impl KernelSet {
    /// Quantises one row of `32 * blocks` activations into its records.
    pub(crate) fn quantize(&self, x: &[f32], records: &mut [u8]) {
        let blocks = x.len() / BLOCK;
        assert!(x.len().is_multiple_of(BLOCK) && records.len() >= blocks * size_of::<Record>());
        assert!(records.as_ptr().addr().is_multiple_of(align_of::<Record>()));
        let row = QuantizeRow { x: x.as_ptr(), blocks, out: records.as_mut_ptr().cast() };
        // SAFETY: CPU checked; the asserts cover the records.
        unsafe { (self.quantize)(&row) }
    }

    /// The most stripes of weights and rows of activations of one int8 tile, on packed weights.
    pub(crate) fn int8_tile(&self, packing: Packing) -> (usize, usize) {
        let (stripes, rows) = self.quant.int8[packing as usize].direct;
        (stripes, rows.len())
    }

    /// The same on panels.
    pub(crate) fn panel_tile(&self, packing: Packing) -> (usize, usize) {
        let (stripes, rows) = self.quant.int8[packing as usize].panel;
        (stripes, rows.len())
    }

    /// The same with f32 activations.
    pub(crate) fn exact_tile(&self, packing: Packing) -> (usize, usize) {
        let (stripes, rows) = self.quant.widening[packing as usize].exact;
        (stripes, rows.len())
    }

    /// `c[row][n] = product of weight row n and activation row` for one tile, int8 arithmetic, over blocks
    /// `part` (first, a whole unit's; count) of k; `accumulate` continues the chains that C holds. `a` starts at the
    /// tile's first activation row and at the part's first block, `w` at the first stripe. `ahead`: how far
    /// ahead the weights of each stripe are prefetched, in bytes.
    pub(crate) fn int8(
        &self,
        w: Stripes<'_>,
        (first, blocks): (usize, usize),
        ahead: [isize; MAX_STRIPES],
        a: ActivationRows<'_>,
        mut c: MatMut<'_>,
        accumulate: bool,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let (stripes, table) = self.quant.int8[w.packing as usize].direct;
        assert!(cols <= stripes * LANES);
        w.check();
        assert!(first + blocks <= w.blocks && first.is_multiple_of(1 << w.unit_shift));
        a.check(rows, blocks);
        let start = (first >> w.unit_shift) * w.unit_bytes();
        let tile = Int8Tile {
            blocks,
            // Wrapping: without blocks left, the end of a stripe is not followed.
            w: w.pointers(cols.div_ceil(LANES)).map(|stripe| stripe.wrapping_add(start)),
            ahead,
            unit_shift: w.unit_shift,
            a: a.data.as_ptr().cast(),
            record_bytes: a.record_bytes,
            c_row_stride: c.row_stride(),
            cols,
            c: c.as_mut_ptr(),
            accumulate,
        };
        // SAFETY: CPU checked; the checks cover weights and activations, and C has `rows` rows of `cols`.
        unsafe { table[rows - 1](&tile) }
    }

    /// `c[n] = product of weight row n and the only activation row`, int8 arithmetic, over any number of stripes.
    pub(crate) fn int8_row(&self, w: Stripes<'_>, a: ActivationRows<'_>, mut c: MatMut<'_>) {
        let cols = c.cols();
        if cols == 0 || c.rows() != 1 {
            return debug_assert!(c.rows() <= 1);
        }
        w.check();
        a.check(1, w.blocks);
        assert!(cols.div_ceil(LANES) * w.stripe_bytes <= w.data.len());
        let row = Int8Row {
            blocks: w.blocks,
            w: w.data.as_ptr(),
            stripe_bytes: w.stripe_bytes,
            unit_shift: w.unit_shift,
            a: a.data.as_ptr().cast(),
            c: c.as_mut_ptr(),
            cols,
        };
        // SAFETY: CPU checked; the checks cover weights and activations, and C has as many columns.
        unsafe { (self.quant.int8[w.packing as usize].row)(&row) }
    }

    /// [`KernelSet::int8`] on unpacked weights; `accumulate` continues the chains that C holds. `a` starts at the
    /// panel's first block.
    pub(crate) fn int8_panel(
        &self,
        w: Unpacked<'_>,
        a: ActivationRows<'_>,
        mut c: MatMut<'_>,
        accumulate: bool,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let (stripes, table) = self.quant.int8[w.packing as usize].panel;
        let stripe_bytes = w.blocks * w.packing.shape().panel;
        let given = cols.div_ceil(LANES);
        assert!(given <= stripes && given * stripe_bytes <= w.data.len());
        a.check(rows, w.blocks);
        let tile = Int8Tile {
            blocks: w.blocks,
            w: std::array::from_fn(|j| w.data[j.min(given - 1) * stripe_bytes..].as_ptr()),
            ahead: [0; MAX_STRIPES],
            unit_shift: 0,
            a: a.data.as_ptr().cast(),
            record_bytes: a.record_bytes,
            c_row_stride: c.row_stride(),
            cols,
            c: c.as_mut_ptr(),
            accumulate,
        };
        // SAFETY: CPU checked; the checks cover panel and activations, and C has `rows` rows of `cols`.
        unsafe { table[rows - 1](&tile) }
    }

    /// Unpacks blocks `first..first + blocks` of the first stripe to a panel.
    pub(crate) fn expand(&self, w: Stripes<'_>, (first, blocks): (usize, usize), out: &mut [u8]) {
        w.check();
        assert!(first + blocks <= w.blocks && out.len() >= blocks * w.packing.shape().panel);
        let [stripe, ..] = w.pointers(1);
        let out = out.as_mut_ptr();
        let e = Expand { w: stripe, unit_shift: w.unit_shift, first, blocks, out, out_stride: 0 };
        // SAFETY: CPU checked; the blocks lie inside the stripe, and the panel has room for them.
        unsafe { (self.quant.widening[w.packing as usize].expand)(&e) }
    }

    /// Widens blocks `first..first + blocks` of the first stripe to f32: 16 weights of each k, `out_stride`
    /// from one k to the next.
    pub(crate) fn expand_f32(
        &self,
        w: Stripes<'_>,
        (first, blocks): (usize, usize),
        out: &mut [f32],
        out_stride: usize,
    ) {
        w.check();
        if blocks == 0 {
            return;
        }
        assert!(first + blocks <= w.blocks && reach(blocks * BLOCK, out_stride) + LANES <= out.len());
        let [stripe, ..] = w.pointers(1);
        let out = out.as_mut_ptr().cast();
        let e = Expand { w: stripe, unit_shift: w.unit_shift, first, blocks, out, out_stride };
        // SAFETY: CPU checked; the blocks lie inside the stripe, the last vector inside `out`.
        unsafe { (self.quant.widening[w.packing as usize].expand_f32)(&e) }
    }

    /// The product with f32 activations `x` (element `(row, k)` at `row * row_stride + k`).
    pub(crate) fn exact(&self, w: Stripes<'_>, x: &[f32], x_row_stride: usize, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let (stripes, table) = self.quant.widening[w.packing as usize].exact;
        assert!(cols <= stripes * LANES);
        w.check();
        // Rows without blocks are not read, and have no memory.
        assert!(w.blocks == 0 || reach(rows, x_row_stride) + BLOCK * w.blocks <= x.len());
        let tile = ExactTile {
            blocks: w.blocks,
            w: w.pointers(cols.div_ceil(LANES)),
            unit_shift: w.unit_shift,
            x: x.as_ptr(),
            x_row_stride,
            c_row_stride: c.row_stride(),
            cols,
            c: c.as_mut_ptr(),
        };
        // SAFETY: CPU checked; the checks cover weights and activations, and C has `rows` rows of `cols`.
        unsafe { table[rows - 1](&tile) }
    }

    /// The most stripes and rows of one tile on widened weights.
    pub(crate) fn wide_tile(&self) -> (usize, usize) {
        (self.quant.wide.0, self.quant.wide.1.len())
    }

    /// The product of widened weights `w`, (k, 16 * stripes of a tile), with f32 activations; `accumulate`
    /// continues the chains that C holds.
    pub(crate) fn wide(
        &self,
        k: usize,
        w: &[f32],
        x: &[f32],
        x_row_stride: usize,
        mut c: MatMut<'_>,
        accumulate: bool,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let (stripes, table) = self.quant.wide;
        assert!(cols <= stripes * LANES && k * stripes * LANES <= w.len());
        // Rows without elements are not read, and have no memory.
        assert!(k == 0 || reach(rows, x_row_stride) + k <= x.len());
        let tile = WideTile {
            k,
            w: w.as_ptr(),
            x: x.as_ptr(),
            x_row_stride,
            c_row_stride: c.row_stride(),
            cols,
            c: c.as_mut_ptr(),
            accumulate,
        };
        // SAFETY: CPU checked; the asserts cover weights and activations, and C has `rows` rows of `cols`.
        unsafe { table[rows - 1](&tile) }
    }
}
