//! One row of activations against packed weights, int8 arithmetic: see [`quant_int8`](super::quant_int8).
//!
//! Memory bounds this product: each weight is read once, in one stream over any number of row panels, at 0.72
//! to 1.00 of the bandwidth of a plain read by format (docs/TUNING.md, one row of int8). The remaining loss
//! is latency: 11 to 14 instructions for a line let the CPU look 25 lines ahead. Rejected: 4 row panels at
//! once.

use super::LANES;
use super::quant_codes::Codes;
use super::quant_format::{Format, superblock_bytes};
use super::quant_int8::block;
use super::quantize::BlockQ8;
use crate::kernels::simd::Simd;

/// Prefetch distance, and the bytes from one prefetch of a block to the next.
///
/// The CPU's own prefetcher stops at the end of each page (4 KiB) and has to be set going in the next one; a
/// line or two of each block, at a distance of two pages, do that. Rejected: a prefetch of every line. From 4
/// KiB on, each of them holds one of the 24 miss buffers of L1 for all of its way, and no miss of a load is
/// left that would keep the prefetcher going; at 1 to 2 KiB it gains nothing. docs/TUNING.md, one row of
/// int8, has the rates.
///
/// The large headers of K-quants are read out of order, which the CPU's prefetcher does not follow: there,
/// every line is prefetched. Not for Q6_K, which has the fewest bytes of header for its codes and would lose.
const PREFETCH_DISTANCE: usize = 8192;
const fn prefetch_step<F: Format>() -> usize {
    if F::HEADER >= 256 && F::Codes::BYTES < 384 { 64 } else { 384 }
}

/// Row panels that lie one behind the other, and the row.
pub(crate) struct Int8Row {
    pub blocks: usize,
    pub w: *const u8, // (panels, panel_bytes)
    pub panel_bytes: usize,
    /// log2 of the blocks of a superblock, for formats whose `BLOCKS` is 0.
    pub superblock_shift: u32,
    pub a: *const BlockQ8, // (blocks)
    pub c: *mut f32,       // (cols)
    /// Weight rows that exist; the row panels are as many as they need.
    pub cols: usize,
}

/// # Safety
/// - every operand is valid as the comments of [`Int8Row`] say; row panels are whole superblocks.
#[inline(always)]
pub(crate) unsafe fn row<S: Simd, F: Format>(s: S, t: &Int8Row) {
    let superblock_bytes = superblock_bytes::<F>(t.superblock_shift);
    let superblock_blocks = if F::BLOCKS == 0 { 1 << t.superblock_shift } else { F::BLOCKS };
    for panel in 0..t.cols.div_ceil(LANES) {
        let mut acc = [[s.splat(0.0)]];
        let mut superblock = t.w.wrapping_add(panel * t.panel_bytes);
        let (mut a, mut left) = (t.a, t.blocks);
        while left > 0 {
            macro_rules! step {
                ($i:expr) => {
                    // SAFETY: block i of the superblock, i + 1 of it at least are left, in the row panel and
                    // in the row.
                    unsafe {
                        let q = superblock.add(F::HEADER + $i * F::Codes::BYTES);
                        for at in (0..F::Codes::BYTES).step_by(prefetch_step::<F>()) {
                            s.prefetch_l2(q.wrapping_add(PREFETCH_DISTANCE + at));
                        }
                        block::<S, F, 1, 1>(s, [superblock], [q], $i, [a.add($i)], &mut acc);
                    }
                };
            }
            if prefetch_step::<F>() == 64 {
                for at in (0..F::HEADER).step_by(64) {
                    s.prefetch_l2(superblock.wrapping_add(PREFETCH_DISTANCE + at));
                }
            }
            let count = left.min(superblock_blocks);
            // In pairs: where scales share bytes, which half is whose is known.
            let pairs = if F::BLOCKS % 2 == 0 && S::DOUBLE_ACCUMULATOR_TILES > 1 { count / 2 * 2 } else { 0 };
            for i in (0..pairs).step_by(2) {
                step!(i);
                step!(i + 1);
            }
            for i in pairs..count {
                step!(i);
            }
            left -= count;
            // The last time this is the end of the row panel and of the row.
            (superblock, a) = (superblock.wrapping_add(superblock_bytes), a.wrapping_add(count));
        }
        let [[acc]] = acc;
        let lanes = (t.cols - panel * LANES).min(LANES);
        // SAFETY: `lanes` columns from 16 panel on.
        unsafe { s.store_n(t.c.add(panel * LANES), acc, lanes) };
    }
}
