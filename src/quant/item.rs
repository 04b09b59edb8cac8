//! One work item of a product with packed weights.
//!
//! An item is a group of row panels against all rows of activations (at most 512): inside it, one tile of
//! weight rows meets all groups of activation rows while it is in L2. So each weight is read from memory once
//! per 512 rows. Few rows multiply the packed weights as they lie; many rows share the
//! unpacking to bytes, or to f32 where the activations stay f32.

use super::compute::Compute;
use super::packed::Packed;
use super::plan::{Dims, Path, Plan};
use crate::buffer::Arena;
use crate::kernels::{ActivationRows, BLOCK, KernelSet, LANES, MAX_PANELS, RowPanels, Unpacked};
use crate::matmul::Epilogue;
use crate::tiles::Origin;
use crate::view::{MatMut, MatRef};

/// Blocks of k that all passes of rows work through before the next ones: 2 row panels of 32 blocks of 8 bits
/// are 35 KB. The passes share the waiting for memory: pass p prefetches the next part of row panel p.
/// Rejected: each pass over all of k, where the first one waits for memory and the others leave it idle.
const PART_BLOCKS: usize = 32;

/// Blocks `first..first + count` of k.
#[derive(Debug, Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
}

/// The distance, in bytes, at which a pass prefetches the weights of each row panel.
fn prefetch_distance(
    w: &RowPanels<'_>,
    Part { first, count }: Part,
    panels: usize,
    (pass, passes): (usize, usize),
) -> [isize; MAX_PANELS] {
    let bytes = |blocks: usize| (blocks >> w.superblock_shift) * w.superblock_bytes();
    // Behind the last part come the row panels of the next tile.
    let distance =
        if first + count < w.blocks { bytes(count) } else { panels * w.panel_bytes - bytes(first) };
    std::array::from_fn(|j| if j % passes == pass { distance as isize } else { 0 })
}

/// What all products with the same activations share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub kernels: &'static KernelSet,
    pub a: MatRef<'a>,
    pub rows_q8: &'a [u8], // (m, row_bytes)
    pub row_bytes: usize,
    pub compute: Compute,
}

/// What all work items of a product share.
pub(super) struct Item<'a> {
    pub shared: &'a Shared<'a>,
    pub w: &'a Packed,
    pub up: Option<&'a Packed>,
    pub plan: Plan,
    pub epilogue: Epilogue<'a>,
}

