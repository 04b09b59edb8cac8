//! The products with packed weights: the activations are quantised once, then the weights are streamed once,
//! by the work items of [`item`](super::item).

use super::compute::Compute;
use super::format::WeightFormat;
use super::item::{Item, Shared};
use super::packed::{Body, PackedWeights};
use super::plan::{Dims, Plan, SERIAL_MACS, enough_worker_bytes, row_bytes, scratch_rows};
use crate::buffer::Workspace;
use crate::context::Context;
use crate::error::{Error, Result, equal, product, text};
use crate::fp_mode;
use crate::kernels::KernelSet;
use crate::matmul::{Epilogue, Precision};
use crate::parallel::Executor;
use crate::tiles::{Grid, for_each_tile, for_each_tile_of};
use crate::view::{MatMut, MatRef};

/// Products of one region at most; more of them take several regions.
pub(super) const REGION: usize = 8;

/// One of the products that share their activations: see [`multiply_many`].
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights W.
    pub weights: &'a PackedWeights,
    /// The weights U of a gated product, which is `C = act(alpha * A * W^T + bias) * (A * U^T)`.
    pub up: Option<&'a PackedWeights>,
    /// The result.
    pub c: MatMut<'a>, // (m, n)
    /// What happens to the finished product.
    pub epilogue: Epilogue<'a>,
}

impl<'a> Product<'a> {
    /// `C = A * W^T`.
    pub fn new(weights: &'a PackedWeights, c: MatMut<'a>) -> Product<'a> {
        Product { weights, up: None, c, epilogue: Epilogue::default() }
    }

    fn validate(&self, a: MatRef<'_>) -> Result<()> {
        let Product { weights, up, c, epilogue } = self;
        equal("a.cols", a.cols(), "must equal the weights' k =", weights.k)?;
        equal("c.cols", c.cols(), "must equal the weights' n =", weights.n)?;
        equal("c.rows", c.rows(), "must equal a.rows =", a.rows())?;
        epilogue.validate(c.cols())?;
        a.require_plain("a", "plain: rows are quantised as they lie")?;
        if let Some(up) = up {
            equal("up.k", up.k, "must equal the weights' k =", weights.k)?;
            equal("up.n", up.n, "must equal the weights' n =", weights.n)?;
            let floats = |w: &PackedWeights| matches!(w.body, Body::Floats(_));
            if floats(weights) != floats(up) {
                let got = text(up.format.map_or("group-wise", WeightFormat::name));
                let allowed = "blocks or floats, as the weights";
                return Err(Error::Option { what: "up.format", got, allowed });
            }
            if self.order() != Product::order_of(up) {
                let (got, allowed) = (text("another order of k"), "the order of the weights");
                return Err(Error::Option { what: "up", got, allowed });
            }
            if epilogue.beta != 0.0 {
                let (got, allowed) = (text(epilogue.beta), "0 for a gated product");
                return Err(Error::Option { what: "beta", got, allowed });
            }
        }
        Ok(())
    }

    /// The order in which its weights hold k.
    fn order(&self) -> Option<&'a [u32]> {
        Product::order_of(self.weights)
    }

    fn order_of(weights: &'a PackedWeights) -> Option<&'a [u32]> {
        match &weights.body {
            Body::Blocks(blocks) => blocks.order.as_deref(),
            Body::Floats(_) => None,
        }
    }

    /// Whether any of its weights multiplies int8 activations.
    fn takes_int8(&self) -> bool {
        [Some(self.weights), self.up].into_iter().flatten().any(PackedWeights::takes_int8)
    }

    /// The bytes of workspace that it takes, once validated, where the weights are floats; else 0.
    fn floats_bytes(&self, ctx: &Context, a: MatRef<'_>) -> Result<usize> {
        let Body::Floats(b) = &self.weights.body else { return Ok(0) };
        let up = match self.up {
            Some(PackedWeights { body: Body::Floats(up), .. }) => Some(up),
            _ => None,
        };
        b.bytes_of_multiply(ctx, a, up, &self.c, &self.epilogue)
    }

    /// How the product is cut; `None` for floats.
    fn plan(&self, kernels: &KernelSet, compute: Compute) -> Option<Plan> {
        let Body::Blocks(packed) = &self.weights.body else { return None };
        let buffers = self.epilogue.beta != 0.0 || self.up.is_some();
        let dims = Dims { m: self.c.rows(), n: self.weights.n, k: self.weights.k };
        let mut plan = Plan::new(kernels, packed, dims, compute, buffers);
        if let Some(PackedWeights { body: Body::Blocks(up), .. }) = self.up {
            // Tiles of the two formats may differ in rows, not in columns.
            plan.unpacked_bytes =
                plan.unpacked_bytes.max(Plan::new(kernels, up, dims, compute, true).unpacked_bytes);
        }
        Some(plan)
    }
}

