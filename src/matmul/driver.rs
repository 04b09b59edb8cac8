//! The driver of a product: what is checked, how it is cut, who computes what.
//!
//! A product is five loops around a register tile, as in BLIS (Van Zee & van de Geijn 2015; Low et al. 2016):
//!
//! ```text
//! LOOP 5  for each block of nc columns of C              tiles.rs: for_each_tile, cut by blocking.rs
//! LOOP 3a   for each block of rows of C                  tiles.rs: for_each_tile, cut by blocking.rs
//! LOOP 4      for each block of kc steps of k            item.rs: Item::accumulate; packs B (pack.rs)
//! LOOP 3b       for each block of mc rows                item.rs: Item::accumulate; packs A (pack.rs)
//! LOOP 2          for each A micropanel (mr rows)        kernels/generic/gemm.rs: tiles
//! LOOP 1            for each B micropanel (nr columns)   kernels/generic/gemm.rs: tiles
//! tile                for each step of k: mr x nr FMA    kernels/generic/gemm.rs: Accumulate::add
//!                   store, or apply the epilogue         kernels/generic/{accumulators,epilogue}.rs
//! ```
//!
//! A work item is a tile of C with all of k. LOOP 5 and the outer part of LOOP 3 run in parallel over the
//! items; the other loops run inside one. Where they differ from BLIS:
//!
//! - LOOP 2 is outside LOOP 1: the 6-row A micropanel is the operand that stays in L1 (12 KiB), and B
//!   micropanels stream from L2, at a third of what L2 delivers (docs/TUNING.md).
//! - LOOP 2 and LOOP 1 run inside one kernel call: a call for each tile is slower for small k
//!   (docs/TUNING.md).
//! - A is read in place unless it is transposed, and B is read in place where packing would not pay
//!   (`BAccess`).
//! - The epilogue runs in the tile after the last block of k, before anything is stored.
//!
//! Between two blocks of k the accumulators are stored to C (or to scratch, where C cannot hold them) and
//! loaded again: each element of C stays one chain over k, whatever the cut.
//!
//! The structs that an operand passes through, from the public call to the register tile:
//!
//! ```text
//! A   MatRef              -> Request           -> APanels           -> GemmTile
//! B   MatRef or PackedB   -> Request (Source)  -> BBlock -> BPanels -> GemmTile
//! C   MatMut              -> COut                                   -> GemmTile
//! ```

use super::blocking::{Blocking, Shape, enough_worker_bytes, is_small};
use super::item::{Item, small};
use super::pack::{Panels, Source};
use super::request::{Request, Size};
use crate::buffer::Arena;
use crate::context::Context;
use crate::dtype::{Dtype, Element};
use crate::epilogue::{Epilogue, Precision};
use crate::error::{Error, Result, equal, product, text};
use crate::fp_mode;
use crate::kernels::Elements;
use crate::parallel::Executor;
use crate::tiles::{Grid, for_each_tile};
use crate::view::{MatMut, MatRef};

/// Bytes of workspace that are enough for all workers and any product of up to `m` rows.
pub(super) fn workspace_bytes(ctx: &Context, size: Size, b_prepacked: bool) -> Result<usize> {
    let Size { m, n, k } = size;
    for extent in [m, n, k] {
        product("matrix size", &[extent])?;
    }
    let worker = enough_worker_bytes(size, ctx.kernels().mr(), b_prepacked)?;
    product("workspace bytes", &[worker, ctx.executor().workers()])
}

/// The checks that every product of `a` into `c` shares.
fn validate<T: Element>(a: MatRef<'_>, c: &MatMut<'_, T>, epilogue: &Epilogue<'_>) -> Result<()> {
    equal("c.rows", c.rows(), "must equal a.rows =", a.rows())?;
    epilogue.validate(c.cols())
}

/// How a product runs, as far as its arguments decide it.
struct Plan<'a> {
    /// Whether the bf16 dot products of the CPU compute it.
    fast: bool,
    /// The k that is multiplied: 0 where alpha is.
    k: usize,
    how: How<'a>,
}

