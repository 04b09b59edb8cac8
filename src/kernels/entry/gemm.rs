//! The entries of the f32, f16 and bf16 products: checks of every bound that the register tiles rely on.

use super::bounds::reach;
use crate::kernels::generic::epilogue::{EpilogueArgs, TileRows};
use crate::kernels::generic::gemm::GemmTile;
use crate::kernels::set::{ElementType, Tiles};
use crate::kernels::{KernelSet, LANES};
use crate::matmul::{Dtype, Epilogue, Output};
use crate::view::MatMut;

/// An f32 operand with any strides: element `(i, p)` is `data[i * row_stride + p * k_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub k_stride: usize,
}

/// Elements of B. bf16 lies in pairs of k (see [`crate::kernels::generic::gemm::Bf16`]).
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
    /// bf16 one after the other.
    Bf16Rows(&'a [u16]),
}

impl Elements<'_> {
    pub(super) fn element_type(&self) -> ElementType {
        match self {
            Elements::F32(_) => ElementType::F32,
            Elements::F16(_) => ElementType::F16,
            Elements::Bf16(_) => ElementType::Bf16,
            Elements::Bf16Rows(_) => ElementType::Bf16Rows,
        }
    }

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

    fn element_bytes(&self) -> usize {
        match self {
            Elements::F32(_) => 4,
            Elements::F16(_) | Elements::Bf16(_) | Elements::Bf16Rows(_) => 2,
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

/// A micropanels that one call takes: micropanel `i` is the operand shifted by `i * stride` elements.
#[derive(Clone, Copy)]
pub(crate) struct APanels<'a> {
    pub operand: Operand<'a>,
    /// Rows of a micropanel: 1..=mr.
    pub rows: usize,
    pub stride: usize,
}

/// Panels of B that one call takes: panel `p` is the one given, shifted by `p * stride` elements. Each but
/// the last has `vectors` vectors, no more than the tile.
#[derive(Clone, Copy)]
pub(crate) struct BPanels<'a> {
    pub panel: Panel<'a>,
    pub stride: usize,
    pub vectors: usize,
}

/// Where results go.
pub(crate) struct COut<'a, T> {
    pub out: MatMut<'a, T>,
    /// The accumulators between parts of k; `None` keeps them in `out`, which then holds f32.
    pub accumulators: Option<MatMut<'a>>,
}

impl<T: Output> COut<'_, T> {
    /// Rows `row0..row0 + rows` of columns `col0..col0 + cols`.
    pub(crate) fn tile(&mut self, row0: usize, col0: usize, rows: usize, cols: usize) -> COut<'_, T> {
        COut {
            out: self.out.tile(row0, col0, rows, cols),
            accumulators: self.accumulators.as_mut().map(|c| c.tile(row0, col0, rows, cols)),
        }
    }
}

/// The epilogue of a tile, and where the tile lies in the operands of the epilogue.
#[derive(Clone, Copy)]
pub(crate) struct FusedEpilogue<'a> {
    pub epilogue: &'a Epilogue<'a>,
    /// Factors, `(rows, cols)`, and the elements from row to row.
    pub gate: Option<(&'a [f32], usize)>,
    /// Where the output of the call starts in the bias and in the gate.
    pub row: usize,
    pub col: usize,
    pub gate_col: usize,
}

impl KernelSet {
    /// The most rows of a GEMM tile.
    pub(crate) fn mr(&self) -> usize {
        self.gemm[0].len()
    }

    /// Whether the widest GEMM tile is one vector of 16 columns, so that it reads one cache line of each row of B.
    pub(crate) fn tile_is_narrow(&self) -> bool {
        self.nv(self.mr()) == 1
    }

    /// The most vectors of 16 columns of a GEMM tile of `rows` rows.
    pub(crate) fn nv(&self, rows: usize) -> usize {
        self.gemm[0][rows - 1].len()
    }

    /// `c[i][j] (accumulate: +)= chain over p of a[i][p] * b[p][j]` for at most [`KernelSet::mr`] rows and any number
    /// of columns, whose vectors lie evenly.
    pub(crate) fn gemm(&self, k: usize, a: Operand<'_>, b: Panel<'_>, c: MatMut<'_>, accumulate: bool) {
        let vectors = self.nv(c.rows().max(1));
        self.gemm_panels(k, a, b, c, accumulate, vectors);
    }

    /// [`KernelSet::gemm`] in tiles of at most `vectors` vectors, of which there are no more than
    /// [`KernelSet::nv`]: 1 reads B as one stream where the columns of a vector lie together.
    pub(crate) fn gemm_panels(
        &self,
        k: usize,
        a: Operand<'_>,
        b: Panel<'_>,
        c: MatMut<'_>,
        accumulate: bool,
        vectors: usize,
    ) {
        let a = APanels { operand: a, rows: c.rows().max(1), stride: 0 };
        let vectors = c.cols().div_ceil(LANES).clamp(1, vectors);
        let b = BPanels { panel: b, stride: vectors * b.vec_stride, vectors };
        self.gemm_strips(k, a, b, &mut COut { out: c, accumulators: None }, accumulate, None);
    }