impl PackedWeights {
    /// Bytes of workspace that are enough for [`PackedWeights::multiply`] and
    /// [`PackedWeights::multiply_gated`] of up to `m` rows (with weights of one format).
    ///
    /// **Errors**: `Overflow`.
    pub fn workspace_bytes(&self, ctx: &Context, m: usize, compute: Compute) -> Result<usize> {
        match &self.body {
            Body::Floats(b) => b.workspace_bytes(ctx, m),
            Body::Blocks(packed) => {
                let worker = enough_worker_bytes(ctx.kernels(), packed, m, self.k, compute)?;
                let scratch = product("workspace bytes", &[worker, ctx.executor().workers()])?;
                let (rows_q8, gathered) = scratch_rows(m, self.k, compute, packed.order.is_some())?;
                let bytes = scratch.checked_add(rows_q8).and_then(|x| x.checked_add(gathered));
                bytes.ok_or(Error::Overflow { what: "workspace bytes" })
            }
        }
    }

    /// `C = beta * C + act(alpha * A * W^T + bias)`.
    ///
    /// **Shapes**: `a`: (m, k), plain; `c`: (m, n). **Numerics**: see [`Compute`] and [`Epilogue`]; row i of
    /// a batch has the bits of the same row alone. Weights of single floats are multiplied exactly whatever
    /// `compute` says. **Errors**: `Shape`, `Option` for a transposed `a`, `Workspace`; nothing is changed
    /// then. **Panics**: never. **Cost**: weights are read once for each 512 rows; allocates nothing.
    /// **Source**: own; interleaving as in ik_llama.cpp's `_R16`, tile by port count.
    pub fn multiply(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        compute: Compute,
        a: MatRef<'_>,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        let mut products = [Product { weights: self, up: None, c, epilogue: *epilogue }];
        multiply_many(ctx, ws, compute, a, &mut products)
    }

    /// The gate of a feed-forward layer in one pass: `C = act(alpha * A * W^T + bias) * (A * UP^T)`, with W
    /// these weights and `act` usually SiLU.
    ///
    /// **Shapes**: `a`: (m, k), plain; `up`: (n, k) as these weights, of any format of blocks (or of floats,
    /// like these); `c`: (m, n). **Numerics**: the bits of both products, the activation, and one
    /// multiplication, each rounded once. **Errors**: as [`PackedWeights::multiply`]; `Option` for a beta.
    /// For weights of two formats size the workspace by [`workspace_bytes_many`].
    /// **Cost**: the activations are quantised once; neither product is written to memory beyond a tile.
    #[allow(clippy::too_many_arguments)] // a product with one operand more
    pub fn multiply_gated(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        compute: Compute,
        a: MatRef<'_>,
        up: &PackedWeights,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        let mut products = [Product { weights: self, up: Some(up), c, epilogue: *epilogue }];
        multiply_many(ctx, ws, compute, a, &mut products)
    }
}

/// Bytes of workspace that are enough for [`multiply_many`] of up to `m` rows with these weights (gated or
/// not).
///
/// **Errors**: `Overflow`.
pub fn workspace_bytes_many(
    ctx: &Context,
    m: usize,
    compute: Compute,
    weights: &[&PackedWeights],
) -> Result<usize> {
    workspace_bytes_each(ctx, m, compute, weights.iter().map(|w| Ok::<_, Error>(*w)))
}

