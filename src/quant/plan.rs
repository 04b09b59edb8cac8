//! The partition of a product into work items; a function of its shape only.

use super::compute::Compute;
use super::packed::Packed;
use crate::buffer::Arena;
use crate::error::{Error, Result, product};
use crate::kernels::{ActivationRows, BLOCK, KernelSet, LANES, MAX_PANELS, Packing};
use crate::tiles::Grid;

/// Rows of activations that one item handles.
const ROWS: usize = 512;

/// Multiply-adds of a work item at least, so that handing items out stays below 5 %
/// (docs/TUNING.md, `SERIAL_MACS`).
const ITEM_MACS: usize = 64 * 1024;

/// Multiply-adds below which a product stays on the calling thread: they take a few times what entering a
/// parallel region takes (docs/TUNING.md, `SERIAL_MACS`).
pub(super) const SERIAL_MACS: usize = 512 * 1024;

/// Rows from which weights are unpacked first. That is another pass over L2, which pays
/// once enough rows share the unpacked weights. Measured: docs/TUNING.md.
const UNPACKING_ROWS: usize = 40;

/// The same where a vector of codes takes one or two
/// operations to unpack, so that unpacking first pays later. Measured: docs/TUNING.md.
const UNPACKING_ROWS_SIMPLE: usize = 128;

fn unpacking_rows(packing: Packing) -> usize {
    match packing {
        // These have kernels on unpacked weights only.
        _ if !packing.shape().direct => 0,
        Packing::Q4_0 | Packing::Q8_0 | Packing::Iq4Nl => UNPACKING_ROWS_SIMPLE,
        _ => UNPACKING_ROWS,
    }
}

/// Blocks that are unpacked at once: 2 row panels of 256 x 640 bytes are 320 KiB, a third of L2. Rejected:
/// parts that stay in L1. The tiles are not faster for it, and each new part loads and stores C. Measured:
/// docs/TUNING.md.
const UNPACKED_BLOCKS: usize = 256;

/// The same where so few rows share them that they are read about once: 16 blocks of 640 bytes stay in L1
/// between the unpacking and the tile.
const UNPACKED_BLOCKS_FEW: usize = 16;
const FEW_ROWS: usize = 8;

/// Blocks that are widened to f32 at once: 16 blocks of 64 weight rows are 128 KiB.
const WIDE_BLOCKS: usize = 16;

/// Row panels of an item of one row, at least: the
/// end of an item drains the loads under way (docs/TUNING.md, `ROW_PANELS`).
const ROW_PANELS: usize = 4;

/// Which kernels compute an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// One row of int8 activations, packed weights.
    Int8Row,
    /// int8 activations, packed weights.
    Int8,
    /// int8 activations, weights unpacked to bytes.
    Int8Unpacked,
    /// f32 activations, packed weights.
    Exact,
    /// f32 activations, weights widened to f32.
    ExactWide,
}

/// The shape of a product: (m, k) times (n, k) transposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dims {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// The partition of one product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub grid: Grid,
    pub path: Path,
    /// Columns of a tile, and its rows at most.
    pub tile: (usize, usize),
    /// Elements of each of the two buffers for chains that are not C's.
    pub chains: usize,
    /// Blocks that are unpacked at once, and their bytes.
    pub unpacked_blocks: usize,
    pub unpacked_bytes: usize,
}

impl Plan {
    /// `buffers`: whether chains go to a buffer first.
    pub fn new(kernels: &KernelSet, w: &Packed, dims: Dims, compute: Compute, buffers: bool) -> Plan {
        let Dims { m, n, k } = dims;
        let packing = w.layout.packing;
        let (_, exact_rows) = kernels.exact_tile(packing);
        let (path, (panels, tile_rows)) = match w.compute(compute) {
            Compute::Int8 if m >= unpacking_rows(packing) => {
                (Path::Int8Unpacked, kernels.unpacked_tile(packing))
            }
            Compute::Int8 if m <= 1 => (Path::Int8Row, (ROW_PANELS, 1)),
            Compute::Int8 => (Path::Int8, kernels.int8_tile(packing)),
            Compute::F32 if m > 2 * exact_rows => (Path::ExactWide, kernels.wide_tile()),
            Compute::F32 => (Path::Exact, kernels.exact_tile(packing)),
        };
        let width = panels * LANES;
        let rows = m.clamp(1, ROWS);
        let group_macs = rows.saturating_mul(width).saturating_mul(k.max(1));
        let groups = ITEM_MACS.div_ceil(group_macs).min(n.div_ceil(width)).max(1);
        let blocks = k / BLOCK;
        let (unpacked_blocks, unpacked_bytes) = match path {
            Path::Int8Unpacked => {
                let blocks = blocks.min(if m < FEW_ROWS { UNPACKED_BLOCKS_FEW } else { UNPACKED_BLOCKS });
                (blocks, panels * blocks * packing.shape().unpacked)
            }
            Path::ExactWide => {
                let blocks = blocks.min(WIDE_BLOCKS);
                (blocks, blocks * BLOCK * width * size_of::<f32>())
            }
            Path::Int8Row | Path::Int8 | Path::Exact => (0, 0),
        };
        let grid = Grid { tile_rows: rows, tile_cols: groups * width };
        let chains = if buffers { rows * grid.tile_cols } else { 0 };
        Plan { grid, path, tile: (width, tile_rows), chains, unpacked_blocks, unpacked_bytes }
    }

    /// Scratch of a worker.
    pub fn worker_bytes(&self) -> Result<usize> {
        Ok(2 * Arena::bytes_for::<f32>(self.chains)? + Arena::bytes_for::<u8>(self.unpacked_bytes)?)
    }
}

/// Bytes of a quantised activation row.
pub(super) fn row_bytes(k: usize, compute: Compute) -> usize {
    match compute {
        Compute::Int8 => ActivationRows::row_bytes(k / BLOCK),
        Compute::F32 => 0,
    }
}

/// Bytes of the quantised rows, and of the rows in another order.
pub(super) fn scratch_rows(m: usize, k: usize, compute: Compute, ordered: bool) -> Result<(usize, usize)> {
    let rows_q8 = product("quantised activations", &[m, row_bytes(k, compute)])?;
    let gathered = if ordered { product("gathered activations", &[m, k, size_of::<f32>()])? } else { 0 };
    Ok((Arena::bytes_for::<u8>(rows_q8)?, Arena::bytes_for::<u8>(gathered)?))
}

/// Scratch of a worker that is enough for up to `m` rows, with or without an epilogue that needs buffers.
pub(super) fn enough_worker_bytes(
    kernels: &KernelSet,
    w: &Packed,
    m: usize,
    k: usize,
    compute: Compute,
) -> Result<usize> {
    // An item has rows * columns <= rows * (width of a tile) + (columns that fill it up to ITEM_MACS).
    let chains = ITEM_MACS / k.max(1) + MAX_PANELS * LANES * (m.clamp(1, ROWS) + 1);
    let plan = Plan::new(kernels, w, Dims { m, n: usize::MAX / 2, k }, compute, false);
    let bytes = Plan { chains, ..plan }.worker_bytes()?;
    if bytes > isize::MAX as usize { Err(Error::Overflow { what: "workspace bytes" }) } else { Ok(bytes) }
}