    /// [`KernelSet::gemm`] for any multiple of `rows` rows, in micropanels of as many.
    pub(crate) fn gemm_rows(
        &self,
        k: usize,
        (a, rows): (Operand<'_>, usize),
        b: Panel<'_>,
        c: MatMut<'_>,
        accumulate: bool,
    ) {
        let vectors = c.cols().div_ceil(LANES).clamp(1, self.nv(rows));
        let a = APanels { operand: a, rows, stride: rows * a.row_stride };
        let b = BPanels { panel: b, stride: vectors * b.vec_stride, vectors };
        self.gemm_strips(k, a, b, &mut COut { out: c, accumulators: None }, accumulate, None);
    }

    /// The product of micropanels of A and of B, whose tiles are all alike but for the width of the last
    /// column of tiles. The rows of the output are whole A micropanels.
    pub(crate) fn gemm_strips<T: Output>(
        &self,
        k: usize,
        a: APanels<'_>,
        b: BPanels<'_>,
        c: &mut COut<'_, T>,
        accumulate: bool,
        fused: Option<FusedEpilogue<'_>>,
    ) {
        let table = self.gemm[b.panel.data.element_type() as usize];
        let Operand { data, row_stride, k_stride } = a.operand;
        let a_panels = c.out.rows() / a.rows;
        if k > 0 && a_panels > 0 {
            assert!(reach(a_panels, a.stride) + reach(a.rows, row_stride) + reach(k, k_stride) < data.len());
        }
        let strides = [row_stride, k_stride, a.stride];
        let step = b.panel.data.step();
        // SAFETY: the element of A that is furthest off was just checked.
        unsafe { self.tiles(table, (k, step), data.as_ptr(), strides, a.rows, b, c, accumulate, fused) }
    }

    /// Whether [`KernelSet::gemm_fast`] can run here.
    pub(crate) fn has_bf16_fast(&self) -> bool {
        (self.fast_bf16)().is_some()
    }

    /// [`KernelSet::gemm_strips`] with bf16 dot instructions: `a` holds rows of bf16 pairs of k, `row_stride`
    /// in pairs, A micropanels of `rows` rows follow each other, and B is bf16. Does nothing on a CPU without them.
    pub(crate) fn gemm_fast<T: Output>(
        &self,
        pairs: usize,
        (a, row_stride, rows): (&[[u16; 2]], usize, usize),
        b: BPanels<'_>,
        c: &mut COut<'_, T>,
        accumulate: bool,
        fused: Option<FusedEpilogue<'_>>,
    ) {
        let Some(fast) = (self.fast_bf16)() else { return };
        assert!(matches!(b.panel.data, Elements::Bf16(_)));
        if pairs > 0 && c.out.rows() > 0 {
            assert!(reach(c.out.rows(), row_stride) + pairs <= a.len());
        }
        let (strides, a) = ([row_stride, 1, rows * row_stride], a.as_ptr().cast());
        // SAFETY: the pair of A that is furthest off was just checked.
        unsafe { self.tiles(fast.tiles, (pairs, 1), a, strides, rows, b, c, accumulate, fused) }
    }

    /// [`KernelSet::gemm_fast`] for one micropanel and f32 results.
    pub(crate) fn gemm_fast_rows(
        &self,
        pairs: usize,
        (a, row_stride): (&[[u16; 2]], usize),
        b: BPanels<'_>,
        c: MatMut<'_>,
        accumulate: bool,
    ) {
        let rows = c.rows().max(1);
        let vectors = c.cols().div_ceil(LANES).clamp(1, b.vectors);
        let mut c = COut { out: c, accumulators: None };
        self.gemm_fast(pairs, (a, row_stride, rows), BPanels { vectors, ..b }, &mut c, accumulate, None);
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

    /// Runs the kernels of `table` on `k` steps, `step` of which share a group of B: one call for the columns of
    /// whole tiles, one for what is left.
    ///
    /// # Safety
    /// - `table` holds kernels that this CPU can run;
    /// - A is valid for the rows of `c` in micropanels of `rows`, and for `k` steps, at the strides given.
    #[allow(clippy::too_many_arguments)] // the operands of one kernel
    unsafe fn tiles<T: Output>(
        &self,
        table: Tiles<GemmTile>,
        (k, step): (usize, usize),
        a: *const f32,
        [a_row_stride, a_k_stride, a_panel_stride]: [usize; 3],
        rows: usize,
        b: BPanels<'_>,
        c: &mut COut<'_, T>,
        accumulate: bool,
        fused: Option<FusedEpilogue<'_>>,
    ) {
        let (all_rows, cols) = (c.out.rows(), c.out.cols());
        if all_rows == 0 || cols == 0 {
            return;
        }
        let a_panels = all_rows / rows;
        assert!(a_panels * rows == all_rows);
        let vectors = cols.div_ceil(LANES);
        let kernels = table[rows - 1];
        let b_panels = if vectors < b.vectors { 0 } else { vectors / b.vectors };
        let rest = vectors - b_panels * b.vectors;
        if k > 0 {
            let pair = if matches!(b.panel.data, Elements::Bf16(_)) { 2 } else { 1 };
            let groups = reach(k.div_ceil(step), b.panel.k_stride);
            let reach_of = |panel: usize, vectors: usize| {
                panel * b.stride + groups + reach(vectors, b.panel.vec_stride) + LANES * pair
            };
            let furthest = if rest > 0 { reach_of(b_panels, rest) } else { 0 };
            let furthest =
                if b_panels > 0 { furthest.max(reach_of(b_panels - 1, b.vectors)) } else { furthest };
            assert!(furthest <= b.panel.data.len());
        }
        let args = fused.map(|f| f.of(self.epilogue_rows, &mut c.out));
        let (c, c_row_stride) = match (&mut c.accumulators, T::as_f32(&mut c.out)) {
            (Some(accumulators), _) => {
                assert!(accumulators.rows() == all_rows && accumulators.cols() == cols);
                (accumulators.as_mut_ptr(), accumulators.row_stride())
            }
            (None, Some(mut out)) => (out.as_mut_ptr(), out.row_stride()),
            (None, None) => {
                assert!(!accumulate && args.is_some());
                (std::ptr::null_mut(), 0)
            }
        };
        let tail = cols - (vectors - 1) * LANES;
        let mut tile = GemmTile {
            k,
            a,
            a_row_stride,
            a_k_stride,
            a_panel_stride,
            b: b.panel.data.as_ptr(),
            b_k_stride: b.panel.k_stride,
            b_vec_stride: b.panel.vec_stride,
            b_panel_stride: b.stride,
            c,
            c_row_stride,
            a_panels,
            b_panels,
            tail: if rest == 0 { tail } else { LANES },
            accumulate,
            epilogue: args.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
        };
        if b_panels > 0 {
            // SAFETY: the CPU and A: as the caller says; B was checked; C and the operands of the epilogue have
            // `a_panels * rows` rows of `cols` elements.
            unsafe { kernels[b.vectors - 1](&tile) }
        }
        if rest > 0 {
            let col = b_panels * b.vectors * LANES;
            let moved = args.map(|f| f.moved(col));
            tile.b = tile.b.wrapping_add(b_panels * b.stride * b.panel.data.element_bytes());
            tile.c = tile.c.wrapping_add(col);
            (tile.b_panels, tile.tail) = (1, tail);
            tile.epilogue = moved.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: as above, for the last columns.
            unsafe { kernels[rest - 1](&tile) }
        }
    }
}

impl FusedEpilogue<'_> {
    /// The operands as kernels take them, checked against the output.
    fn of<T: Output>(
        &self,
        rows_kernel: unsafe fn(&EpilogueArgs, &TileRows),
        out: &mut MatMut<'_, T>,
    ) -> EpilogueArgs {
        let (rows, cols) = (out.rows(), out.cols());
        let epilogue = self.epilogue;
        assert!(epilogue.beta == 0.0 || T::DTYPE == Dtype::F32);
        let gate = self.gate.map_or(std::ptr::null(), |(gate, stride)| {
            let gate = &gate[self.row * stride + self.gate_col..];
            assert!(reach(rows, stride) + cols <= gate.len());
            gate.as_ptr()
        });
        EpilogueArgs {
            out_row_stride: out.row_stride(),
            out: out.as_mut_ptr().cast(),
            dtype: T::DTYPE,
            bias: epilogue.bias.map_or(std::ptr::null(), |bias| bias[self.col..self.col + cols].as_ptr()),
            gate,
            gate_row_stride: self.gate.map_or(0, |(_, stride)| stride),
            alpha: epilogue.alpha,
            beta: epilogue.beta,
            activation: epilogue.activation,
            rows: rows_kernel,
        }
    }
}

impl EpilogueArgs {
    /// The same from column `col` on.
    fn moved(self, col: usize) -> EpilogueArgs {
        let moved = |p: *const f32| if p.is_null() { p } else { p.wrapping_add(col) };
        EpilogueArgs {
            out: self.out.wrapping_add(col * self.dtype.bytes()),
            bias: moved(self.bias),
            gate: moved(self.gate),
            ..self
        }
    }
}
