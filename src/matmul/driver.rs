//! The five loops around the register tile.
//!
//! LOOP 5 (columns) and the outer part of LOOP 3 (rows) make the grid of work items; LOOP 4 (k), LOOP 3
//! (blocks of A), LOOP 2 (strips of mr rows) and LOOP 1 (panels of nr columns) run inside an item. Unlike
//! in BLIS, LOOP 2 is outside LOOP 1: the 6-row strip of A is the operand that stays in L1 (12 KiB), and
//! panels of B stream from L2 at 256 bytes in 24 cycles, a third of what L2 delivers.

use super::blocking::{BRoad, Blocking, Shape, enough_lane_bytes, even_split, panel_width};
use super::pack::{BlockOfB, Panels, pack_a, pack_a_bf16, pack_b, pack_panel};
use super::{Dtype, Epilogue, PackedB, Precision, validate};
use crate::buffer::{Arena, Workspace};
use crate::context::Context;
use crate::error::{Result, product};
use crate::kernels::{Elements, KernelSet, LANES, Operand, Panel};
use crate::parallel::Executor;
use crate::view::{Grid, MatMut, MatRef, Origin, for_each_tile};

/// Where the driver takes B from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Matrix(MatRef<'a>),
    Packed(&'a PackedB),
}

/// Bytes of workspace that are enough for all lanes and any product of up to `m` rows.
pub(super) fn workspace_bytes(
    ctx: &Context,
    (m, n, k): (usize, usize, usize),
    b_prepacked: bool,
) -> Result<usize> {
    for size in [m, n, k] {
        product("matrix size", &[size])?;
    }
    let lane = enough_lane_bytes(m, n, k, ctx.kernels().mr(), b_prepacked)?;
    product("workspace bytes", &[lane, ctx.lanes()])
}

/// The product of `a` and `b` into `c`; the caller has checked what concerns B.
pub(super) fn run(
    ctx: &Context,
    ws: &mut Workspace,
    precision: Precision,
    a: MatRef<'_>,
    b: Source<'_>,
    c: MatMut<'_>,
    epilogue: &Epilogue<'_>,
) -> Result<()> {
    validate(a, &c, epilogue)?;
    let kernels = ctx.kernels();
    let bf16 = matches!(b, Source::Packed(b) if b.dtype() == Dtype::Bf16);
    let fast = bf16 && precision == Precision::Fast && kernels.has_bf16_fast();
    let shape = Shape {
        m: c.rows(),
        n: c.cols(),
        k: a.cols(),
        a_transposed: a.is_transposed(),
        a_to_bf16: fast,
        b_transposed: matches!(b, Source::Matrix(b) if b.is_transposed()),
        b_prepacked: matches!(b, Source::Packed(_)),
        reads_c: epilogue.beta != 0.0,
    };
    let blocking = Blocking::new(shape, kernels.mr());
    let lane_bytes = blocking.lane_bytes()?;
    let executor = if blocking.serial { &Executor::Serial } else { ctx.executor() };
    let scratch = ws.arena(product("workspace bytes", &[lane_bytes, executor.lanes()])?)?.rest();
    let k = if epilogue.alpha == 0.0 { 0 } else { shape.k };
    let item = Item { kernels, blocking, a, b, k, fast, epilogue };
    let grid = Grid { tile_rows: blocking.tile_rows, tile_cols: blocking.tile_cols };
    for_each_tile(executor, c, grid, scratch, lane_bytes, &|arena, origin, c| item.run(arena, origin, c));
    Ok(())
}

/// What all work items of a product share.
struct Item<'a> {
    kernels: &'static KernelSet,
    blocking: Blocking,
    a: MatRef<'a>,
    b: Source<'a>,
    k: usize,
    /// Whether A is rounded to bf16 for the bf16 dot instructions.
    fast: bool,
    epilogue: &'a Epilogue<'a>,
}

