//! The product with packed weights: quantise the activations once, then stream the weights once.
//!
//! A work item is a group of stripes against all rows of activations (at most 512): inside it, one tile of
//! weight rows meets all groups of activation rows while it is in L2. Weights are so read from memory once
//! for any number of rows up to that. Few rows multiply the packed weights as they lie; many rows share the
//! unpacking to a panel of bytes, or of f32 where the activations stay f32.

use super::packed::{Body, Packed};
use super::plan::{Plan, Road, SERIAL_MACS, enough_lane_bytes, row_bytes, scratch_rows};
use super::{Compute, PackedWeights, WeightFormat};
use crate::buffer::{Arena, Workspace};
use crate::context::Context;
use crate::error::{Error, Result, at_least, equal, product};
use crate::kernels::{ActivationRows, BLOCK, KernelSet, LANES, MAX_STRIPES, Stripes, Unpacked};
use crate::matmul::{Epilogue, Precision};
use crate::parallel::Executor;
use crate::view::{Grid, MatMut, MatRef, Origin, for_each_tile, for_each_tile_of};

/// Products of one region at most; more of them take several regions.
const REGION: usize = 8;

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

/// Blocks of k that all passes of rows work through before the next ones: 2 stripes of 32 blocks of 8 bits
/// are 35 KB. The passes share the waiting for memory: pass p asks for the next part of stripe p. Rejected:
/// each pass over all of k, where the first one waits for memory and the others leave it idle.
const PART_BLOCKS: usize = 32;

