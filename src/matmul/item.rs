//! One work item of a product: LOOP 4 to LOOP 1 over a tile of the output.

use super::blocking::{BAccess, Blocking, STREAM_KC, even_split, panel_width};
use super::driver::Source;
use super::pack::{BlockOfB, Panels, pack_a, pack_a_bf16, pack_b, pack_panel};
use super::{Dtype, Epilogue, Output, PackedB};
use crate::buffer::Arena;
use crate::kernels::{APanels, BPanels, COut, Elements, FusedEpilogue, KernelSet, LANES, Operand, Panel};
use crate::view::{MatMut, MatRef, Origin};

/// What all work items of a product share.
pub(super) struct Item<'a> {
    pub kernels: &'static KernelSet,
    pub blocking: Blocking,
    pub a: MatRef<'a>,
    pub b: Source<'a>,
    pub up: Option<&'a PackedB>,
    /// Steps of the product with B: 0 where alpha is 0, so that B is not read. Those with UP are all of k.
    pub k: usize,
    /// Whether A is rounded to bf16 for the bf16 dot instructions.
    pub fast: bool,
    pub epilogue: Epilogue<'a>,
}

impl Item<'_> {
    /// One work item: the tile `c` of the output, all of k, and the epilogue on the last part of it.
    pub(super) fn run<T: Output>(&self, arena: Arena<'_>, origin: Origin, c: MatMut<'_, T>) {
        let (rows, cols) = (c.rows(), c.cols());
        let (a_pack, b_pack, scratch) = self.scratch(arena);
        let most = self.blocking.tile_rows * self.blocking.tile_cols;
        let (gate, accumulators) = scratch.split_at_mut(if self.up.is_some() { most } else { 0 });
        if let (Some(up), Ok(out)) = (self.up, MatMut::dense(gate, rows, cols)) {
            let mut gate = COut { out, accumulators: None };
            self.accumulate((Source::Packed(up), self.a.cols()), (a_pack, b_pack), origin, &mut gate, None);
        }
        let gate = self.up.map(|_| (&*gate, cols)); // (rows, cols)
        let fused = FusedEpilogue { epilogue: &self.epilogue, gate, row: 0, col: origin.col, gate_col: 0 };
        let plain = gate.is_none() && self.epilogue.is_plain() && T::DTYPE == Dtype::F32;
        // (rows, cols): accumulators between parts of k, where C cannot hold them.
        let accumulators = match accumulators {
            [] => None,
            accumulators => MatMut::dense(&mut accumulators[..rows * cols], rows, cols).ok(),
        };
        let mut out = COut { out: c, accumulators };
        let fused = if plain { None } else { Some(fused) };
        self.accumulate((self.b, self.k), (a_pack, b_pack), origin, &mut out, fused);
    }

    /// The product of the tile at `origin` with the first `k` rows of one B, into `out`.
    fn accumulate<T: Output>(
        &self,
        (b, k): (Source<'_>, usize),
        (a_pack, b_pack): (&mut [f32], &mut [f32]),
        origin: Origin,
        out: &mut COut<'_, T>,
        fused: Option<FusedEpilogue<'_>>,
    ) {
        let (rows, cols) = (out.out.rows(), out.out.cols());
        // LOOP 4: split k into kc parts. The accumulators are stored after each part and
        // loaded for the next one: same bits.
        let mut p0 = 0;
        loop {
            let kc = self.blocking.kc.min(k - p0);
            let last = p0 + kc >= k;
            let block = self.block_of_b(b, b_pack, (p0, kc), (origin.col, cols));
            let part = Part { kc, accumulate: p0 > 0, fused: if last { fused } else { None } };
            // LOOP 3: split the rows into mc parts.
            let mut ic = 0;
            while ic < rows {
                let mc = self.blocking.mc.min(rows - ic);
                let panel_rows = match self.blocking.panel_rows {
                    0 => even_split(mc, self.kernels.mr(), 1),
                    most => most.min(mc),
                };
                self.pack_block_of_a((origin.row + ic, mc), (p0, kc), panel_rows, a_pack);
                let rows = Rows { first: ic, rows: mc, panel_rows };
                a_panels(self.kernels, &part, &rows, &block, out, |ir, mr| {
                    self.panels_of_a((origin.row + ic, ir, mr), (p0, kc), a_pack)
                });
                ic += mc;
            }
            p0 += kc;
            if last {
                break;
            }
        }
    }

    /// Copies a block of A into scratch where the tile cannot read it as it lies.
    fn pack_block_of_a(&self, rows: (usize, usize), k: (usize, usize), panel_rows: usize, pack: &mut [f32]) {
        if self.fast {
            pack_a_bf16(self.kernels, self.a, rows, k, bytemuck::cast_slice_mut(pack));
        } else if self.a.is_transposed() {
            pack_a(self.a, rows, k, panel_rows, pack);
        }
    }

    /// A micropanels of `mr` rows from row `ir` on of the block of A that starts at `row0`.
    fn panels_of_a<'s>(
        &'s self,
        (row0, ir, mr): (usize, usize, usize),
        (p0, kc): (usize, usize),
        pack: &'s [f32],
    ) -> PanelsOfA<'s> {
        if self.fast {
            let pairs = kc.div_ceil(2);
            return PanelsOfA::Bf16(&bytemuck::cast_slice(pack)[ir * pairs..], pairs);
        }
        if self.a.is_transposed() {
            return PanelsOfA::F32(Operand { data: &pack[ir * kc..], row_stride: 1, k_stride: mr }, mr * kc);
        }
        let (row_stride, k_stride) = self.a.strides();
        let data = self.a.from(row0 + ir, p0);
        PanelsOfA::F32(Operand { data, row_stride, k_stride }, mr * row_stride)
    }

    /// The three parts of a worker's scratch: packed A, packed B, accumulators.
    fn scratch<'s>(&self, mut arena: Arena<'s>) -> (&'s mut [f32], &'s mut [f32], &'s mut [f32]) {
        let [a, b, c] = self.blocking.scratch.map(|len| {
            let part = arena.take::<f32>(len);
            debug_assert!(part.is_ok(), "the scratch was sized by the same numbers");
            part.unwrap_or_default()
        });
        (a, b, c)
    }

    /// Rows `p0..p0 + kc` of columns `col0..col0 + cols` of B: packed, or where they lie.
    fn block_of_b<'s>(
        &self,
        b: Source<'s>,
        pack: &'s mut [f32],
        (p0, kc): (usize, usize),
        (col0, cols): (usize, usize),
    ) -> Block<'s> {
        match b {
            Source::Packed(b) => Block::Packed { panels: b.panels(), p0, col0 },
            Source::Matrix(b) if self.blocking.b_access == BAccess::Pack => {
                let width = panel_width(self.kernels);
                let block = BlockOfB { k: (p0, kc), cols: (col0, cols) };
                pack_b(self.kernels, b, block, (width, 1), pack);
                let panels = Panels { data: Elements::F32(pack), k: kc, cols, width };
                Block::Packed { panels, p0: 0, col0: 0 }
            }
            Source::Matrix(b) => {
                let whole = cols / LANES * LANES;
                if whole < cols {
                    let block = BlockOfB { k: (p0, kc), cols: (col0 + whole, cols - whole) };
                    pack_panel(self.kernels, b, block, (LANES, 1), &mut pack[..kc * LANES]);
                }
                // With few rows of B at a time, wide tiles are slower: 21.4 GB/s with 8 vectors, 22.7 with 4.
                let widest = if kc <= STREAM_KC { panel_width(self.kernels) } else { usize::MAX };
                Block::InPlace { b, p0, col0, whole, ragged: pack, widest }
            }
        }
    }
}

