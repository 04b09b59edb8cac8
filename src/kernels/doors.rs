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
}

impl Elements<'_> {
    /// Steps of k that are stored together.
    pub(crate) fn step(&self) -> usize {
        match self {
            Elements::F32(_) | Elements::F16(_) => 1,
            Elements::Bf16(_) => 2,
        }
    }

    /// The elements from `start` on.
    pub(crate) fn from(&self, start: usize) -> Self {
        match *self {
            Elements::F32(x) => Elements::F32(&x[start..]),
            Elements::F16(x) => Elements::F16(&x[start..]),
            Elements::Bf16(x) => Elements::Bf16(&x[start..]),
        }
    }

    fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::F16(x) | Elements::Bf16(x) => x.len(),
        }
    }

    fn as_ptr(&self) -> *const u8 {
        match self {
            Elements::F32(x) => x.as_ptr().cast(),
            Elements::F16(x) | Elements::Bf16(x) => x.as_ptr().cast(),
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
}