/// How far ahead, in bytes, a pass asks for the weights of each stripe.
fn ahead(
    w: &Stripes<'_>,
    (first, count): (usize, usize),
    stripes: usize,
    (pass, passes): (usize, usize),
) -> [isize; MAX_STRIPES] {
    let bytes = |blocks: usize| (blocks >> w.unit_shift) * w.unit_bytes();
    // Behind the last part come the stripes of the next tile.
    let distance =
        if first + count < w.blocks { bytes(count) } else { stripes * w.stripe_bytes - bytes(first) };
    std::array::from_fn(|j| if j % passes == pass { distance as isize } else { 0 })
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
        if c.rows() > 1 {
            at_least("c.row_stride", c.row_stride(), c.cols())?;
        }
        epilogue.validate(c.cols())?;
        if a.is_transposed() {
            let (got, allowed) = ("a transposed view".into(), "plain: rows are quantised as they lie");
            return Err(Error::Option { what: "a", got, allowed });
        }
        if let Some(up) = up {
            equal("up.k", up.k, "must equal the weights' k =", weights.k)?;
            equal("up.n", up.n, "must equal the weights' n =", weights.n)?;
            let floats = |w: &PackedWeights| matches!(w.body, Body::Floats(_));
            if floats(weights) != floats(up) {
                let got = up.format.map_or("group-wise", WeightFormat::name).into();
                let allowed = "blocks or floats, as the weights";
                return Err(Error::Option { what: "up.format", got, allowed });
            }
            if self.order() != Product::order_of(up) {
                let (got, allowed) = ("another order of k".into(), "the order of the weights");
                return Err(Error::Option { what: "up", got, allowed });
            }
            if epilogue.beta != 0.0 {
                let (got, allowed) = (epilogue.beta.to_string(), "0 for a gated product");
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

    /// How the product is cut; `None` for floats.
    fn plan(&self, kernels: &KernelSet, compute: Compute) -> Option<Plan> {
        let Body::Blocks(packed) = &self.weights.body else { return None };
        let buffers = self.epilogue.beta != 0.0 || self.up.is_some();
        let shape = (self.c.rows(), self.weights.n, self.weights.k);
        let mut plan = Plan::new(kernels, packed, shape, compute, buffers);
        if let Some(PackedWeights { body: Body::Blocks(up), .. }) = self.up {
            // Tiles of the two formats may differ in rows, not in columns.
            plan.panel_bytes = plan.panel_bytes.max(Plan::new(kernels, up, shape, compute, true).panel_bytes);
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
                let lane = enough_lane_bytes(ctx.kernels(), packed, m, self.k, compute)?;
                let lanes = product("workspace bytes", &[lane, ctx.lanes()])?;
                let (records, gathered) = scratch_rows(m, self.k, compute, packed.order.is_some())?;
                let bytes = lanes.checked_add(records).and_then(|x| x.checked_add(gathered));
                bytes.ok_or(Error::Overflow { what: "workspace bytes" })
            }
        }
    }

    /// `C = beta * C + act(alpha * A * W^T + bias)`.
    ///
    /// **Shapes**: `a`: (m, k), plain; `c`: (m, n). **Numerics**: see [`Compute`] and [`Epilogue`]; row i of a
    /// batch has the bits of the same row alone. Weights of single floats are multiplied exactly whatever
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
    let mut bytes = 0;
    for w in weights {
        bytes = w.workspace_bytes(ctx, m, compute)?.max(bytes);
    }
    Ok(bytes)
}

/// Several products with the same activations, such as q, k, v or gate and up: the activations are quantised
/// once, and the work of all products is dealt out together, so that the threads meet once and not once for
/// each product.
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
    let (mut macs, mut lane_bytes, mut blocks, mut ordered) = (0usize, 0, false, false);
    for p in products.iter() {
        p.validate(a)?;
        if let Some(plan) = p.plan(ctx.kernels(), compute) {
            blocks = true;
            ordered |= p.order().is_some();
            lane_bytes = plan.lane_bytes()?.max(lane_bytes);
            macs = macs.saturating_add(a.rows().saturating_mul(p.weights.n).saturating_mul(a.cols()));
        }
    }
    for p in products.iter_mut() {
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
    if !blocks {
        return Ok(());
    }
    let executor = if macs < SERIAL_MACS { &Executor::Serial } else { ctx.executor() };
    let row_bytes = row_bytes(a.cols(), compute);
    let lanes = product("workspace bytes", &[lane_bytes, executor.lanes()])?;
    let (records, gathered) = scratch_rows(a.rows(), a.cols(), compute, ordered)?;
    let need = lanes.checked_add(records).and_then(|x| x.checked_add(gathered));
    let mut arena = ws.arena(need.ok_or(Error::Overflow { what: "workspace bytes" })?)?;
    let records = arena.take::<u8>(records)?;
    let gathered = arena.take::<f32>(gathered / size_of::<f32>())?;
    let scratch = arena.rest();
    // Products that follow each other and read their activations in one order share them.
    for same in products.chunk_by_mut(|p, q| p.order() == q.order()) {
        let order = same.first().and_then(Product::order);
        let a = match order {
            Some(order) => gather(executor, a, order, gathered)?,
            None => a,
        };
        if compute == Compute::Int8 {
            quantize_rows(ctx.kernels(), executor, a, row_bytes, records)?;
        }
        for region in same.chunks_mut(REGION) {
            let mut outs = [const { None }; REGION];
            let mut items: [Option<Item<'_>>; REGION] = [const { None }; REGION];
            for ((p, out), item) in region.iter_mut().zip(&mut outs).zip(&mut items) {
                let plan = p.plan(ctx.kernels(), compute);
                if let (Some(plan), Body::Blocks(w)) = (plan, &p.weights.body) {
                    let up = match p.up {
                        Some(PackedWeights { body: Body::Blocks(up), .. }) => Some(up),
                        _ => None,
                    };
                    let (kernels, epilogue) = (ctx.kernels(), p.epilogue);
                    *out = Some((p.c.reborrow(), plan.grid));
                    *item = Some(Item { kernels, w, up, a, records, row_bytes, compute, plan, epilogue });
                }
            }
            for_each_tile_of(executor, outs, scratch, lane_bytes, &|arena, which, origin, c| {
                if let Some(item) = &items[which] {
                    item.run(arena, origin, c);
                }
            });
        }
    }
    Ok(())
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
fn quantize_rows(
    kernels: &KernelSet,
    executor: &Executor,
    a: MatRef<'_>,
    row_bytes: usize,
    records: &mut [u8],
) -> Result<()> {
    let out = MatMut::dense(records, a.rows(), row_bytes)?;
    let grid = Grid { tile_rows: 8, tile_cols: row_bytes.max(1) };
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
    w: &'a Packed,
    up: Option<&'a Packed>,
    a: MatRef<'a>,
    records: &'a [u8], // (m, row_bytes)
    row_bytes: usize,
    compute: Compute,
    plan: Plan,
    epilogue: Epilogue<'a>,
}

impl Item<'_> {
    fn run(&self, mut arena: Arena<'_>, origin: Origin, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        let (Ok(first), Ok(second), Ok(panel)) = (
            arena.take::<f32>(self.plan.chains),
            arena.take::<f32>(self.plan.chains),
            arena.take::<u8>(self.plan.panel_bytes),
        ) else {
            return debug_assert!(false, "the lane was sized by the same numbers");
        };
        // (rows, cols): the factors of a gated product, and the chains, apart from C when the epilogue still
        // reads it.
        let tile = rows * cols;
        let mut gate = None;
        if let Some(up) = self.up {
            if let Ok(up_chains) = MatMut::dense(&mut second[..tile], rows, cols) {
                self.chains(up, panel, origin, up_chains);
            }
            gate = Some(&second[..tile]);
        }
        if self.epilogue.beta == 0.0 {
            self.chains(self.w, panel, origin, c.reborrow());
            if gate.is_some() || !self.epilogue.is_plain() {
                self.kernels.epilogue(None, gate, c, origin.col, &self.epilogue);
            }
        } else if let Ok(mut chains) = MatMut::dense(&mut first[..tile], rows, cols) {
            self.chains(self.w, panel, origin, chains.reborrow());
            self.kernels.epilogue(Some(chains), gate, c, origin.col, &self.epilogue);
        }
    }

    /// The chains of the tile at `origin` with one W, into `c`.
    fn chains(&self, w: &Packed, panel: &mut [u8], origin: Origin, mut c: MatMut<'_>) {
        let plan = Plan::new(self.kernels, w, (self.a.rows(), 1, self.a.cols()), self.compute, false);
        let (width, max_rows) = plan.tile;
        // As even as possible: 7 rows are 4 + 3, not 6 + 1.
        let group = max_rows.min(c.rows().div_ceil(c.rows().div_ceil(max_rows)));
        for j in (0..c.cols()).step_by(width) {
            let mut c = c.tile(0, j, c.rows(), width);
            match plan.road {
                Road::Int8 | Road::Exact => self.packed(w, &plan, group, origin, j, c),
                Road::Int8Panel | Road::ExactWide => {
                    let blocks = self.a.cols() / BLOCK;
                    let mut first = 0;
                    while first < blocks || first == 0 {
                        let part = (first, plan.panel_blocks.min(blocks - first));
                        self.unpacked(
                            w,
                            &plan,
                            group,
                            (origin.row, origin.col + j),
                            part,
                            panel,
                            c.reborrow(),
                        );
                        first += part.1.max(1);
                    }
                }
            }
        }
    }

    /// The records of the rows from `row` on, from block `first` on.
    fn activations(&self, row: usize, first: usize) -> ActivationRows<'_> {
        ActivationRows {
            data: &self.records[row * self.row_bytes + first * ActivationRows::STEP..],
            record_bytes: self.row_bytes,
        }
    }

    /// One group of stripes against all rows, from the packed weights.
    fn packed(&self, w: &Packed, plan: &Plan, group: usize, origin: Origin, j: usize, mut c: MatMut<'_>) {
        let (stripes, rows) = (w.stripes(origin.col + j, self.a.cols()), c.rows());
        if plan.road == Road::Exact {
            for i in (0..rows).step_by(group) {
                let x = self.a.from(origin.row + i, 0);
                self.kernels.exact(stripes, x, self.a.strides().0, c.tile(i, 0, group, plan.tile.0));
            }
            return;
        }
        let blocks = stripes.blocks;
        let passes = rows.div_ceil(group);
        let mut first = 0;
        while first < blocks || first == 0 {
            let count = PART_BLOCKS.min(blocks - first);
            for pass in 0..passes {
                let ahead = ahead(&stripes, (first, count), c.cols().div_ceil(LANES), (pass, passes));
                let a = self.activations(origin.row + pass * group, first);
                let c = c.tile(pass * group, 0, group, plan.tile.0);
                self.kernels.int8(stripes, (first, count), ahead, a, c, first > 0);
            }
            first += count.max(1);
        }
    }

    /// The same for blocks `part` (first, count) of k, which are unpacked before.
    #[allow(clippy::too_many_arguments)] // where a part of a tile lies, in three matrices
    fn unpacked(
        &self,
        w: &Packed,
        plan: &Plan,
        group: usize,
        (row0, col): (usize, usize),
        part: (usize, usize),
        panel: &mut [u8],
        mut c: MatMut<'_>,
    ) {
        let (first, blocks) = part;
        let (packing, k) = (w.layout.packing, self.a.cols());
        let stripe_bytes = blocks * packing.shape().panel;
        let width = plan.tile.0;
        for j in (0..c.cols()).step_by(LANES) {
            let stripe = w.stripes(col + j, k);
            if plan.road == Road::Int8Panel {
                let start = j / LANES * stripe_bytes;
                self.kernels.expand(stripe, part, &mut panel[start..start + stripe_bytes]);
            } else {
                self.kernels.expand_f32(stripe, part, &mut bytemuck::cast_slice_mut(panel)[j..], width);
            }
        }
        for i in (0..c.rows()).step_by(group) {
            let (row, c) = (row0 + i, c.tile(i, 0, group, width));
            if plan.road == Road::Int8Panel {
                let w = Unpacked { data: panel, blocks, packing };
                self.kernels.int8_panel(w, self.activations(row, first), c, first > 0);
            } else {
                let (x, stride) = (self.a.from(row, first * BLOCK), self.a.strides().0);
                self.kernels.wide(blocks * BLOCK, bytemuck::cast_slice(panel), x, stride, c, first > 0);
            }
        }
    }
}
