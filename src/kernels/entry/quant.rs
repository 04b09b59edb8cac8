//! The entries of the quantised products: checks of every bound that their tiles rely on.

use super::bounds::reach;
use crate::kernels::generic::quant_exact::{ExactTile, Expand, WideTile};
use crate::kernels::generic::quant_int8::{Int8Tile, MAX_PANELS};
use crate::kernels::generic::quant_row::Int8Row;
use crate::kernels::generic::quantize::{BlockQ8, QuantizeRow};
use crate::kernels::quant::Rows;
use crate::kernels::{BLOCK, KernelSet, LANES, Packing};
use crate::view::MatMut;

/// Row panels (NR = 16): 16 packed weight rows each, `panel_bytes` long.
#[derive(Clone, Copy)]
pub(crate) struct RowPanels<'a> {
    pub data: &'a [u8],
    pub panel_bytes: usize,
    /// Blocks of 32 along k.
    pub blocks: usize,
    pub packing: Packing,
    /// log2 of the blocks of a superblock.
    pub superblock_shift: u32,
}

impl RowPanels<'_> {
    /// Checks that each panel holds its blocks.
    fn check(&self) {
        let shape = self.packing.shape();
        assert!(
            self.superblock_shift < 16 && (shape.blocks == 0 || shape.blocks == 1 << self.superblock_shift)
        );
        assert!(
            self.panel_bytes >= self.blocks.div_ceil(1 << self.superblock_shift) * self.superblock_bytes()
        );
    }

    /// Bytes of a superblock.
    pub(crate) fn superblock_bytes(&self) -> usize {
        let shape = self.packing.shape();
        shape.header + (shape.codes << self.superblock_shift)
    }

    /// The pointers of the first `count` panels; the others repeat the last of them.
    fn pointers(&self, count: usize) -> [*const u8; MAX_PANELS] {
        assert!(count >= 1 && count * self.panel_bytes <= self.data.len());
        std::array::from_fn(|j| self.data[j.min(count - 1) * self.panel_bytes..].as_ptr())
    }
}

/// Row panels that were unpacked to bytes, each of `blocks` blocks.
#[derive(Clone, Copy)]
pub(crate) struct Unpacked<'a> {
    pub data: &'a [u8],
    pub blocks: usize,
    pub packing: Packing,
}

/// Quantised activation rows: of each the `block_q8`s from one block on.
#[derive(Clone, Copy)]
pub(crate) struct ActivationRows<'a> {
    pub data: &'a [u8],
    pub row_bytes: usize,
}

impl ActivationRows<'_> {
    /// Bytes of a row: an odd number of cache lines, so that the rows of a tile do not meet in the same sets
    /// of the L1 cache. Saturates far beyond any memory: weights without rows may have absurdly many blocks.
    pub(crate) fn row_bytes(blocks: usize) -> usize {
        let blocks = blocks.min(isize::MAX as usize / (2 * size_of::<BlockQ8>()));
        (blocks * size_of::<BlockQ8>()).next_multiple_of(64) | 64
    }

    /// Bytes from one block to the next.
    pub(crate) const STEP: usize = size_of::<BlockQ8>();

    /// One row of codes, all with the scale `d`. **Shapes**: `codes`: (32 * blocks); `out`: as many
    /// [`BlockQ8`] at least.
    pub(crate) fn put(codes: &[i8], d: f32, out: &mut [u8]) {
        let blocks = out.as_chunks_mut::<{ size_of::<BlockQ8>() }>().0;
        for (codes, out) in codes.as_chunks::<BLOCK>().0.iter().zip(blocks) {
            *out = bytemuck::cast(BlockQ8::of(codes, d));
        }
    }

    /// The int8 tile of these rows and C, without weights.
    #[inline(always)]
    fn tile(&self, c: &mut MatMut<'_>, blocks: usize, accumulate: bool) -> Int8Tile {
        Int8Tile {
            blocks,
            w: [std::ptr::null(); MAX_PANELS],
            prefetch_distance: [0; MAX_PANELS],
            superblock_shift: 0,
            a: self.data.as_ptr().cast(),
            row_bytes: self.row_bytes,
            c_row_stride: c.row_stride(),
            cols: c.cols(),
            c: c.as_mut_ptr(),
            accumulate,
        }
    }

    fn check(&self, rows: usize, blocks: usize) {
        let row = blocks * size_of::<BlockQ8>();
        assert!(reach(rows, self.row_bytes) + row <= self.data.len());
        assert!(self.row_bytes.is_multiple_of(16) && self.data.as_ptr().addr().is_multiple_of(16));
    }
}