enum How<'a> {
    /// No element of C: nothing to write, and the query named no scratch for it.
    Nothing,
    /// On the calling thread, without scratch.
    Small,
    /// By work items, with this much scratch in all.
    Blocked { blocking: Blocking, executor: &'a Executor, worker_bytes: usize, bytes: usize },
}

/// Checks the arguments; B's shape is already validated.
fn plan<'a, T: Element>(ctx: &'a Context, request: &Request<'_>, c: &MatMut<'_, T>) -> Result<Plan<'a>> {
    let &Request { precision, a, patches, b, up, epilogue } = request;
    validate(a, c, &epilogue)?;
    let reads_c = epilogue.beta != 0.0;
    let plain_output = T::DTYPE == Dtype::F32 && up.is_none();
    if reads_c && !plain_output {
        let (got, allowed) = (text(epilogue.beta), "0 for a gated product or an output that is not f32");
        return Err(Error::Option { what: "beta", got, allowed });
    }
    let kernels = ctx.kernels();
    let bf16 = |b: Panels<'_>| matches!(b.data, Elements::Bf16(_));
    let all_bf16 = matches!(b, Source::Packed(b) if bf16(b)) && up.is_none_or(bf16);
    let fast = all_bf16 && precision == Precision::Fast && patches.is_none() && kernels.has_bf16_fast();
    let shape = Shape {
        m: c.rows(),
        n: c.cols(),
        k: a.cols(),
        a_copied: a.is_transposed() || patches.is_some(),
        a_to_bf16: fast,
        b_transposed: matches!(b, Source::Matrix(b) if b.is_transposed()),
        b_prepacked: matches!(b, Source::Packed(_)),
        separate_accumulators: reads_c || T::DTYPE != Dtype::F32,
        gated: up.is_some(),
        tile_is_narrow: kernels.tile_is_narrow(),
    };
    let k = if epilogue.alpha == 0.0 { 0 } else { shape.k };
    if !fast && is_small(shape, ctx.executor().workers()) {
        return Ok(Plan { fast, k, how: How::Small });
    }
    if shape.m == 0 || shape.n == 0 {
        return Ok(Plan { fast, k, how: How::Nothing });
    }
    let blocking = Blocking::new(shape, kernels.mr());
    let worker_bytes = blocking.worker_bytes()?;
    let executor = if blocking.serial { Executor::serial() } else { ctx.executor() };
    let bytes = product("workspace bytes", &[worker_bytes, executor.workers()])?;
    Ok(Plan { fast, k, how: How::Blocked { blocking, executor, worker_bytes, bytes } })
}

/// The bytes of workspace that [`run`] takes with these arguments; what it would refuse, this does.
pub(super) fn scratch_bytes<T: Element>(
    ctx: &Context,
    request: &Request<'_>,
    c: &MatMut<'_, T>,
) -> Result<usize> {
    Ok(match plan(ctx, request, c)?.how {
        How::Nothing | How::Small => 0,
        How::Blocked { bytes, .. } => bytes,
    })
}

/// The product into `c`, with scratch from the start of `arena`; B's shape is already validated.
pub(super) fn run<T: Element>(
    ctx: &Context,
    mut arena: Arena<'_>,
    request: &Request<'_>,
    c: MatMut<'_, T>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let Plan { fast, k, how } = plan(ctx, request, &c)?;
    let kernels = ctx.kernels();
    let (blocking, executor, worker_bytes, bytes) = match how {
        How::Nothing => return Ok(()),
        How::Small => {
            let &Request { a, b, epilogue, .. } = request;
            small(kernels, a, b, k, c, &epilogue);
            return Ok(());
        }
        How::Blocked { blocking, executor, worker_bytes, bytes } => (blocking, executor, worker_bytes, bytes),
    };
    let scratch = arena.take::<u8>(bytes)?;
    let item = Item { request, kernels, blocking, k, fast };
    let grid = Grid { tile_rows: blocking.tile_rows, tile_cols: blocking.tile_cols };
    for_each_tile(executor, c, grid, scratch, worker_bytes, &|arena, origin, c| item.run(arena, origin, c));
    Ok(())
}
