//! The doors: safe functions that check every bound a kernel relies on, then enter it.
//!
//! A failed check is a bug of a driver, not of a caller (whose shapes were validated before), so it is an
//! assertion; it costs a few comparisons for each tile of thousands of operations.

use super::*;
use crate::matmul::Epilogue;
use crate::view::MatMut;

/// An f32 operand with any strides: element `(i, p)` is `data[i * row_stride + p * k_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub k_stride: usize,
}

/// Elements of B. bf16 lies in pairs of k (see [`generic::gemm::Bf16`]).
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
    /// bf16 one after the other.
    Bf16Rows(&'a [u16]),
}

impl Elements<'_> {
    /// Steps of k that are stored together.
    pub(crate) fn step(&self) -> usize {
        match self {
            Elements::F32(_) | Elements::F16(_) | Elements::Bf16Rows(_) => 1,
            Elements::Bf16(_) => 2,
        }
    }

    /// The elements from `start` on.
    pub(crate) fn from(&self, start: usize) -> Self {
        match *self {
            Elements::F32(x) => Elements::F32(&x[start..]),
            Elements::F16(x) => Elements::F16(&x[start..]),
            Elements::Bf16(x) => Elements::Bf16(&x[start..]),
            Elements::Bf16Rows(x) => Elements::Bf16Rows(&x[start..]),
        }
    }

    /// The elements of a range.
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> Self {
        match *self {
            Elements::F32(x) => Elements::F32(&x[range]),
            Elements::F16(x) => Elements::F16(&x[range]),
            Elements::Bf16(x) => Elements::Bf16(&x[range]),
            Elements::Bf16Rows(x) => Elements::Bf16Rows(&x[range]),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::F16(x) | Elements::Bf16(x) | Elements::Bf16Rows(x) => x.len(),
        }
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        match self {
            Elements::F32(x) => x.as_ptr().cast(),
            Elements::F16(x) | Elements::Bf16(x) | Elements::Bf16Rows(x) => x.as_ptr().cast(),
        }
    }
}

/// Columns of B in vectors of 16 by `step` k: vector `(g, v)` starts at `g * k_stride + v * vec_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub data: Elements<'a>,
    pub k_stride: usize,
    pub vec_stride: usize,
}

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
    /// The most rows of a GEMM tile.
    pub(crate) fn mr(&self) -> usize {
        self.gemm_f32.len()
    }

    /// The most vectors of 16 columns of a GEMM tile of `rows` rows.
    pub(crate) fn nv(&self, rows: usize) -> usize {
        self.gemm_f32[rows - 1].len()
    }

    /// `c[i][j] (resume: +)= chain over p of a[i][p] * b[p][j]` for one register tile.
    pub(crate) fn gemm(&self, k: usize, a: Operand<'_>, b: Panel<'_>, c: MatMut<'_>, resume: bool) {
        let table = match b.data {
            Elements::F32(_) => self.gemm_f32,
            Elements::F16(_) => self.gemm_f16,
            Elements::Bf16(_) => self.gemm_bf16,
            Elements::Bf16Rows(_) => self.gemm_bf16_rows,
        };
        if k > 0 && c.rows() > 0 {
            assert!(reach(c.rows(), a.row_stride) + reach(k, a.k_stride) < a.data.len());
        }
        let strides = (a.row_stride, a.k_stride);
        // SAFETY: the element of A that is furthest off was just checked.
        unsafe { Self::tile(table, k, b.data.step(), a.data.as_ptr(), strides, b, c, resume) }
    }

    /// Whether [`KernelSet::gemm_fast`] can run here.
    pub(crate) fn has_bf16_fast(&self) -> bool {
        (self.fast_bf16)().is_some()
    }

    /// [`KernelSet::gemm`] with bf16 dot instructions: `a` holds rows of bf16 pairs of k, `row_stride` in
    /// pairs, and B is bf16. Does nothing on a CPU without them.
    pub(crate) fn gemm_fast(
        &self,
        pairs: usize,
        a: (&[[u16; 2]], usize),
        b: Panel<'_>,
        c: MatMut<'_>,
        resume: bool,
    ) {
        let Some(fast) = (self.fast_bf16)() else { return };
        let (a, row_stride) = a;
        assert!(matches!(b.data, Elements::Bf16(_)));
        if pairs > 0 && c.rows() > 0 {
            assert!(reach(c.rows(), row_stride) + pairs <= a.len());
        }
        // SAFETY: the pair of A that is furthest off was just checked.
        unsafe { Self::tile(fast.tiles, pairs, 1, a.as_ptr().cast(), (row_stride, 1), b, c, resume) }
    }

    /// Rounds a row to bf16 for [`KernelSet::gemm_fast`]: to nearest even, subnormals to zero; an odd end is
    /// paired with zero. Does nothing on a CPU without the instructions.
    pub(crate) fn round_to_bf16(&self, x: &[f32], out: &mut [[u16; 2]]) {
        let Some(fast) = (self.fast_bf16)() else { return };
        assert!(out.len() == x.len().div_ceil(2));
        if x.len() % 2 == 1
            && let Some(last) = out.last_mut()
        {
            last[1] = 0;
        }
        // SAFETY: the CPU has the instructions; `out` holds at least as many elements as `x`.
        unsafe { (fast.round)(x.as_ptr(), x.len(), out.as_mut_ptr().cast()) }
    }

    /// Runs the kernel of `table` for the shape of `c` on `k` steps, `step` of which share a group of B.
    ///
    /// # Safety
    /// - `table` holds kernels that this CPU can run;
    /// - A is valid for the rows of `c` and `k` steps at the strides given.
    #[allow(clippy::too_many_arguments)] // the operands of one kernel
    unsafe fn tile(
        table: Tiles<GemmTile>,
        k: usize,
        step: usize,
        a: *const f32,
        (a_row_stride, a_k_stride): (usize, usize),
        b: Panel<'_>,
        mut c: MatMut<'_>,
        resume: bool,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let (vectors, groups) = (cols.div_ceil(LANES), k.div_ceil(step));
        if k > 0 {
            let last = reach(groups, b.k_stride) + reach(vectors, b.vec_stride);
            let pair = if matches!(b.data, Elements::Bf16(_)) { 2 } else { 1 };
            assert!(last + LANES * pair <= b.data.len());
        }
        let tile = GemmTile {
            k,
            a,
            a_row_stride,
            a_k_stride,
            b: b.data.as_ptr(),
            b_k_stride: b.k_stride,
            b_vec_stride: b.vec_stride,
            c_row_stride: c.row_stride(),
            tail: cols - (vectors - 1) * LANES,
            c: c.as_mut_ptr(),
            resume,
        };
        // SAFETY: the CPU and A: as the caller says; B was checked; C has `rows` rows of `cols` elements.
        unsafe { table[rows - 1][vectors - 1](&tile) }
    }

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