/// The kernel for `rows` rows of a table whose tiles have `panels` row panels; `None` where a tile has no
/// elements.
#[inline(always)]
fn kernel<T>((panels, table): (usize, Rows<T>), rows: usize, cols: usize) -> Option<unsafe fn(&T)> {
    if rows == 0 || cols == 0 {
        return None;
    }
    assert!(cols <= panels * LANES);
    Some(table[rows - 1])
}

impl KernelSet {
    /// Quantises one row of `32 * blocks` activations into `blocks` of [`BlockQ8`].
    pub(crate) fn quantize(&self, x: &[f32], rows_q8: &mut [u8]) {
        let blocks = x.len() / BLOCK;
        assert!(x.len().is_multiple_of(BLOCK) && rows_q8.len() >= blocks * size_of::<BlockQ8>());
        assert!(rows_q8.as_ptr().addr().is_multiple_of(align_of::<BlockQ8>()));
        let row = QuantizeRow { x: x.as_ptr(), blocks, out: rows_q8.as_mut_ptr().cast() };
        // SAFETY: CPU checked; the asserts cover the blocks.
        unsafe { (self.quantize)(&row) }
    }

    /// The most row panels of weights and rows of activations of one int8 tile, on packed weights.
    pub(crate) fn int8_tile(&self, packing: Packing) -> (usize, usize) {
        let (panels, tiles) = self.quant.int8[packing as usize].direct;
        (panels, 1 + tiles.len())
    }

    /// The same on unpacked weights.
    pub(crate) fn unpacked_tile(&self, packing: Packing) -> (usize, usize) {
        let (panels, rows) = self.quant.int8[packing as usize].unpacked;
        (panels, rows.len())
    }

    /// The same with f32 activations.
    pub(crate) fn exact_tile(&self, packing: Packing) -> (usize, usize) {
        let (panels, rows) = self.quant.widening[packing as usize].exact;
        (panels, rows.len())
    }

    /// `c[row][n] = product of weight row n and activation row` for one tile of two rows or more (one row:
    /// [`KernelSet::int8_row`]), int8 arithmetic, over blocks
    /// `part` (first, a whole superblock's; count) of k; `accumulate` continues the chains that C holds. `a`
    /// starts at the tile's first activation row and at the part's first block, `w` at the first panel.
    /// `prefetch_distance`: that of the weights of each panel, in bytes; 0 for no prefetch.
    pub(crate) fn int8(
        &self,
        w: RowPanels<'_>,
        (first, blocks): (usize, usize),
        prefetch_distance: [isize; MAX_PANELS],
        a: ActivationRows<'_>,
        mut c: MatMut<'_>,
        accumulate: bool,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        assert!(rows != 1);
        let tiles = self.quant.int8[w.packing as usize].direct;
        let Some(kernel) = kernel(tiles, rows.saturating_sub(1), cols) else { return };
        w.check();
        assert!(first + blocks <= w.blocks && first.is_multiple_of(1 << w.superblock_shift));
        a.check(rows, blocks);
        let start = (first >> w.superblock_shift) * w.superblock_bytes();
        let tile = Int8Tile {
            // Wrapping: without blocks left, the end of a panel is not followed.
            w: w.pointers(cols.div_ceil(LANES)).map(|panel| panel.wrapping_add(start)),
            prefetch_distance,
            superblock_shift: w.superblock_shift,
            ..a.tile(&mut c, blocks, accumulate)
        };
        // SAFETY: CPU checked; the checks cover weights and activations, and C has `rows` rows of `cols`.
        unsafe { kernel(&tile) }
    }

    /// `c[n] = product of weight row n and the only activation row`, int8 arithmetic, over any number of
    /// panels.
    pub(crate) fn int8_row(&self, w: RowPanels<'_>, a: ActivationRows<'_>, mut c: MatMut<'_>) {
        let cols = c.cols();
        if cols == 0 || c.rows() != 1 {
            return debug_assert!(c.rows() <= 1);
        }
        w.check();
        a.check(1, w.blocks);
        assert!(cols.div_ceil(LANES) * w.panel_bytes <= w.data.len());
        let row = Int8Row {
            blocks: w.blocks,
            w: w.data.as_ptr(),
            panel_bytes: w.panel_bytes,
            superblock_shift: w.superblock_shift,
            a: a.data.as_ptr().cast(),
            c: c.as_mut_ptr(),
            cols,
        };
        let Some(kernel) = self.quant.int8[w.packing as usize].row else {
            return debug_assert!(false, "these weights are unpacked first");
        };
        // SAFETY: CPU checked; the checks cover weights and activations, and C has as many columns.
        unsafe { kernel(&row) }
    }