/// A product of a single item and a single part of k, whose operands all lie as the kernel reads them: the
/// loops without a plan, scratch or a cursor, which are 150 of the 350 cycles that a call costs besides its
/// arithmetic.
pub(super) fn small<T: Output>(
    kernels: &KernelSet,
    a: MatRef<'_>,
    b: Source<'_>,
    k: usize,
    c: MatMut<'_, T>,
    epilogue: &Epilogue<'_>,
) {
    let (rows, whole) = (c.rows(), c.cols());
    let block = match b {
        Source::Packed(b) => Block::Packed { panels: b.panels(), p0: 0, col0: 0 },
        Source::Matrix(b) => Block::InPlace { b, p0: 0, col0: 0, whole, ragged: &[], widest: usize::MAX },
    };
    let plain = epilogue.is_plain() && T::DTYPE == Dtype::F32;
    let fused = FusedEpilogue { epilogue, gate: None, row: 0, col: 0, gate_col: 0 };
    let part = Part { kc: k, accumulate: false, fused: if plain { None } else { Some(fused) } };
    let (row_stride, k_stride) = a.strides();
    let rows = Rows { first: 0, rows, panel_rows: even_split(rows, kernels.mr(), 1) };
    a_panels(kernels, &part, &rows, &block, &mut COut { out: c, accumulators: None }, |ir, mr| {
        PanelsOfA::F32(Operand { data: a.from(ir, 0), row_stride, k_stride }, mr * row_stride)
    });
}

