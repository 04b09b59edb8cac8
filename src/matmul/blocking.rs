//! How a product is cut: pure numbers from the shape and the tile, never from the machine or the threads,
//! so that instruction counts and work items are the same everywhere.

use super::request::Size;
use crate::buffer::Arena;
use crate::error::Result;
use crate::kernels::{KernelSet, LANES};

/// The most depth of a block of k (LOOP 4), and the most columns of a work item (LOOP 5).
#[derive(Clone, Copy)]
struct Cut {
    kc: usize,
    nc: usize,
}

/// Depth of a block of k (LOOP 4) and columns of a work item (LOOP 5) where B lies in L2 anyway.
const KC: usize = 512;
const NC: usize = 256;

/// The same for packed B: a block of 512 KiB stays in half of a 1 MiB L2. Deep blocks store and reload
/// accumulators less often, and are long streams from memory. Measured: docs/TUNING.md.
const PACKED: Cut = Cut { kc: 1024, nc: 128 };

/// In place of [`PACKED`] for up to [`FEW_SHARE_ROWS`] rows that share a prepacked B: the fewer rows, the
/// more the time is that of reading B. Measured: docs/TUNING.md.
const FEW_SHARE: Cut = Cut { kc: 2048, nc: 64 };
const FEW_SHARE_ROWS: usize = 32;

/// For `Fast`: A is rounded again for each work item, so that items are wide; B takes half the bytes.
const FAST: Cut = Cut { kc: 512, nc: 512 };

/// Rows of a block of A (LOOP 3): `MC * KC * 4 = 384 KiB` where A has to be packed.
const MC: usize = 192;

/// Up to this many rows, B is read where it lies: packing would be a pass over B that few rows share.
const STREAM_ROWS: usize = 32;

/// Depth and columns of a block of B that is read where it lies, when it is larger than L2. Few rows of B at
/// a time, each over a long stretch: 8 sequential streams, which the prefetchers follow, where the usual
/// block of 512 rows is 512 short pieces in 512 pages. Measured: docs/TUNING.md.
pub(super) const STREAM_KC: usize = 8;
const STREAM_NC: usize = 2048;
const STREAM_NC_FEW_ROWS: usize = 8192;

/// Up to this many rows, the longest contiguous reads of B are fastest.
const FEW_ROWS: usize = 2;

/// Largest B (elements) that is read in place whatever m is: 1 MiB, an L2. The tile reads whole lines of it
/// in any case, and a packing pass costs more than it saves. Measured: docs/TUNING.md.
const NEAR_ELEMENTS: usize = 256 * 1024;

/// The same for tiles of 16 columns (AVX2), which read one line
/// of each row, so that packing pays for a smaller B. Measured: docs/TUNING.md.
const NEAR_ELEMENTS_NARROW: usize = 8 * 1024;

/// Whether B is read where it lies for any number of rows.
fn is_near(shape: &Shape) -> bool {
    let most = if shape.tile_is_narrow { NEAR_ELEMENTS_NARROW } else { NEAR_ELEMENTS };
    shape.k.saturating_mul(shape.n) <= most
}

/// Multiply-adds below which a product stays on the calling thread: they
/// take a few times what entering a parallel region takes (docs/TUNING.md, `SERIAL_MACS`).
const SERIAL_MACS: usize = 256 * 1024;

/// Work items that a product with many rows is cut into at least, so that threads find work.
const ITEMS: usize = 8;

/// How a work item gets at B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BAccess {
    /// Packed once, long before.
    Prepacked,
    /// Packed block by block in scratch.
    Pack,
    /// Read where it lies; only a ragged last vector is copied, padded.
    InPlace,
}

/// What decides the blocking, besides the register tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Whether A is copied: a transposed one, and patches.
    pub a_copied: bool,
    /// Whether A is rounded to bf16.
    pub a_to_bf16: bool,
    pub b_transposed: bool,
    pub b_prepacked: bool,
    /// Whether C cannot hold the accumulators between parts of k: C is read at the end, or holds another
    /// type.
    pub separate_accumulators: bool,
    /// Whether a second product, of the same size, is the factor of this one.
    pub gated: bool,
    /// Whether the widest tile is one vector of columns.
    pub tile_is_narrow: bool,
}

