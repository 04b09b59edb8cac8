//! The products of heads that have weights of their own: what latent attention does with queries before it
//! and with values after it.
//!
//! An item is a block of columns of one head, so that the heads of a decoding step, 128 products of one row,
//! share one parallel region. Rejected: one call for each head, a product so small that one thread computes
//! it (docs/TUNING.md, `SERIAL_MACS`).

use super::compute::Compute;
use super::driver::quantize_rows_by;
use super::item::{Item, Shared};
use super::packed::{Body, PackedWeights};
use super::plan::{Dims, Plan, SERIAL_MACS, enough_worker_bytes, row_bytes};
use crate::buffer::{Arena, Workspace};
use crate::context::Context;
use crate::epilogue::Epilogue;
use crate::error::{Error, Result, equal, option, product};
use crate::fp_mode;
use crate::parallel::Executor;
use crate::tiles::{Grid, HeadColumns, for_each_head_tile};
use crate::view::{MatMut, MatRef};

/// Rows of an item of weights of floats.
const FLOAT_ROWS: usize = 192;

/// Where the heads lie in the columns of a matrix: head h takes columns `h * stride..` of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadStrides {
    /// Columns of A from one head to the next, at least k.
    pub a: usize,
    /// Columns of C from one head to the next, at least n. What lies between two heads is left as it is.
    pub c: usize,
}

/// What a call needs, known before anything is computed.
struct Sizes {
    n: usize,
    k: usize,
    rows_q8: usize,
    row_bytes: usize,
    worker_bytes: usize,
}

