//! One work item of a product: LOOP 4 to LOOP 1 over a tile of the output (see [`driver`](super::driver)).

use super::blocking::{BAccess, Blocking, STREAM_KC, Scratch, even_split, panel_width};
use super::pack::{BlockOfB, Panels, Source, Span, pack_a, pack_a_bf16, pack_b, pack_panel};
use super::request::Request;
use crate::buffer::Arena;
use crate::dtype::{Dtype, Element};
use crate::epilogue::Epilogue;
use crate::kernels::{AData, APanels, BPanels, COut, Elements, FusedEpilogue, KernelSet, LANES, TileCall};
use crate::tiles::Origin;
use crate::view::{MatMut, MatRef};

/// What all work items of a product share.
pub(super) struct Item<'a> {
    pub request: &'a Request<'a>,
    pub kernels: &'static KernelSet,
    pub blocking: Blocking,
    /// Steps of the product with B: 0 where alpha is 0, so that B is not read. Those with UP are all of k.
    pub k: usize,
    /// Whether A is rounded to bf16 for the bf16 dot instructions.
    pub fast: bool,
}

impl Item<'_> {
    /// One work item: the tile `c` of the output, all of k, and the epilogue on the last part of it.
    pub(super) fn run<T: Element>(&self, arena: Arena<'_>, origin: Origin, c: MatMut<'_, T>) {
        let (rows, cols) = (c.rows(), c.cols());
        let (a_pack, b_pack, scratch) = self.scratch(arena);
        let most = self.blocking.tile_rows * self.blocking.tile_cols;
        let (gate, accumulators) = scratch.split_at_mut(if self.request.up.is_some() { most } else { 0 });
        if let (Some(up), Ok(out)) = (self.request.up, MatMut::dense(gate, rows, cols)) {
            let mut gate = COut { out, accumulators: None };
            self.accumulate(
                (Source::Packed(up), self.request.a.cols()),
                (a_pack, b_pack),
                origin,
                &mut gate,
                None,
            );
        }
        let gate = self.request.up.map(|_| (&*gate, cols)); // (rows, cols)
        let fused =
            FusedEpilogue { epilogue: &self.request.epilogue, gate, row: 0, col: origin.col, gate_col: 0 };
        let plain = gate.is_none() && self.request.epilogue.is_plain() && T::DTYPE == Dtype::F32;
        // (rows, cols): accumulators between parts of k, where C cannot hold them.
        let accumulators = match accumulators {
            [] => None,
            accumulators => MatMut::dense(&mut accumulators[..rows * cols], rows, cols).ok(),
        };
        let mut out = COut { out: c, accumulators };
        let fused = if plain { None } else { Some(fused) };
        self.accumulate((self.request.b, self.k), (a_pack, b_pack), origin, &mut out, fused);
    }

    /// The product of the tile at `origin` with the first `k` rows of one B, into `out`.
    fn accumulate<T: Element>(
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
            let (last, steps) = (p0 + kc >= k, Span { start: p0, len: kc });
            let block = self.block_of_b(b, b_pack, steps, Span { start: origin.col, len: cols });
            let call = TileCall { k: kc, accumulate: p0 > 0, epilogue: if last { fused } else { None } };
            // LOOP 3: split the rows into mc parts.
            let mut ic = 0;
            while ic < rows {
                let mc = self.blocking.mc.min(rows - ic);
                let panel_rows = match self.blocking.panel_rows {
                    0 => even_split(mc, self.kernels.mr(), 1),
                    most => most.min(mc),
                };
                let in_a = Span { start: origin.row + ic, len: mc };
                self.pack_block_of_a(in_a, steps, panel_rows, a_pack);
                let rows = Rows { in_c: Span { start: ic, len: mc }, panel_rows };
                a_panels(self.kernels, call, &rows, &block, out, |ir, mr| {
                    self.panels_of_a(Micropanels { block: in_a.start, first: ir, rows: mr }, steps, a_pack)
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
    fn pack_block_of_a(&self, rows: Span, k: Span, panel_rows: usize, pack: &mut [f32]) {
        if self.fast {
            pack_a_bf16(self.kernels, self.request.a, rows, k, bytemuck::cast_slice_mut(pack));
        } else if let Some(patches) = self.request.patches {
            patches.pack(rows, k, pack);
        } else if self.request.a.is_transposed() {
            pack_a(self.request.a, rows, k, panel_rows, pack);
        }
    }

    /// A as the kernel reads it: in place, or from the packed block.
    fn panels_of_a<'s>(&'s self, at: Micropanels, k: Span, pack: &'s [f32]) -> APanels<'s> {
        let Micropanels { block, first, rows } = at;
        if self.fast {
            let pairs = k.len.div_ceil(2);
            let data = AData::Bf16(&bytemuck::cast_slice(pack)[first * pairs..]);
            return APanels { data, rows, row_stride: pairs, k_stride: 1, stride: rows * pairs };
        }
        if self.request.patches.is_some() {
            let data = AData::F32(&pack[first * k.len..]);
            return APanels { data, rows, row_stride: k.len, k_stride: 1, stride: rows * k.len };
        }
        if self.request.a.is_transposed() {
            let data = AData::F32(&pack[first * k.len..]);
            return APanels { data, rows, row_stride: 1, k_stride: rows, stride: rows * k.len };
        }
        in_place(self.request.a, block + first, k.start, rows)
    }

    /// The three parts of a worker's scratch: packed A, packed B, accumulators.
    fn scratch<'s>(&self, mut arena: Arena<'s>) -> (&'s mut [f32], &'s mut [f32], &'s mut [f32]) {
        let Scratch { a, b, c } = self.blocking.scratch;
        let [a, b, c] = [a, b, c].map(|len| {
            let part = arena.take::<f32>(len);
            debug_assert!(part.is_ok(), "the scratch was sized by the same numbers");
            part.unwrap_or_default()
        });
        (a, b, c)
    }

    /// A block of B: packed, or where it lies.
    fn block_of_b<'s>(&self, b: Source<'s>, pack: &'s mut [f32], k: Span, columns: Span) -> BBlock<'s> {
        let (Span { start: p0, len: kc }, Span { start: col0, len: cols }) = (k, columns);
        match b {
            Source::Packed(panels) => BBlock::Packed { panels, p0, col0 },
            Source::Matrix(b) if self.blocking.b_access == BAccess::Pack => {
                let width = panel_width(self.kernels);
                let block = BlockOfB { k, cols: columns };
                pack_b(self.kernels, b, block, (width, 1), pack);
                let panels = Panels { data: Elements::F32(pack), k: kc, cols, width };
                BBlock::Packed { panels, p0: 0, col0: 0 }
            }
            Source::Matrix(b) => {
                let whole = cols / LANES * LANES;
                if whole < cols {
                    let block = BlockOfB { k, cols: Span { start: col0 + whole, len: cols - whole } };
                    pack_panel(self.kernels, b, block, (LANES, 1), &mut pack[..kc * LANES]);
                }
                // With few rows of B at a time, wide tiles are slower (docs/TUNING.md, `widest`).
                let widest = if kc <= STREAM_KC { panel_width(self.kernels) } else { usize::MAX };
                BBlock::InPlace { b, p0, col0, whole, ragged: pack, widest }
            }
        }
    }
}

/// A product of a single item and a single part of k, whose operands all lie as the kernel reads them: the
/// loops without a plan, scratch or a cursor, which are nearly half of what a call costs besides its
/// arithmetic (docs/TUNING.md, `small`).
pub(super) fn small<T: Element>(
    kernels: &KernelSet,
    a: MatRef<'_>,
    b: Source<'_>,
    k: usize,
    c: MatMut<'_, T>,
    epilogue: &Epilogue<'_>,
) {
    let (rows, whole) = (c.rows(), c.cols());
    let block = match b {
        Source::Packed(panels) => BBlock::Packed { panels, p0: 0, col0: 0 },
        Source::Matrix(b) => BBlock::InPlace { b, p0: 0, col0: 0, whole, ragged: &[], widest: usize::MAX },
    };
    let plain = epilogue.is_plain() && T::DTYPE == Dtype::F32;
    let fused = FusedEpilogue { epilogue, gate: None, row: 0, col: 0, gate_col: 0 };
    let call = TileCall { k, accumulate: false, epilogue: if plain { None } else { Some(fused) } };
    let rows = Rows { in_c: Span { start: 0, len: rows }, panel_rows: even_split(rows, kernels.mr(), 1) };
    a_panels(kernels, call, &rows, &block, &mut COut { out: c, accumulators: None }, |ir, mr| {
        in_place(a, ir, 0, mr)
    });
}

/// A micropanels of `rows` rows of a matrix, from `row` and step `p` of k on, where they lie.
fn in_place(a: MatRef<'_>, row: usize, p: usize, rows: usize) -> APanels<'_> {
    let (row_stride, k_stride) = a.strides();
    APanels { data: AData::F32(a.from(row, p)), rows, row_stride, k_stride, stride: rows * row_stride }
}

/// A micropanels of `rows` rows from row `first` on of the block of A that starts at row `block`.
struct Micropanels {
    block: usize,
    first: usize,
    rows: usize,
}

/// Rows of C, in A micropanels of `panel_rows` rows.
struct Rows {
    in_c: Span,
    panel_rows: usize,
}

/// LOOP 2 and LOOP 1, which run in the kernel: once for the whole A micropanels, once for the
/// rows that are left. `a(ir, mr)` gives the micropanels of `mr` rows from row `ir` on.
fn a_panels<'a, T: Element>(
    kernels: &KernelSet,
    call: TileCall<'_>,
    rows: &Rows,
    b: &BBlock<'_>,
    out: &mut COut<'_, T>,
    a: impl Fn(usize, usize) -> APanels<'a>,
) {
    let (Span { start, len }, mr) = (rows.in_c, rows.panel_rows);
    let whole = if len == mr { len } else { len / mr * mr };
    b_panels(kernels, call, a(0, mr), b, Span { start, len: whole }, out);
    let rest = len - whole;
    if rest > 0 {
        b_panels(kernels, call, a(whole, rest), b, Span { start: start + whole, len: rest }, out);
    }
}

/// A micropanels against all columns of the item, in evenly strided runs of B micropanels.
fn b_panels<T: Element>(
    kernels: &KernelSet,
    call: TileCall<'_>,
    a: APanels<'_>,
    b: &BBlock<'_>,
    rows: Span,
    out: &mut COut<'_, T>,
) {
    let cols = out.out.cols();
    // Narrow panels, of another tier's tile, are joined up to a tile of this one; those of bf16 pairs do not
    // grow where rows are few.
    let (nr, k) = match a.data {
        AData::F32(_) => (b.widest(kernels, a.rows), call.k),
        AData::Bf16(_) => (kernels.nv(kernels.mr()) * LANES, call.k.div_ceil(2)),
    };
    let mut jr = 0;
    while jr < cols {
        let (b, width) = b.run(jr, cols - jr, nr);
        let epilogue =
            call.epilogue.map(|e| FusedEpilogue { row: rows.start, col: e.col + jr, gate_col: jr, ..e });
        let call = TileCall { k, epilogue, ..call };
        kernels.gemm_tiles(call, a, b, &mut out.tile(rows.start, jr, rows.len, width));
        jr += width;
    }
}

/// A block of B as LOOP 1 reads it.
enum BBlock<'a> {
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

impl<'a> BBlock<'a> {
    /// Columns of a tile of `rows` rows at most.
    fn widest(&self, kernels: &KernelSet, rows: usize) -> usize {
        let vectors = match self {
            BBlock::Packed { panels: Panels { data: Elements::F32(_), .. }, .. } | BBlock::InPlace { .. } => {
                kernels.nv(rows)
            }
            BBlock::Packed { .. } => kernels.nv_of_packed(rows),
        };
        vectors * LANES
    }

    /// The longest evenly strided run of `nr`-wide micropanels from column `jr` on, and how many of the
    /// `cols` columns that are left it covers.
    fn run(&self, jr: usize, cols: usize, nr: usize) -> (BPanels<'a>, usize) {
        match *self {
            BBlock::Packed { panels, p0, col0 } => panels.run(p0, col0 + jr, cols, nr),
            BBlock::InPlace { b, p0, col0, whole, widest, .. } if jr < whole => {
                let nr = nr.min(widest);
                let data = Elements::F32(b.from(p0, col0 + jr));
                let (vectors, k_stride) = (nr / LANES, b.strides().0);
                (BPanels { data, vectors, k_stride, vec_stride: LANES, stride: nr }, whole - jr)
            }
            BBlock::InPlace { ragged, .. } => {
                let data = Elements::F32(ragged);
                (BPanels { data, vectors: 1, k_stride: LANES, vec_stride: LANES, stride: 0 }, cols)
            }
        }
    }
}