/// Whether a product is a single item and a single part of k whose operands are read where they lie, for so
/// little work that it stays on the calling thread (or there is no other).
pub(super) fn is_small(shape: Shape, workers: usize) -> bool {
    let Shape { m, n, k, .. } = shape;
    let as_they_lie =
        !shape.a_copied && (shape.b_prepacked || (!shape.b_transposed && n.is_multiple_of(LANES)));
    let single = m <= MC && n <= NC && k <= KC && !shape.gated;
    // With those bounds the products cannot overflow.
    as_they_lie
        && single
        && (shape.b_prepacked || m <= STREAM_ROWS || is_near(&shape))
        && n * k <= NEAR_ELEMENTS
        && (workers == 1 || m * n * k < SERIAL_MACS)
}

/// Elements of scratch of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scratch {
    /// Packed A.
    pub a: usize,
    /// Packed B.
    pub b: usize,
    /// The gate, and accumulators that C cannot hold.
    pub c: usize,
}

impl Scratch {
    fn bytes(self) -> Result<usize> {
        [self.a, self.b, self.c].iter().try_fold(0, |sum, &len| Ok(sum + Arena::bytes_for::<f32>(len)?))
    }
}

/// Numbers of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocking {
    /// Depth of the blocks of k; the last one may be shorter.
    pub kc: usize,
    /// Rows of a block of A.
    pub mc: usize,
    /// Rows of all A micropanels but the last; 0 for micropanels as even as possible.
    pub panel_rows: usize,
    /// Rows and columns of a work item.
    pub tile_rows: usize,
    pub tile_cols: usize,
    pub b_access: BAccess,
    pub serial: bool,
    pub scratch: Scratch,
}

/// Columns of a packed panel: as wide as the widest tile.
pub(super) fn panel_width(kernels: &KernelSet) -> usize {
    kernels.nv(kernels.mr()) * LANES
}

/// `total` split into the fewest parts of at most `most`, as evenly as multiples of `unit` allow.
#[inline(always)] // for the units that are constants
pub(super) fn even_split(total: usize, most: usize, unit: usize) -> usize {
    if total <= most {
        return total.next_multiple_of(unit).max(unit); // small calls feel each division
    }
    let parts = total.div_ceil(most).max(1);
    total.div_ceil(parts).next_multiple_of(unit).max(unit)
}

impl Blocking {
    pub(super) fn new(shape: Shape, mr: usize) -> Blocking {
        let Shape { m, n, k, .. } = shape;
        let col_blocks = n.div_ceil(NC).max(1);
        let row_blocks = m.div_ceil(MC).min(ITEMS.div_ceil(col_blocks)).max(1);
        // Accumulators that C cannot hold live in scratch, which bounds the rows of an item.
        let most_rows = if shape.separate_accumulators || shape.gated {
            MC
        } else {
            m.div_ceil(row_blocks).next_multiple_of(mr).max(mr)
        };
        let tile_rows = even_split(m, most_rows, mr);
        let near = is_near(&shape);
        let pack = shape.b_transposed || (m > STREAM_ROWS && !near);
        let b_access = match (shape.b_prepacked, pack) {
            (true, _) => BAccess::Prepacked,
            (false, true) => BAccess::Pack,
            (false, false) => BAccess::InPlace,
        };
        let most = match b_access {
            BAccess::InPlace if k.saturating_mul(n) <= NEAR_ELEMENTS => Cut { kc: KC, nc: NC },
            BAccess::InPlace if m <= FEW_ROWS => Cut { kc: STREAM_KC, nc: STREAM_NC_FEW_ROWS },
            BAccess::InPlace => Cut { kc: STREAM_KC, nc: STREAM_NC },
            // One A micropanel: all of k, B is one stream. One row: 0.96 of the read bandwidth, 0.82 with
            // blocks.
            BAccess::Prepacked if m <= mr => Cut { kc: k, nc: NC },
            BAccess::Prepacked if shape.a_to_bf16 && m > 2 * mr => FAST,
            BAccess::Prepacked if m <= FEW_SHARE_ROWS => FEW_SHARE,
            BAccess::Prepacked | BAccess::Pack => PACKED,
        };
        let tile_cols = most.nc.min(n.next_multiple_of(LANES)).max(LANES);
        let (kc, mc) = (even_split(k, most.kc, 4), tile_rows.min(MC));
        let a_scratch = match (shape.a_copied, shape.a_to_bf16) {
            (_, true) => mc * kc.div_ceil(2),
            (true, false) => mc * kc,
            (false, false) => 0,
        };
        let b_scratch = match b_access {
            BAccess::Prepacked => 0,
            BAccess::Pack => kc * tile_cols,
            BAccess::InPlace => kc * LANES,
        };
        let separate_accumulators = shape.separate_accumulators && k > kc;
        // The first A micropanel waits for B from memory: it takes as many rows as it can, and few are left
        // for the later ones. 8 rows as 6 + 2: 1.1 of 4 + 4. Otherwise as even as possible: 7 rows are 4 + 3.
        let panel_rows = if b_access == BAccess::Prepacked && m <= 2 * mr { mr } else { 0 };
        let c_scratch =
            (usize::from(separate_accumulators) + usize::from(shape.gated)) * tile_rows * tile_cols;
        Blocking {
            kc,
            mc,
            panel_rows,
            tile_rows,
            tile_cols,
            b_access,
            serial: m.saturating_mul(n).saturating_mul(k) < SERIAL_MACS,
            scratch: Scratch { a: a_scratch, b: b_scratch, c: c_scratch },
        }
    }

