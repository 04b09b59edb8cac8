//! The five loops around the register tile.
//!
//! LOOP 5 (columns) and the outer part of LOOP 3 (rows) make the grid of work items; LOOP 4 (k), LOOP 3
//! (blocks of A), LOOP 2 (A micropanels of mr rows) and LOOP 1 (B micropanels of nr columns) run inside an item. Unlike
//! in BLIS, LOOP 2 is outside LOOP 1: the 6-row A micropanel is the operand that stays in L1 (12 KiB), and
//! B micropanels stream from L2 at 256 bytes in 24 cycles, a third of what L2 delivers.

use super::blocking::{Blocking, Shape, enough_worker_bytes, is_small};
use super::item::{Item, small};
use super::{Dtype, Epilogue, Output, PackedB, Precision, validate};
use crate::buffer::Workspace;
use crate::context::Context;
use crate::error::{Error, Result, product};
use crate::fp_mode;
use crate::parallel::Executor;
use crate::view::{Grid, MatMut, MatRef, for_each_tile};

/// Where the driver takes B from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Matrix(MatRef<'a>),
    Packed(&'a PackedB),
}

/// Bytes of workspace that are enough for all workers and any product of up to `m` rows.
pub(super) fn workspace_bytes(
    ctx: &Context,
    (m, n, k): (usize, usize, usize),
    b_prepacked: bool,
) -> Result<usize> {
    for size in [m, n, k] {
        product("matrix size", &[size])?;
    }
    let worker = enough_worker_bytes(m, n, k, ctx.kernels().mr(), b_prepacked)?;
    product("workspace bytes", &[worker, ctx.lanes()])
}

/// Arguments of one product.
pub(super) struct Request<'a> {
    pub precision: Precision,
    pub a: MatRef<'a>,
    pub b: Source<'a>,
    /// A second B whose product is the factor of the gated one.
    pub up: Option<&'a PackedB>,
    pub epilogue: Epilogue<'a>,
}

/// The product into `c`; B's shape is already validated.
pub(super) fn run<T: Output>(
    ctx: &Context,
    ws: &mut Workspace,
    request: &Request<'_>,
    c: MatMut<'_, T>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let Request { precision, a, b, up, epilogue } = *request;
    validate(a, &c, &epilogue)?;
    let reads_c = epilogue.beta != 0.0;
    let plain_output = T::DTYPE == Dtype::F32 && up.is_none();
    if reads_c && !plain_output {
        let (got, allowed) =
            (epilogue.beta.to_string(), "0 for a gated product or an output that is not f32");
        return Err(Error::Option { what: "beta", got, allowed });
    }
    let kernels = ctx.kernels();
    let bf16 = |b: &PackedB| b.dtype() == Dtype::Bf16;
    let all_bf16 = matches!(b, Source::Packed(b) if bf16(b)) && up.is_none_or(bf16);
    let fast = all_bf16 && precision == Precision::Fast && kernels.has_bf16_fast();
    let shape = Shape {
        m: c.rows(),
        n: c.cols(),
        k: a.cols(),
        a_transposed: a.is_transposed(),
        a_to_bf16: fast,
        b_transposed: matches!(b, Source::Matrix(b) if b.is_transposed()),
        b_prepacked: matches!(b, Source::Packed(_)),
        separate_accumulators: reads_c || T::DTYPE != Dtype::F32,
        gated: up.is_some(),
        tile_is_narrow: kernels.tile_is_narrow(),
    };
    let k = if epilogue.alpha == 0.0 { 0 } else { shape.k };
    if !fast && is_small(shape, ctx.executor().lanes()) {
        small(kernels, a, b, k, c, &epilogue);
        return Ok(());
    }
    if shape.m == 0 || shape.n == 0 {
        // Nothing to write: no scratch is needed for it, and the query named none.
        return Ok(());
    }
    let blocking = Blocking::new(shape, kernels.mr());
    let worker_bytes = blocking.worker_bytes()?;
    let executor = if blocking.serial { Executor::serial() } else { ctx.executor() };
    let scratch = ws.arena(product("workspace bytes", &[worker_bytes, executor.lanes()])?)?.rest();
    let item = Item { kernels, blocking, a, b, up, k, fast, epilogue };
    let grid = Grid { tile_rows: blocking.tile_rows, tile_cols: blocking.tile_cols };
    for_each_tile(executor, c, grid, scratch, worker_bytes, &|arena, origin, c| item.run(arena, origin, c));
    Ok(())
}