impl Item<'_> {
    /// One work item: the tile `c` of the output, all of k.
    fn run(&self, arena: Arena<'_>, origin: Origin, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        let (a_pack, b_pack, chains) = self.scratch(arena);
        // (rows, cols): the chains, apart from C when the epilogue still reads it.
        let mut chains = if chains.is_empty() { None } else { MatMut::dense(chains, rows, cols).ok() };
        // LOOP 4: split k into kc parts. Chains are stored after each part and resumed: same bits.
        let mut p0 = 0;
        loop {
            let kc = self.blocking.kc.min(self.k - p0);
            let block = self.block_of_b(b_pack, (p0, kc), (origin.col, cols));
            let mut target = match &mut chains {
                Some(chains) => chains.reborrow(),
                None => c.reborrow(),
            };
            // LOOP 3: split the rows into mc parts.
            let mut ic = 0;
            while ic < rows {
                let mc = self.blocking.mc.min(rows - ic);
                // As even as possible: 7 rows are 4 + 3, not 6 + 1.
                let strip = even_split(mc, self.kernels.mr(), 1);
                self.pack_block_of_a((origin.row + ic, mc), (p0, kc), strip, a_pack);
                // LOOP 2: split mc into strips of at most mr rows.
                let mut ir = 0;
                while ir < mc {
                    let mr = strip.min(mc - ir);
                    let a = self.strip_of_a((origin.row + ic, ir, mr), (p0, kc), a_pack);
                    self.panels(kc, a, &block, target.tile(ic + ir, 0, mr, cols), p0 > 0);
                    ir += mr;
                }
                ic += mc;
            }
            p0 += kc;
            if p0 >= self.k {
                break;
            }
        }
        if !self.epilogue.is_plain() {
            self.kernels.epilogue(chains, c, origin.col, self.epilogue);
        }
    }

    /// LOOP 1: one strip of A against all columns of the item, one register tile at a time.
    fn panels(&self, kc: usize, a: Strip<'_>, b: &Block<'_>, mut c: MatMut<'_>, resume: bool) {
        let (mr, cols) = (c.rows(), c.cols());
        let nr = self.kernels.nv(mr) * LANES;
        let mut jr = 0;
        while jr < cols {
            let width = b.whole(jr, nr.min(cols - jr));
            let c = c.tile(0, jr, mr, width);
            match a {
                Strip::F32(a) => self.kernels.gemm(kc, a, b.at(jr), c, resume),
                Strip::Bf16(a, row_stride) => {
                    self.kernels.gemm_fast(kc.div_ceil(2), (a, row_stride), b.at(jr), c, resume);
                }
            }
            jr += width;
        }
    }

    /// Copies a block of A into scratch where the tile cannot read it as it lies.
    fn pack_block_of_a(&self, rows: (usize, usize), k: (usize, usize), strip: usize, pack: &mut [f32]) {
        if self.fast {
            pack_a_bf16(self.a, rows, k, bytemuck::cast_slice_mut(pack));
        } else if self.a.is_transposed() {
            pack_a(self.a, rows, k, strip, pack);
        }
    }

    /// Rows `ir..ir + mr` of the block of A that starts at `row0`.
    fn strip_of_a<'s>(
        &'s self,
        (row0, ir, mr): (usize, usize, usize),
        (p0, kc): (usize, usize),
        pack: &'s [f32],
    ) -> Strip<'s> {
        if self.fast {
            let pairs = kc.div_ceil(2);
            return Strip::Bf16(&bytemuck::cast_slice(pack)[ir * pairs..], pairs);
        }
        Strip::F32(if self.a.is_transposed() {
            Operand { data: &pack[ir * kc..], row_stride: 1, k_stride: mr }
        } else {
            let (row_stride, k_stride) = self.a.strides();
            Operand { data: self.a.from(row0 + ir, p0), row_stride, k_stride }
        })
    }

    /// The three parts of a lane's scratch: packed A, packed B, chains.
    fn scratch<'s>(&self, mut arena: Arena<'s>) -> (&'s mut [f32], &'s mut [f32], &'s mut [f32]) {
        let [a, b, c] = self.blocking.scratch.map(|len| {
            let part = arena.take::<f32>(len);
            debug_assert!(part.is_ok(), "the lane was sized by the same numbers");
            part.unwrap_or_default()
        });
        (a, b, c)
    }

    /// Rows `p0..p0 + kc` of columns `col0..col0 + cols` of B: packed, or where they lie.
    fn block_of_b<'s>(
        &'s self,
        pack: &'s mut [f32],
        (p0, kc): (usize, usize),
        (col0, cols): (usize, usize),
    ) -> Block<'s> {
        match self.b {
            Source::Packed(b) => Block::Packed { panels: b.panels(), p0, col0 },
            Source::Matrix(b) if self.blocking.b_road == BRoad::Pack => {
                let width = panel_width(self.kernels);
                pack_b(b, BlockOfB { k: (p0, kc), cols: (col0, cols) }, (width, 1), |x| x, pack);
                let panels = Panels { data: Elements::F32(pack), k: kc, cols, width };
                Block::Packed { panels, p0: 0, col0: 0 }
            }
            Source::Matrix(b) => {
                let whole = cols / LANES * LANES;
                if whole < cols {
                    let block = BlockOfB { k: (p0, kc), cols: (col0 + whole, cols - whole) };
                    pack_panel(b, block, (LANES, 1), |x| x, &mut pack[..kc * LANES]);
                }
                Block::Stream { b, p0, col0, whole, ragged: pack }
            }
        }
    }
}

/// A strip of A as LOOP 1 reads it: f32, or rows of bf16 pairs with a row stride.
#[derive(Clone, Copy)]
enum Strip<'a> {
    F32(Operand<'a>),
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
    Stream {
        b: MatRef<'a>,
        p0: usize,
        col0: usize,
        whole: usize,
        ragged: &'a [f32],
    },
}

impl<'a> Block<'a> {
    /// How many of `wanted` columns from `jr` on one tile can take.
    fn whole(&self, jr: usize, wanted: usize) -> usize {
        match self {
            Block::Stream { whole, .. } if jr < *whole => wanted.min(whole - jr),
            _ => wanted,
        }
    }

    fn at(&self, jr: usize) -> Panel<'a> {
        match *self {
            Block::Packed { panels, p0, col0 } => panels.at(p0, col0 + jr),
            Block::Stream { b, p0, col0, whole, .. } if jr < whole => Panel {
                data: Elements::F32(b.from(p0, col0 + jr)),
                k_stride: b.strides().0,
                vec_stride: LANES,
            },
            Block::Stream { ragged, .. } => {
                Panel { data: Elements::F32(ragged), k_stride: LANES, vec_stride: LANES }
            }
        }
    }
}