impl Item<'_> {
    pub fn run(&self, mut arena: Arena<'_>, origin: Origin, mut c: MatMut<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        let (Ok(first), Ok(second), Ok(unpacked)) = (
            arena.take::<f32>(self.plan.chains),
            arena.take::<f32>(self.plan.chains),
            arena.take::<u8>(self.plan.unpacked_bytes),
        ) else {
            return debug_assert!(false, "the scratch of a worker was sized by the same numbers");
        };
        // (rows, cols): the factors of a gated product, and the chains, apart from C when the epilogue still
        // reads it.
        let tile = rows * cols;
        let mut gate = None;
        if let Some(up) = self.up {
            if let Ok(up_chains) = MatMut::dense(&mut second[..tile], rows, cols) {
                self.chains(up, unpacked, origin, up_chains);
            }
            gate = Some(&second[..tile]);
        }
        if self.epilogue.beta == 0.0 {
            self.chains(self.w, unpacked, origin, c.reborrow());
            if gate.is_some() || !self.epilogue.is_plain() {
                self.shared.kernels.epilogue(None, gate, c, origin.col, &self.epilogue);
            }
        } else if let Ok(mut chains) = MatMut::dense(&mut first[..tile], rows, cols) {
            self.chains(self.w, unpacked, origin, chains.reborrow());
            self.shared.kernels.epilogue(Some(chains), gate, c, origin.col, &self.epilogue);
        }
    }

    /// The chains of the tile at `origin` with one W, into `c`.
    fn chains(&self, w: &Packed, unpacked: &mut [u8], origin: Origin, mut c: MatMut<'_>) {
        let Shared { kernels, a, compute, .. } = *self.shared;
        let plan = Plan::new(kernels, w, Dims { m: a.rows(), n: 1, k: a.cols() }, compute, false);
        if plan.path == Path::Int8Row {
            let w = w.panels(origin.col, a.cols());
            return kernels.int8_row(w, self.activations(origin.row, 0), c);
        }
        let (width, max_rows) = plan.tile;
        // As even as possible: 7 rows are 4 + 3, not 6 + 1.
        let group = max_rows.min(c.rows().div_ceil(c.rows().div_ceil(max_rows)));
        for j in (0..c.cols()).step_by(width) {
            let mut c = c.tile(0, j, c.rows(), width);
            match plan.path {
                Path::Int8Row | Path::Int8 | Path::Exact => self.packed(w, &plan, group, origin, j, c),
                Path::Int8Unpacked | Path::ExactWide => {
                    let blocks = a.cols() / BLOCK;
                    let mut first = 0;
                    while first < blocks || first == 0 {
                        let part = Part { first, count: plan.unpacked_blocks.min(blocks - first) };
                        self.unpacked(
                            w,
                            &plan,
                            group,
                            Origin { row: origin.row, col: origin.col + j },
                            part,
                            unpacked,
                            c.reborrow(),
                        );
                        first += part.count.max(1);
                    }
                }
            }
        }
    }

    /// The quantised activations of the rows from `row` on, from block `first` on.
    fn activations(&self, row: usize, first: usize) -> ActivationRows<'_> {
        ActivationRows {
            data: &self.shared.rows_q8[row * self.shared.row_bytes + first * ActivationRows::STEP..],
            row_bytes: self.shared.row_bytes,
        }
    }

    /// One group of row panels against all rows, from the packed weights.
    fn packed(&self, w: &Packed, plan: &Plan, group: usize, origin: Origin, j: usize, mut c: MatMut<'_>) {
        let Shared { kernels, a, .. } = *self.shared;
        let (panels, rows) = (w.panels(origin.col + j, a.cols()), c.rows());
        if plan.path == Path::Exact {
            for i in (0..rows).step_by(group) {
                let x = a.from(origin.row + i, 0);
                kernels.exact(panels, x, a.strides().0, c.tile(i, 0, group, plan.tile.0));
            }
            return;
        }
        // A row that is left over, or each of a tier without tiles of more.
        let single = if group == 1 { rows } else { usize::from(rows % group == 1) };
        for i in rows - single..rows {
            kernels.int8_row(panels, self.activations(origin.row + i, 0), c.tile(i, 0, 1, plan.tile.0));
        }
        let blocks = panels.blocks;
        let passes = (rows - single).div_ceil(group);
        let mut first = 0;
        while first < blocks || first == 0 {
            let count = PART_BLOCKS.min(blocks - first);
            for pass in 0..passes {
                let part = Part { first, count };
                let distance = prefetch_distance(&panels, part, c.cols().div_ceil(LANES), (pass, passes));
                let a = self.activations(origin.row + pass * group, first);
                let c = c.tile(pass * group, 0, group, plan.tile.0);
                kernels.int8(panels, (first, count), distance, a, c, first > 0);
            }
            first += count.max(1);
        }
    }

    /// The same for blocks `part` of k, which are unpacked before; `at`: where the tile lies in the product.
    #[allow(clippy::too_many_arguments)] // where a part of a tile lies, in three matrices
    fn unpacked(
        &self,
        w: &Packed,
        plan: &Plan,
        group: usize,
        at: Origin,
        part: Part,
        unpacked: &mut [u8],
        mut c: MatMut<'_>,
    ) {
        let Shared { kernels, a, .. } = *self.shared;
        let Part { first, count: blocks } = part;
        let (packing, k) = (w.layout.packing, a.cols());
        let panel_bytes = blocks * packing.shape().unpacked;
        let width = plan.tile.0;
        // Without blocks (k = 0) nothing is unpacked: the tiles below write empty sums.
        let panels = if blocks == 0 { 0 } else { c.cols() };
        for j in (0..panels).step_by(LANES) {
            let panel = w.panels(at.col + j, k);
            if plan.path == Path::Int8Unpacked {
                let start = j / LANES * panel_bytes;
                kernels.expand(panel, (first, blocks), &mut unpacked[start..start + panel_bytes]);
            } else {
                kernels.expand_f32(
                    panel,
                    (first, blocks),
                    &mut bytemuck::cast_slice_mut(unpacked)[j..],
                    width,
                );
            }
        }
        for i in (0..c.rows()).step_by(group) {
            let (row, c) = (at.row + i, c.tile(i, 0, group, width));
            if plan.path == Path::Int8Unpacked {
                let w = Unpacked { data: unpacked, blocks, packing };
                kernels.int8_unpacked(w, self.activations(row, first), c, first > 0);
            } else {
                let (x, stride) = (a.from(row, first * BLOCK), a.strides().0);
                kernels.wide(blocks * BLOCK, bytemuck::cast_slice(unpacked), x, stride, c, first > 0);
            }
        }
    }
}
