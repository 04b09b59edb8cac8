//! The entries of the f32, f16 and bf16 products: checks of every bound that the register tiles rely on.

use super::bounds::reach;
use super::operands::{AData, APanels, BPanels, COut, Elements, FusedEpilogue, Operand, Panel, TileCall};
use crate::dtype::{Dtype, Element};
use crate::kernels::generic::epilogue::{EpilogueArgs, TileRows};
use crate::kernels::generic::gemm::GemmTile;
use crate::kernels::{KernelSet, LANES};
use crate::view::MatMut;

impl KernelSet {
    /// The most rows of a GEMM tile.
    pub(crate) fn mr(&self) -> usize {
        self.gemm[0].len()
    }

    /// Whether the widest GEMM tile is one vector of 16 columns, so that it reads one cache line of each row
    /// of B.
    pub(crate) fn tile_is_narrow(&self) -> bool {
        self.nv(self.mr()) == 1
    }

    /// The most vectors of 16 columns of a GEMM tile of `rows` rows.
    pub(crate) fn nv(&self, rows: usize) -> usize {
        self.gemm[0][rows - 1].len()
    }

    /// The same for 16-bit elements of B.
    pub(crate) fn nv_of_packed(&self, rows: usize) -> usize {
        self.gemm[1][rows - 1].len()
    }

    /// `c[i][j] (accumulate: +)= chain over p of a[i][p] * b[p][j]` for at most [`KernelSet::mr`] rows and
    /// any number of columns of f32, whose vectors lie evenly.
    pub(crate) fn gemm(&self, k: usize, a: Operand<'_>, b: Panel<'_>, c: MatMut<'_>, accumulate: bool) {
        let vectors = self.nv(c.rows().max(1));
        self.gemm_panels(k, a, b, c, accumulate, vectors);
    }

    /// [`KernelSet::gemm`] in tiles of at most `vectors` vectors, of which there are no more than
    /// [`KernelSet::nv`]: 1 reads B as one stream where the columns of a vector lie together.
    #[inline]
    pub(crate) fn gemm_panels(
        &self,
        k: usize,
        a: Operand<'_>,
        b: Panel<'_>,
        c: MatMut<'_>,
        accumulate: bool,
        vectors: usize,
    ) {
        let Operand { data, row_stride, k_stride } = a;
        let a = APanels { data: AData::F32(data), rows: c.rows().max(1), row_stride, k_stride, stride: 0 };
        let b = BPanels::even(b, c.cols(), vectors);
        self.gemm_tiles(
            TileCall { k, accumulate, epilogue: None },
            a,
            b,
            &mut COut { out: c, accumulators: None },
        );
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
        let Operand { data, row_stride, k_stride } = a;
        let a = APanels { data: AData::F32(data), rows, row_stride, k_stride, stride: rows * row_stride };
        let b = BPanels::even(b, c.cols(), self.nv(rows));
        self.gemm_tiles(
            TileCall { k, accumulate, epilogue: None },
            a,
            b,
            &mut COut { out: c, accumulators: None },
        );
    }

    /// [`KernelSet::gemm`] with bf16 dot instructions over `pairs` pairs of k. Does nothing on a CPU without
    /// them.
    pub(crate) fn gemm_fast_rows(
        &self,
        pairs: usize,
        (a, row_stride): (&[[u16; 2]], usize),
        b: Panel<'_>,
        c: MatMut<'_>,
        accumulate: bool,
    ) {
        let a = APanels { data: AData::Bf16(a), rows: c.rows().max(1), row_stride, k_stride: 1, stride: 0 };
        let b = BPanels::even(b, c.cols(), self.nv(self.mr()));
        let call = TileCall { k: pairs, accumulate, epilogue: None };
        self.gemm_tiles(call, a, b, &mut COut { out: c, accumulators: None });
    }

    /// Whether A may be bf16 here.
    pub(crate) fn has_bf16_fast(&self) -> bool {
        (self.fast_bf16)().is_some()
    }

    /// Rounds a row to bf16 for [`AData::Bf16`]: to nearest even, subnormals to zero; an odd end is
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

    /// The product of micropanels of A and of B into C, whose rows are whole micropanels of A: one kernel
    /// call for the columns of whole tiles, one for the columns that are left. bf16 A needs bf16 B, and does
    /// nothing on a CPU without the dot instructions. bf16 B lies in pairs of k.
    pub(crate) fn gemm_tiles<T: Element>(
        &self,
        call: TileCall<'_>,
        a: APanels<'_>,
        b: BPanels<'_>,
        c: &mut COut<'_, T>,
    ) {
        let TileCall { k, accumulate, epilogue } = call;
        let (rows, cols) = (c.out.rows(), c.out.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let paired = matches!(b.data, Elements::Bf16(_));
        // `step` of the steps of k that A counts share a group of B.
        let (tables, step) = match a.data {
            AData::F32(_) => (self.gemm[b.data.element_type() as usize], b.data.step()),
            AData::Bf16(_) => {
                assert!(paired);
                let Some(fast) = (self.fast_bf16)() else { return };
                (fast.tiles, 1)
            }
        };
        let kernels = tables[a.rows - 1];
        let a_panels = rows / a.rows;
        assert!(a_panels * a.rows == rows);
        let vectors = cols.div_ceil(LANES);
        let b_panels = if vectors < b.vectors { 0 } else { vectors / b.vectors };
        let rest = vectors - b_panels * b.vectors;
        if k > 0 {
            let a_reach = reach(a_panels, a.stride) + reach(a.rows, a.row_stride) + reach(k, a.k_stride);
            assert!(a_reach < a.data.len());
            let group = LANES * if paired { 2 } else { 1 };
            let groups = reach(k.div_ceil(step), b.k_stride);
            let reach_of = |panel: usize, vectors: usize| {
                panel * b.stride + groups + reach(vectors, b.vec_stride) + group
            };
            let furthest = if rest > 0 { reach_of(b_panels, rest) } else { 0 };
            let furthest =
                if b_panels > 0 { furthest.max(reach_of(b_panels - 1, b.vectors)) } else { furthest };
            assert!(furthest <= b.data.len());
        }
        let args = epilogue.map(|e| e.args(self.epilogue_rows, &mut c.out));
        let (c, c_row_stride) = match &mut c.accumulators {
            Some(accumulators) => {
                assert!(accumulators.rows() == rows && accumulators.cols() == cols);
                (accumulators.as_mut_ptr(), accumulators.row_stride())
            }
            None if T::DTYPE == Dtype::F32 => (c.out.as_mut_ptr().cast(), c.out.row_stride()),
            None => {
                assert!(!accumulate && args.is_some());
                (std::ptr::null_mut(), 0)
            }
        };
        let tail = cols - (vectors - 1) * LANES;
        let mut tile = GemmTile {
            k,
            a: a.data.as_ptr(),
            a_row_stride: a.row_stride,
            a_k_stride: a.k_stride,
            a_panel_stride: a.stride,
            b: b.data.as_ptr(),
            b_k_stride: b.k_stride,
            b_vec_stride: b.vec_stride,
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
            // SAFETY: the CPU has the kernels of its table. The furthest elements of A and B were checked; C
            // and the operands of the epilogue have `rows` rows of `cols` elements.
            unsafe { kernels[b.vectors - 1](&tile) }
        }
        if rest > 0 {
            let col = b_panels * b.vectors * LANES;
            let moved = args.map(|args| args.moved(col));
            tile.b = tile.b.wrapping_add(b_panels * b.stride * b.data.element_bytes());
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
    fn args<T: Element>(
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
