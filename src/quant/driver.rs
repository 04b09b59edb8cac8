//! The product with packed weights: quantise the activations once, then stream the weights once.
//!
//! A work item is a group of stripes against all rows of activations (at most [`ROWS`]): inside it, one
//! tile of 32 weight rows meets all groups of 6 activation rows while its panel (32 x 4096 x 4.5 bits =
//! 74 KiB) is in L2. Weights are so read from memory once for any number of rows up to [`ROWS`].

use super::{Compute, PackedWeights};
use crate::buffer::{Arena, Workspace};
use crate::context::Context;
use crate::error::{Error, Result, at_least, equal, product};
use crate::kernels::{ActivationRows, BLOCK, KernelSet, LANES};
use crate::matmul::Epilogue;
use crate::parallel::Executor;
use crate::view::{Grid, MatMut, MatRef, Origin, for_each_tile};

/// Rows of activations that one item handles.
const ROWS: usize = 512;

/// Multiply-adds of a work item at least: 64 Ki take about 0.5 us, so handing items out stays below 5 %.
const ITEM_MACS: usize = 64 * 1024;

/// Multiply-adds below which a product stays on the calling thread: about 4 us of work.
const SERIAL_MACS: usize = 512 * 1024;

/// How one product is cut: from its shape alone.
struct Plan {
    grid: Grid,
    serial: bool,
    /// Bytes of one quantised activation row, 0 for f32 activations.
    record_bytes: usize,
    records: usize,
    lane_bytes: usize,
}

impl Plan {
    fn new(m: usize, n: usize, k: usize, compute: Compute, reads_c: bool) -> Result<Plan> {
        let rows = m.clamp(1, ROWS);
        let group_macs = rows.saturating_mul(2 * LANES).saturating_mul(k.max(1));
        let groups = ITEM_MACS.div_ceil(group_macs).min(n.div_ceil(2 * LANES)).max(1);
        let grid = Grid { tile_rows: rows, tile_cols: groups * 2 * LANES };
        let record_bytes = match compute {
            Compute::Int8 => ActivationRows::record_bytes(k / BLOCK),
            Compute::F32 => 0,
        };
        let lane_bytes = if reads_c { Arena::bytes_for::<f32>(rows * grid.tile_cols)? } else { 0 };
        Ok(Plan {
            grid,
            serial: m.saturating_mul(n).saturating_mul(k) < SERIAL_MACS,
            record_bytes,
            records: product("quantised activations", &[m, record_bytes])?,
            lane_bytes,
        })
    }

    fn workspace_bytes(&self, lanes: usize) -> Result<usize> {
        let lanes = product("workspace bytes", &[self.lane_bytes, lanes])?;
        lanes.checked_add(self.records).ok_or(Error::Overflow { what: "workspace bytes" })
    }
}

impl PackedWeights {
    /// Bytes of workspace that are enough for [`PackedWeights::multiply`] of up to `m` rows.
    ///
    /// **Errors**: `Overflow`.
    pub fn workspace_bytes(&self, ctx: &Context, m: usize, compute: Compute) -> Result<usize> {
        let plan = Plan::new(m, self.n(), self.k(), compute, true)?;
        // Items of fewer rows have more columns, each with a chain: rows * columns is largest where the
        // columns are as many as fill an item, or where all rows meet one tile.
        let cols = (ITEM_MACS / self.k().max(1) + 2 * LANES * m.clamp(1, ROWS))
            .max(plan.grid.tile_rows * plan.grid.tile_cols);
        Plan { lane_bytes: Arena::bytes_for::<f32>(cols)?, ..plan }.workspace_bytes(ctx.lanes())
    }