impl Sizes {
    /// Checks that the weights fit each other.
    fn of<'a>(
        ctx: &Context,
        (heads, weights): (usize, &(dyn Fn(usize) -> &'a PackedWeights + Sync)),
        m: usize,
        compute: Compute,
    ) -> Result<Sizes> {
        option(heads > 0, "heads", heads, "at least 1")?;
        let (n, k) = (weights(0).n, weights(0).k);
        let blocks = matches!(weights(0).body, Body::Blocks(_));
        let mut worker_bytes = 0;
        let serial = ctx.on_this_thread();
        for head in 0..heads {
            let w = weights(head);
            equal("weights.n", w.n, "must equal the first head's =", n)?;
            equal("weights.k", w.k, "must equal the first head's =", k)?;
            let alike = matches!(w.body, Body::Blocks(_)) == blocks;
            option(alike, "weights", "floats beside blocks", "floats or blocks in all heads")?;
            let bytes = match &w.body {
                Body::Floats(b) => b.workspace_bytes(&serial, m.min(FLOAT_ROWS))?,
                Body::Blocks(packed) => {
                    option(packed.order.is_none(), "weights", "with an order of k", "in plain order")?;
                    enough_worker_bytes(ctx.kernels(), packed, m, k, compute)?
                }
            };
            worker_bytes = bytes.max(worker_bytes);
        }
        let row_bytes = if blocks { row_bytes(k, compute) } else { 0 };
        let worker_bytes = worker_bytes.checked_next_multiple_of(64);
        let worker_bytes = worker_bytes.ok_or(Error::Overflow { what: "workspace bytes" })?;
        let rows_q8 = product("quantised activations", &[heads, m, row_bytes])?;
        Ok(Sizes { n, k, rows_q8, row_bytes, worker_bytes })
    }

    fn bytes(&self, ctx: &Context) -> Result<usize> {
        let workers = product("workspace bytes", &[self.worker_bytes, ctx.executor().workers()])?;
        let bytes = Arena::bytes_for::<u8>(self.rows_q8)?.checked_add(workers);
        bytes.filter(|&bytes| bytes <= isize::MAX as usize).ok_or(Error::Overflow { what: "workspace bytes" })
    }
}

/// Bytes of workspace that are enough for [`multiply_heads`] of up to `m` rows.
///
/// **Errors**: as [`multiply_heads`] for the weights; `Overflow`.
pub fn heads_workspace_bytes(
    ctx: &Context,
    weights: &[&PackedWeights],
    m: usize,
    compute: Compute,
) -> Result<usize> {
    heads_bytes_of(ctx, (weights.len(), &|head| weights[head]), m, compute)
}

/// [`heads_workspace_bytes`] of weights that are looked up.
pub(crate) fn heads_bytes_of<'a>(
    ctx: &Context,
    weights: (usize, &(dyn Fn(usize) -> &'a PackedWeights + Sync)),
    m: usize,
    compute: Compute,
) -> Result<usize> {
    Sizes::of(ctx, weights, m, compute)?.bytes(ctx)
}

/// `C_h = A_h * W_h^T` for each head h, whose columns lie side by side: with the up-projection of keys it
/// turns queries into queries of the latent (`W_h`: its transpose, (latent, key part)), and with that of
/// values it turns attended latents into values (`W_h`: (value, latent)).
///
/// **Shapes**: `weights`: one matrix (n, k) for each head, all of one shape, of any formats of blocks or all
/// of floats. `a`: (m, columns), plain, head h from column `h * strides.a` on; `c`: (m, columns), head h from
/// column `h * strides.c` on.
/// **Numerics**: the bits of [`PackedWeights::multiply`] for each head. **Errors**: `Shape` for heads that do
/// not fit the columns or each other; `Option` for a transposed `a` and for weights with an order of k
/// (GPTQ's act-order); `Workspace`; nothing is changed then. **Panics**: never. **Cost**: each head's weights
/// are read once for 512 rows (192 of floats); two parallel regions; allocates nothing. **Source**: own; the
/// absorption of DeepSeek-V2 (DeepSeek-AI 2024).
#[allow(clippy::too_many_arguments)] // two matrices, and where heads lie in them
pub fn multiply_heads(
    ctx: &Context,
    ws: &mut Workspace,
    compute: Compute,
    weights: &[&PackedWeights],
    strides: HeadStrides,
    a: MatRef<'_>,
    c: MatMut<'_>,
) -> Result<()> {
    multiply_heads_of(ctx, ws, compute, (weights.len(), &|head| weights[head]), strides, a, c)
}

/// [`multiply_heads`] with weights that are looked up.
#[allow(clippy::too_many_arguments)] // as there
pub(crate) fn multiply_heads_of<'a>(
    ctx: &Context,
    ws: &mut Workspace,
    compute: Compute,
    (heads, weights): (usize, &(dyn Fn(usize) -> &'a PackedWeights + Sync)),
    strides: HeadStrides,
    a: MatRef<'_>,
    c: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let m = a.rows();
    let sizes = Sizes::of(ctx, (heads, weights), m, compute)?;
    fits(["a's head stride", "a.cols"], a.cols(), (heads, strides.a, sizes.k))?;
    fits(["c's head stride", "c.cols"], c.cols(), (heads, strides.c, sizes.n))?;
    equal("c.rows", c.rows(), "must equal a.rows =", m)?;
    a.require_plain("a", "plain: rows are quantised as they lie")?;
    let mut arena = ws.arena(sizes.bytes(ctx)?)?;
    if m == 0 || sizes.n == 0 {
        return Ok(());
    }
    let macs = [heads, m, sizes.n, sizes.k].into_iter().fold(1usize, usize::saturating_mul);
    let executor = if macs < SERIAL_MACS { Executor::serial() } else { ctx.executor() };
    let rows_q8 = arena.take::<u8>(sizes.rows_q8)?;
    let scratch = arena.rest();
    if sizes.row_bytes > 0 {
        // The rows of one head together.
        quantize_rows_by(executor, (heads * m, sizes.row_bytes), rows_q8, |row, out| {
            let x = a.from(row % m, row / m * strides.a);
            ctx.kernels().quantize(&x[..sizes.k], out);
        })?;
    }
    let rows_q8: &[u8] = rows_q8;

    let (kernels, serial, dims) = (ctx.kernels(), ctx.on_this_thread(), Dims { m, n: sizes.n, k: sizes.k });
    let plan_of = |w: &PackedWeights| match &w.body {
        Body::Blocks(packed) => Some(Plan::new(kernels, packed, dims, compute, false)),
        Body::Floats(_) => None,
    };
    // One grid for all heads: tiles of any width are whole row panels of every format.
    let floats = Grid { tile_rows: FLOAT_ROWS, tile_cols: sizes.n };
    let grid = (0..heads).find_map(|head| plan_of(weights(head))).map_or(floats, |plan| plan.grid);
    let columns = HeadColumns { heads, stride: strides.c, cols: sizes.n };
    for_each_head_tile(executor, c, columns, grid, scratch, sizes.worker_bytes, &|arena, head, at, mut c| {
        let w = weights(head);
        let rows = |from: usize, rows: usize| {
            MatRef::new(a.from(from, head * strides.a), rows, sizes.k, a.strides().0)
        };
        let done = match (&w.body, plan_of(w)) {
            (Body::Blocks(w), Some(plan)) => rows(0, m).map(|a| {
                let rows_q8 = &rows_q8[head * m * sizes.row_bytes..];
                let shared = Shared { kernels, a, rows_q8, row_bytes: sizes.row_bytes, compute };
                Item { shared: &shared, w, up: None, plan, epilogue: Epilogue::default() }.run(arena, at, c);
            }),
            (Body::Floats(b), _) => rows(at.row, c.rows())
                .and_then(|a| b.multiply_in(&serial, arena, a, c.reborrow(), &Epilogue::default())),
            (Body::Blocks(_), None) => Ok(()), // blocks have a plan
        };
        debug_assert!(done.is_ok(), "shapes and scratch were checked");
    });
    Ok(())
}

/// Checks that the heads fit some columns: each is `width` wide and starts `stride` behind the one before.
fn fits(
    [stride_name, cols_name]: [&'static str; 2],
    cols: usize,
    (heads, stride, width): (usize, usize, usize),
) -> Result<()> {
    if stride < width {
        let relation = "must be at least the columns of a head =";
        return Err(Error::Shape { what: stride_name, got: stride, relation, want: width });
    }
    let last = product(stride_name, &[heads - 1, stride])?;
    let end = last.checked_add(width).ok_or(Error::Overflow { what: stride_name })?;
    if cols < end {
        let relation = "must be at least the end of the last head =";
        return Err(Error::Shape { what: cols_name, got: cols, relation, want: end });
    }
    Ok(())
}