/// [`workspace_bytes_many`] of weights that may be refused when they are looked at.
pub(crate) fn workspace_bytes_each<'a, E: From<Error>>(
    ctx: &Context,
    m: usize,
    compute: Compute,
    weights: impl Iterator<Item = std::result::Result<&'a PackedWeights, E>>,
) -> std::result::Result<usize, E> {
    let (mut bytes, mut ordered) = (0, 0);
    for w in weights {
        let w = w?;
        bytes = w.workspace_bytes(ctx, m, compute)?.max(bytes);
        if let Some(order) = Product::order_of(w) {
            ordered = scratch_rows(m, order.len(), compute, true)?.1.max(ordered);
        }
    }
    // Weights without an order may need the most scratch, others need the gathered rows beside them.
    Ok(bytes.checked_add(ordered).ok_or(Error::Overflow { what: "workspace bytes" })?)
}

/// Several products with the same activations, such as q, k, v or gate and up: the activations are quantised
/// once, and all products run in one parallel region: one barrier in all.
///
/// **Shapes**: `a`: (m, k), plain; of each product `c`: (m, its n), all with the same k; formats may differ.
/// **Numerics**: the bits of separate calls of [`PackedWeights::multiply`] and
/// [`PackedWeights::multiply_gated`]. **Errors**: as there; nothing is changed then. **Cost**: as separate
/// calls, without their repeated quantisation and their regions; products with weights of floats run one
/// after the other. Allocates nothing.
pub fn multiply_many(
    ctx: &Context,
    ws: &mut Workspace,
    compute: Compute,
    a: MatRef<'_>,
    products: &mut [Product<'_>],
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let need = Need::of(ctx, compute, a, products)?;
    // Before anything is written: a workspace that is too small changes nothing. A single product of floats
    // asks for its workspace itself.
    let alone = products.len() == 1;
    let mut floats = products.iter().filter(|_| !alone).map(|p| p.floats_bytes(ctx, a));
    ws.arena(floats.try_fold(need.bytes, |most, bytes| Ok::<_, Error>(most.max(bytes?)))?)?;
    multiply_floats(ctx, ws, a, products)?;
    if !need.blocks {
        return Ok(());
    }
    let executor = need.executor;
    let mut arena = ws.arena(need.bytes)?;
    let rows_q8 = arena.take::<u8>(need.rows_q8)?;
    let gathered = arena.take::<f32>(need.gathered / size_of::<f32>())?;
    let scratch = arena.rest();
    let row_bytes = row_bytes(a.cols(), compute);
    // Products that follow each other and read their activations in one order share them.
    for same in products.chunk_by_mut(|p, q| p.order() == q.order()) {
        let a = match same.first().and_then(Product::order) {
            Some(order) => gather(executor, a, order, gathered)?,
            None => a,
        };
        let int8 = same.iter().any(|p| p.takes_int8());
        if compute == Compute::Int8 && int8 {
            quantize_rows(ctx.kernels(), executor, a, row_bytes, rows_q8)?;
        }
        let shared = Shared { kernels: ctx.kernels(), a, rows_q8, row_bytes, compute };
        for region in same.chunks_mut(REGION) {
            multiply_region(executor, &shared, region, scratch, need.worker_bytes);
        }
    }
    Ok(())
}

/// What the products of a call need, known before anything is computed.
pub(super) struct Need<'a> {
    pub executor: &'a Executor,
    /// Scratch of a worker.
    pub worker_bytes: usize,
    /// Bytes of the quantised activations, and of the activations in another order.
    rows_q8: usize,
    gathered: usize,
    /// Bytes of all that, 0 without weights of blocks: products with floats size their own workspace.
    bytes: usize,
    /// Whether any weights are blocks.
    blocks: bool,
}

impl<'a> Need<'a> {
    /// Validates each product.
    pub fn of(
        ctx: &'a Context,
        compute: Compute,
        a: MatRef<'_>,
        products: &[Product<'_>],
    ) -> Result<Need<'a>> {
        let (mut macs, mut worker_bytes, mut blocks, mut ordered) = (0usize, 0, false, false);
        for p in products {
            p.validate(a)?;
            if let Some(plan) = p.plan(ctx.kernels(), compute) {
                blocks = true;
                ordered |= p.order().is_some();
                worker_bytes = plan.worker_bytes()?.max(worker_bytes);
                macs = macs.saturating_add(a.rows().saturating_mul(p.weights.n).saturating_mul(a.cols()));
            }
        }
        let executor = if macs < SERIAL_MACS { Executor::serial() } else { ctx.executor() };
        let (rows_q8, gathered) = scratch_rows(a.rows(), a.cols(), compute, ordered)?;
        let workers = product("workspace bytes", &[worker_bytes, executor.workers()])?;
        let bytes = workers.checked_add(rows_q8).and_then(|x| x.checked_add(gathered));
        let bytes = if blocks { bytes.ok_or(Error::Overflow { what: "workspace bytes" })? } else { 0 };
        Ok(Need { executor, worker_bytes, rows_q8, gathered, bytes, blocks })
    }
}