/// Rows `first..first + rows` of an output, in A micropanels of `panel_rows` rows.
struct Rows {
    first: usize,
    rows: usize,
    panel_rows: usize,
}

/// LOOP 2 and LOOP 1, which run in the kernel: once for the whole A micropanels, once for the
/// rows that are left. `a(ir, mr)` gives the micropanels of `mr` rows from row `ir` on.
fn a_panels<'a, T: Output>(
    kernels: &KernelSet,
    part: &Part<'_>,
    rows: &Rows,
    b: &Block<'_>,
    out: &mut COut<'_, T>,
    a: impl Fn(usize, usize) -> PanelsOfA<'a>,
) {
    let whole =
        if rows.rows == rows.panel_rows { rows.rows } else { rows.rows / rows.panel_rows * rows.panel_rows };
    b_panels(kernels, part, (a(0, rows.panel_rows), rows.panel_rows), b, (rows.first, whole), out);
    let rest = rows.rows - whole;
    if rest > 0 {
        b_panels(kernels, part, (a(whole, rest), rest), b, (rows.first + whole, rest), out);
    }
}

/// A micropanels of `mr` rows against all columns of the item, in evenly strided runs of B micropanels.
fn b_panels<T: Output>(
    kernels: &KernelSet,
    part: &Part<'_>,
    (a, mr): (PanelsOfA<'_>, usize),
    b: &Block<'_>,
    (row, rows): (usize, usize),
    out: &mut COut<'_, T>,
) {
    let cols = out.out.cols();
    // Narrow panels, of another tier's tile, are joined up to a tile of this one; those of bf16 pairs do not grow
    // where rows are few.
    let nr = match a {
        PanelsOfA::F32(..) => kernels.nv(mr),
        PanelsOfA::Bf16(..) => kernels.nv(kernels.mr()),
    } * LANES;
    let mut jr = 0;
    while jr < cols {
        let (run, width) = b.run(jr, cols - jr, nr);
        let mut c = out.tile(row, jr, rows, width);
        let fused = part.fused.map(|f| FusedEpilogue { row, col: f.col + jr, gate_col: jr, ..f });
        match a {
            PanelsOfA::F32(operand, stride) => {
                let a = APanels { operand, rows: mr, stride };
                kernels.gemm_strips(part.kc, a, run, &mut c, part.accumulate, fused);
            }
            PanelsOfA::Bf16(a, row_stride) => {
                let (pairs, a) = (part.kc.div_ceil(2), (a, row_stride, mr));
                kernels.gemm_fast(pairs, a, run, &mut c, part.accumulate, fused);
            }
        }
        jr += width;
    }
}

/// One part of k.
struct Part<'a> {
    kc: usize,
    accumulate: bool,
    /// Applied to the accumulators after the last part.
    fused: Option<FusedEpilogue<'a>>,
}

/// A micropanels as the kernel reads them: f32 and the elements from micropanel to micropanel, or rows of bf16 pairs
/// with a row stride.
#[derive(Clone, Copy)]
enum PanelsOfA<'a> {
    F32(Operand<'a>, usize),
    Bf16(&'a [[u16; 2]], usize),
}

/// A block of B as LOOP 1 reads it.
enum Block<'a> {
    Packed {
        panels: Panels<'a>,
        p0: usize,
        col0: usize,
    },
    /// Columns below `whole` lie in `b`; the ragged last vector is a padded copy, because vectors are
    /// loaded whole and nothing beyond the matrix is ever read.
    InPlace {
        b: MatRef<'a>,
        p0: usize,
        col0: usize,
        whole: usize,
        ragged: &'a [f32],
        /// Columns of a tile at most.
        widest: usize,
    },
}

impl<'a> Block<'a> {
    /// Panels of `nr` columns from column `jr` on, as many as lie evenly, and how many of the `cols` columns
    /// that are left they cover.
    fn run(&self, jr: usize, cols: usize, nr: usize) -> (BPanels<'a>, usize) {
        match *self {
            Block::Packed { panels, p0, col0 } => panels.run(p0, col0 + jr, cols, nr),
            Block::InPlace { b, p0, col0, whole, widest, .. } if jr < whole => {
                let nr = nr.min(widest);
                let data = Elements::F32(b.from(p0, col0 + jr));
                let panel = Panel { data, k_stride: b.strides().0, vec_stride: LANES };
                (BPanels { panel, stride: nr, vectors: nr / LANES }, whole - jr)
            }
            Block::InPlace { ragged, .. } => {
                let data = Elements::F32(ragged);
                let panel = Panel { data, k_stride: LANES, vec_stride: LANES };
                (BPanels { panel, stride: 0, vectors: 1 }, cols)
            }
        }
    }
}
