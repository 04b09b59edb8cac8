//! One row of activations against packed weights, int8 arithmetic: see [`quant_int8`](super::quant_int8).
//!
//! Memory bounds this product: each weight is read once, in one stream over any number of row panels, at 0.72
//! to 1.00 of the bandwidth of a plain read by format (docs/TUNING.md, one row of int8). The remaining loss
//! is latency: 11 to 14 instructions for a line let the CPU look 25 lines ahead. Rejected: 4 row panels at
//! once. Where instructions are the bound, two row panels share the loads of the activations
//! ([`SimdBytes::ROW_PANELS`]).

use super::LANES;
use super::quant_codes::Codes;
use super::quant_format::{Format, superblock_bytes};
use super::quant_int8::block;
use super::quantize::BlockQ8;
use crate::kernels::simd_bytes::SimdBytes;

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
pub(crate) unsafe fn row<S: SimdBytes, F: Format>(s: S, t: &Int8Row) {
    let panels = t.cols.div_ceil(LANES);
    // Factors of the halves, and the bits of a second plane, take the registers of another panel.
    let both = S::ROW_PANELS == 2 && !F::HALVES && F::Codes::PLANES.len() == 1;
    let mut panel = 0;
    // SAFETY: the row panels from `panel` on, as the caller says.
    unsafe {
        while both && panel + 2 <= panels {
            some_panels::<S, F, 2>(s, t, panel);
            panel += 2;
        }
        while panel < panels {
            some_panels::<S, F, 1>(s, t, panel);
            panel += 1;
        }
    }
}

/// `W` row panels from `panel` on.
///
/// # Safety
/// - as [`row`]; there are as many row panels.
#[inline(always)]
unsafe fn some_panels<S: SimdBytes, F: Format, const W: usize>(s: S, t: &Int8Row, panel: usize) {
    let superblock_bytes = superblock_bytes::<F>(t.superblock_shift);
    let superblock_blocks = if F::BLOCKS == 0 { 1 << t.superblock_shift } else { F::BLOCKS };
    let mut acc = [[s.splat(0.0)]; W];
    let mut superblocks = [t.w; W];
    for j in 0..W {
        superblocks[j] = t.w.wrapping_add((panel + j) * t.panel_bytes);
    }
    let (mut a, mut left) = (t.a, t.blocks);
    while left > 0 {
        macro_rules! step {
            ($i:expr) => {
                let mut q = superblocks;
                for j in 0..W {
                    // SAFETY: block i of the superblock, i + 1 of it at least are left, in the row panel.
                    q[j] = unsafe { superblocks[j].add(F::HEADER + $i * F::Codes::BYTES) };
                    for at in (0..F::Codes::BYTES).step_by(prefetch_step::<F>()) {
                        s.prefetch_l2(q[j].wrapping_add(PREFETCH_DISTANCE + at));
                    }
                }
                // SAFETY: block i of the superblock, in the row panels and in the row.
                unsafe { block::<S, F, W, 1>(s, superblocks, q, $i, [a.add($i)], &mut acc) };
            };
        }
        if prefetch_step::<F>() == 64 {
            for j in 0..W {
                for at in (0..F::HEADER).step_by(64) {
                    s.prefetch_l2(superblocks[j].wrapping_add(PREFETCH_DISTANCE + at));
                }
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
        // The last time this is the end of the row panels and of the row.
        for j in 0..W {
            superblocks[j] = superblocks[j].wrapping_add(superblock_bytes);
        }
        a = a.wrapping_add(count);
    }
    for j in 0..W {
        let col = (panel + j) * LANES;
        // SAFETY: the columns from `col` on that exist, at least one.
        unsafe { s.store_n(t.c.add(col), acc[j][0], (t.cols - col).min(LANES)) };
    }
}