    /// `C = beta * C + act(alpha * A * W^T + bias)`.
    ///
    /// **Shapes**: `a`: (m, k), plain; `c`: (m, n). **Numerics**: see [`Compute`] and [`Epilogue`]; row i of a
    /// batch has the bits of the same row alone. **Errors**: `Shape`, `Option` for a transposed `a`,
    /// `Workspace`; nothing is changed then. **Panics**: never. **Cost**: weights are read once for each 512
    /// rows; allocates nothing. **Source**: own; interleaving as in ik_llama.cpp's `_R16`, tile by port count.
    pub fn multiply(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        compute: Compute,
        a: MatRef<'_>,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        equal("a.cols", a.cols(), "must equal the weights' k =", self.k())?;
        equal("c.cols", c.cols(), "must equal the weights' n =", self.n())?;
        equal("c.rows", c.rows(), "must equal a.rows =", a.rows())?;
        if c.rows() > 1 {
            at_least("c.row_stride", c.row_stride(), c.cols())?;
        }
        epilogue.validate(c.cols())?;
        if a.is_transposed() {
            let (got, allowed) = ("a transposed view".into(), "plain: rows are quantised as they lie");
            return Err(Error::Option { what: "a", got, allowed });
        }
        let plan = Plan::new(a.rows(), self.n(), self.k(), compute, epilogue.beta != 0.0)?;
        let executor = if plan.serial { &Executor::Serial } else { ctx.executor() };
        let mut arena = ws.arena(plan.workspace_bytes(executor.lanes())?)?;
        let records = arena.take::<u8>(plan.records)?;
        if compute == Compute::Int8 {
            quantize_rows(ctx.kernels(), executor, a, plan.record_bytes, records)?;
        }
        let item = Item { kernels: ctx.kernels(), weights: self, a, records, plan: &plan, compute, epilogue };
        for_each_tile(executor, c, plan.grid, arena.rest(), plan.lane_bytes, &|arena, origin, c| {
            item.run(arena, origin, c);
        });
        Ok(())
    }
}

/// Quantises all rows of `a`, 8 rows an item.
fn quantize_rows(
    kernels: &KernelSet,
    executor: &Executor,
    a: MatRef<'_>,
    record_bytes: usize,
    records: &mut [u8],
) -> Result<()> {
    let out = MatMut::dense(records, a.rows(), record_bytes)?;
    let grid = Grid { tile_rows: 8, tile_cols: record_bytes.max(1) };
    for_each_tile(executor, out, grid, &mut [], 0, &|_, origin, mut records| {
        for i in 0..records.rows() {
            if let Some(x) = a.row(origin.row + i) {
                kernels.quantize(x, records.row(i));
            }
        }
    });
    Ok(())
}

/// What all work items of a product share.
struct Item<'a> {
    kernels: &'static KernelSet,
    weights: &'a PackedWeights,
    a: MatRef<'a>,
    records: &'a [u8], // (m, record_bytes)
    plan: &'a Plan,
    compute: Compute,
    epilogue: &'a Epilogue<'a>,
}

impl Item<'_> {
    fn run(&self, mut arena: Arena<'_>, origin: Origin, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        // (rows, cols): the chains, apart from C when the epilogue still reads it.
        let mut chains = if self.plan.lane_bytes == 0 {
            None
        } else {
            arena.take::<f32>(rows * cols).ok().and_then(|chains| MatMut::dense(chains, rows, cols).ok())
        };
        let target = match &mut chains {
            Some(chains) => chains.reborrow(),
            None => c.reborrow(),
        };
        match self.compute {
            Compute::Int8 => self.int8(origin, target),
            Compute::F32 => self.exact(origin, target),
        }
        if !self.epilogue.is_plain() {
            self.kernels.epilogue(chains, None, c, origin.col, self.epilogue);
        }
    }

    fn int8(&self, origin: Origin, mut c: MatMut<'_>) {
        let (max_stripes, max_rows) = self.kernels.int8_tile();
        let group = max_rows.min(c.rows().div_ceil(c.rows().div_ceil(max_rows)));
        let width = max_stripes * LANES;
        for j in (0..c.cols()).step_by(width) {
            let stripes = self.weights.stripes(origin.col + j);
            for i in (0..c.rows()).step_by(group) {
                let a = ActivationRows {
                    data: &self.records[(origin.row + i) * self.plan.record_bytes..],
                    record_bytes: self.plan.record_bytes,
                    blocks: self.weights.k() / BLOCK,
                };
                self.kernels.int8(stripes, a, c.tile(i, j, group, width));
            }
        }
    }

    fn exact(&self, origin: Origin, mut c: MatMut<'_>) {
        let max_rows = self.kernels.exact_rows();
        let group = max_rows.min(c.rows().div_ceil(c.rows().div_ceil(max_rows)));
        let (row_stride, _) = self.a.strides();
        for j in (0..c.cols()).step_by(LANES) {
            let stripe = self.weights.stripes(origin.col + j);
            for i in (0..c.rows()).step_by(group) {
                let x = self.a.from(origin.row + i, 0);
                self.kernels.exact(stripe, x, row_stride, c.tile(i, j, group, LANES));
            }
        }
    }
}
