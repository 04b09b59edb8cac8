//! One work item of a product with packed weights.
//!
//! An item is a group of stripes against all rows of activations (at most 512): inside it, one tile of
//! weight rows meets all groups of activation rows while it is in L2. So each weight is read from memory once
//! per 512 rows. Few rows multiply the packed weights as they lie; many rows share the
//! unpacking to a panel of bytes, or of f32 where the activations stay f32.

use super::Compute;
use super::packed::Packed;
use super::plan::{Path, Plan};
use crate::buffer::Arena;
use crate::kernels::{ActivationRows, BLOCK, KernelSet, LANES, MAX_STRIPES, Stripes, Unpacked};
use crate::matmul::Epilogue;
use crate::tiles::Origin;
use crate::view::{MatMut, MatRef};

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

/// What all work items of a product share.
pub(super) struct Item<'a> {
    pub kernels: &'static KernelSet,
    pub w: &'a Packed,
    pub up: Option<&'a Packed>,
    pub a: MatRef<'a>,
    pub records: &'a [u8], // (m, row_bytes)
    pub row_bytes: usize,
    pub compute: Compute,
    pub plan: Plan,
    pub epilogue: Epilogue<'a>,
}

impl Item<'_> {
    pub fn run(&self, mut arena: Arena<'_>, origin: Origin, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        let (Ok(first), Ok(second), Ok(panel)) = (
            arena.take::<f32>(self.plan.chains),
            arena.take::<f32>(self.plan.chains),
            arena.take::<u8>(self.plan.panel_bytes),
        ) else {
            return debug_assert!(false, "the scratch was sized by the same numbers");
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
        if plan.path == Path::Int8Row {
            let w = w.stripes(origin.col, self.a.cols());
            return self.kernels.int8_row(w, self.activations(origin.row, 0), c);
        }
        let (width, max_rows) = plan.tile;
        // As even as possible: 7 rows are 4 + 3, not 6 + 1.
        let group = max_rows.min(c.rows().div_ceil(c.rows().div_ceil(max_rows)));
        for j in (0..c.cols()).step_by(width) {
            let mut c = c.tile(0, j, c.rows(), width);
            match plan.path {
                Path::Int8Row | Path::Int8 | Path::Exact => self.packed(w, &plan, group, origin, j, c),
                Path::Int8Panel | Path::ExactWide => {
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
        if plan.path == Path::Exact {
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
        // Without blocks (k = 0) there is no panel: the tiles below write empty sums.
        let stripes = if blocks == 0 { 0 } else { c.cols() };
        for j in (0..stripes).step_by(LANES) {
            let stripe = w.stripes(col + j, k);
            if plan.path == Path::Int8Panel {
                let start = j / LANES * stripe_bytes;
                self.kernels.expand(stripe, part, &mut panel[start..start + stripe_bytes]);
            } else {
                self.kernels.expand_f32(stripe, part, &mut bytemuck::cast_slice_mut(panel)[j..], width);
            }
        }
        for i in (0..c.rows()).step_by(group) {
            let (row, c) = (row0 + i, c.tile(i, 0, group, width));
            if plan.path == Path::Int8Panel {
                let w = Unpacked { data: panel, blocks, packing };
                self.kernels.int8_panel(w, self.activations(row, first), c, first > 0);
            } else {
                let (x, stride) = (self.a.from(row, first * BLOCK), self.a.strides().0);
                self.kernels.wide(blocks * BLOCK, bytemuck::cast_slice(panel), x, stride, c, first > 0);
            }
        }
    }
}