    /// [`KernelSet::int8`] on unpacked weights; `accumulate` continues the chains that C holds. `a` starts at
    /// the first unpacked block.
    pub(crate) fn int8_unpacked(
        &self,
        w: Unpacked<'_>,
        a: ActivationRows<'_>,
        mut c: MatMut<'_>,
        accumulate: bool,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        let Some(kernel) = kernel(self.quant.int8[w.packing as usize].unpacked, rows, cols) else { return };
        let panel_bytes = w.blocks * w.packing.shape().unpacked;
        let given = cols.div_ceil(LANES);
        assert!(given * panel_bytes <= w.data.len());
        a.check(rows, w.blocks);
        let tile = Int8Tile {
            w: std::array::from_fn(|j| w.data[j.min(given - 1) * panel_bytes..].as_ptr()),
            ..a.tile(&mut c, w.blocks, accumulate)
        };
        // SAFETY: CPU checked; the checks cover weights and activations, and C has `rows` rows of `cols`.
        unsafe { kernel(&tile) }
    }

    /// Unpacks blocks `first..first + blocks` of the first row panel to bytes.
    pub(crate) fn expand(&self, w: RowPanels<'_>, (first, blocks): (usize, usize), out: &mut [u8]) {
        w.check();
        assert!(first + blocks <= w.blocks && out.len() >= blocks * w.packing.shape().unpacked);
        let [panel, ..] = w.pointers(1);
        let out = out.as_mut_ptr();
        let e = Expand { w: panel, superblock_shift: w.superblock_shift, first, blocks, out, out_stride: 0 };
        let Some(kernel) = self.quant.widening[w.packing as usize].expand else {
            return debug_assert!(false, "these weights have no int8 products");
        };
        // SAFETY: CPU checked; the blocks lie inside the row panel, and `out` has room for them.
        unsafe { kernel(&e) }
    }

    /// Widens blocks `first..first + blocks` of the first panel to f32: 16 weights of each k, `out_stride`
    /// from one k to the next.
    pub(crate) fn expand_f32(
        &self,
        w: RowPanels<'_>,
        (first, blocks): (usize, usize),
        out: &mut [f32],
        out_stride: usize,
    ) {
        w.check();
        if blocks == 0 {
            return;
        }
        assert!(first + blocks <= w.blocks && reach(blocks * BLOCK, out_stride) + LANES <= out.len());
        let [panel, ..] = w.pointers(1);
        let out = out.as_mut_ptr().cast();
        let e = Expand { w: panel, superblock_shift: w.superblock_shift, first, blocks, out, out_stride };
        // SAFETY: CPU checked; the blocks lie inside the panel, the last vector inside `out`.
        unsafe { (self.quant.widening[w.packing as usize].expand_f32)(&e) }
    }

    /// The product with f32 activations `x` (element `(row, k)` at `row * row_stride + k`).
    pub(crate) fn exact(&self, w: RowPanels<'_>, x: &[f32], x_row_stride: usize, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        let Some(kernel) = kernel(self.quant.widening[w.packing as usize].exact, rows, cols) else { return };
        w.check();
        // Rows without blocks are not read, and have no memory.
        assert!(w.blocks == 0 || reach(rows, x_row_stride) + BLOCK * w.blocks <= x.len());
        let tile = ExactTile {
            blocks: w.blocks,
            w: w.pointers(cols.div_ceil(LANES)),
            superblock_shift: w.superblock_shift,
            x: x.as_ptr(),
            x_row_stride,
            c_row_stride: c.row_stride(),
            cols,
            c: c.as_mut_ptr(),
        };
        // SAFETY: CPU checked; the checks cover weights and activations, and C has `rows` rows of `cols`.
        unsafe { kernel(&tile) }
    }

    /// The most panels and rows of one tile on widened weights.
    pub(crate) fn wide_tile(&self) -> (usize, usize) {
        (self.quant.wide.0, self.quant.wide.1.len())
    }

    /// The product of widened weights `w`, (k, 16 * panels of a tile), with f32 activations; `accumulate`
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
        let Some(kernel) = kernel(self.quant.wide, rows, cols) else { return };
        assert!(k * self.quant.wide.0 * LANES <= w.len());
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
        unsafe { kernel(&tile) }
    }
}