/// The products with weights of floats, one after the other.
fn multiply_floats(
    ctx: &Context,
    ws: &mut Workspace,
    a: MatRef<'_>,
    products: &mut [Product<'_>],
) -> Result<()> {
    for p in products {
        if let Body::Floats(b) = &p.weights.body {
            let (c, e) = (p.c.reborrow(), &p.epilogue);
            match p.up {
                Some(PackedWeights { body: Body::Floats(up), .. }) => {
                    b.multiply_gated(ctx, ws, Precision::Exact, a, up, c, e)?;
                }
                _ => b.multiply(ctx, ws, a, c, e)?,
            }
        }
    }
    Ok(())
}

/// The products of `region` with weights of blocks, at most [`REGION`], in one parallel region: one barrier
/// in all.
pub(super) fn multiply_region(
    executor: &Executor,
    shared: &Shared<'_>,
    region: &mut [Product<'_>],
    scratch: &mut [u8],
    worker_bytes: usize,
) {
    let mut outs = [const { None }; REGION];
    let mut items: [Option<Item<'_>>; REGION] = [const { None }; REGION];
    for ((p, out), item) in region.iter_mut().zip(&mut outs).zip(&mut items) {
        let plan = p.plan(shared.kernels, shared.compute);
        if let (Some(plan), Body::Blocks(w)) = (plan, &p.weights.body) {
            let up = match p.up {
                Some(PackedWeights { body: Body::Blocks(up), .. }) => Some(up),
                _ => None,
            };
            *out = Some((p.c.reborrow(), plan.grid));
            *item = Some(Item { shared, w, up, plan, epilogue: p.epilogue });
        }
    }
    for_each_tile_of(executor, outs, scratch, worker_bytes, &|arena, which, origin, c| {
        if let Some(item) = &items[which] {
            item.run(arena, origin, c);
        }
    });
}

/// Copies the rows of `a` with their elements in another order, 8 rows an item.
fn gather<'a>(executor: &Executor, a: MatRef<'_>, order: &[u32], out: &'a mut [f32]) -> Result<MatRef<'a>> {
    let (m, k) = (a.rows(), a.cols());
    let grid = Grid { tile_rows: 8, tile_cols: k.max(1) };
    for_each_tile(executor, MatMut::dense(out, m, k)?, grid, &mut [], 0, &|_, origin, mut out| {
        for i in 0..out.rows() {
            if let Some(x) = a.row(origin.row + i) {
                out.row(i).iter_mut().zip(order).for_each(|(out, &from)| *out = x[from as usize]);
            }
        }
    });
    MatRef::dense(out, m, k)
}

/// Quantises all rows of `a`, 8 rows an item.
pub(super) fn quantize_rows(
    kernels: &KernelSet,
    executor: &Executor,
    a: MatRef<'_>,
    row_bytes: usize,
    rows_q8: &mut [u8],
) -> Result<()> {
    quantize_rows_by(executor, (a.rows(), row_bytes), rows_q8, |i, out| {
        if let Some(x) = a.row(i) {
            kernels.quantize(x, out);
        }
    })
}

/// Has `quantize` fill `rows` rows of `row_bytes` bytes, 8 rows an item: it gets the number of a row and its
/// bytes.
pub(super) fn quantize_rows_by(
    executor: &Executor,
    (rows, row_bytes): (usize, usize),
    rows_q8: &mut [u8],
    quantize: impl Fn(usize, &mut [u8]) + Sync,
) -> Result<()> {
    let out = MatMut::dense(rows_q8, rows, row_bytes)?;
    let grid = Grid { tile_rows: 8, tile_cols: row_bytes.max(1) };
    for_each_tile(executor, out, grid, &mut [], 0, &|_, origin, mut rows_q8| {
        for i in 0..rows_q8.rows() {
            quantize(origin.row + i, rows_q8.row(i));
        }
    });
    Ok(())
}