    /// Bytes of scratch of one worker.
    pub(super) fn worker_bytes(&self) -> Result<usize> {
        self.scratch.bytes()
    }
}

/// Bytes of scratch of one worker that are enough for any product of up to `m` rows, whatever its transposes
/// and its epilogue: a caller sizes its workspace once, for its largest batch. Grows with m and with n.
pub(super) fn enough_worker_bytes(size: Size, mr: usize, prepacked: bool) -> Result<usize> {
    let Size { m, n, k } = size;
    let kc = |most: usize| even_split(k, most, 4);
    let rows = |most: usize| m.min(most).next_multiple_of(mr);
    let cols = |most: usize| most.min(n.next_multiple_of(LANES)).max(LANES);
    let a = rows(MC) * kc(PACKED.kc);
    if prepacked {
        // Or all rows of the deepest block for few rows, or one A micropanel of all k. Accumulators: gated,
        // and not f32.
        let a = a.max(rows(FEW_SHARE_ROWS) * kc(FEW_SHARE.kc)).max(mr.saturating_mul(k.next_multiple_of(4)));
        return Scratch { a, b: 0, c: 2 * rows(MC) * cols(FAST.nc) }.bytes();
    }
    let packed = Scratch { a, b: kc(PACKED.kc) * cols(PACKED.nc), c: rows(MC) * cols(NC) }.bytes()?;
    let few = rows(FEW_ROWS) * cols(STREAM_NC_FEW_ROWS);
    let stream = rows(STREAM_ROWS) * cols(STREAM_NC);
    Ok(packed.max(Scratch { a, b: kc(KC) * LANES, c: few.max(stream) }.bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_even() {
        assert_eq!(even_split(7, 6, 1), 4);
        assert_eq!(even_split(13, 6, 1), 5);
        assert_eq!(even_split(1024, 512, 4), 512);
        assert_eq!(even_split(600, 512, 4), 300);
        assert_eq!(even_split(0, 512, 4), 4);
    }

    fn shape(m: usize, n: usize, k: usize) -> Shape {
        let (a_copied, a_to_bf16, b_transposed, b_prepacked) = Default::default();
        let (separate_accumulators, gated, tile_is_narrow) = Default::default();
        Shape {
            m,
            n,
            k,
            a_copied,
            a_to_bf16,
            b_transposed,
            b_prepacked,
            separate_accumulators,
            gated,
            tile_is_narrow,
        }
    }

    #[test]
    fn items_depend_on_the_shape_alone() {
        let b = Blocking::new(shape(512, 512, 512), 6);
        assert_eq!((b.kc, b.tile_rows, b.tile_cols, b.b_access), (512, 174, 256, BAccess::InPlace));
        let b = Blocking::new(shape(1024, 1024, 1024), 6);
        assert_eq!((b.kc, b.tile_rows, b.tile_cols, b.b_access), (1024, 516, 128, BAccess::Pack));
        let b = Blocking::new(shape(1, 4096, 4096), 6);
        assert_eq!((b.tile_rows, b.b_access, b.serial), (6, BAccess::InPlace, false));
        let b = Blocking::new(Shape { separate_accumulators: true, ..shape(4096, 64, 64) }, 6);
        assert!(b.tile_rows <= MC && b.tile_cols == 64);
        assert!(Blocking::new(shape(1, 128, 128), 6).serial);
        assert_eq!(Blocking::new(Shape { b_prepacked: true, ..shape(9, 9, 9) }, 6).worker_bytes(), Ok(0));
    }
}
