//! Quantised weights times int8 activations (NUMERICS rule 2).
//!
//! `acc[row] = chain over blocks ascending of fma(f32(dot), d_w * d_x, acc)`, where the dot product of a
//! block of 32 is an exact integer:
//! - formats with a zero point: of `code - zero` with the activations;
//! - formats with factors for the halves of a block: `f0 * dot0 + f1 * dot1`, at most 2 * 128 * 16 * 32 * 127
//!   < 2^24, so exact in f32 too;
//! - formats whose halves have f32 scales: each half is a step of the chain, the first half first;
//! - formats with a minimum: `acc = fma(min, sum, acc)` follows, `sum = d_x * f32(sum of the block's q)`
//!   rounded once; for each half in turn, where the halves have minimums of their own.
//!
//! Weights come in row panels (NR = 16), interleaved by groups of four k (layout r16k4): one 64-byte load
//! feeds 16 rows, activations are broadcast from memory, and each broadcast serves W row panels. Offsets of
//! unsigned codes are corrected in the start value of the sum, which costs nothing.
//!
//! W x C = 2x6 on AVX-512 VNNI: 12 integer and 12 f32 accumulators; per block of 32, 96 `vpdpbusd`
//! against 24 scale operations on the same ports: 80 % of the peak
//! of `vpdpbusd` at best, and 73 % with minimums, whose 12 FMA join them.
//!
//! The halves of Q6_K are joined by `vpmulld`, of which half goes to a port of the dot instructions.
//! Rejected: a mul and an FMA for each half, 12 operations for 8 dot products. With the 16 registers of AVX2,
//! 1x3 is the widest tile. The rates of each format are in docs/TUNING.md, int8 tiles.

use super::accumulators::{load_columns, store_columns};
use super::quant_codes::Codes;
use super::quant_dots::{DotSums, dots, to_f32};
use super::quant_format::{Format, place, superblock_bytes};
use super::quantize::BlockQ8;
use crate::kernels::simd_bytes::SimdBytes;

/// Row panels of a tile at most.
pub(crate) const MAX_PANELS: usize = 4;

/// Operands of one tile of `16 W` weight rows by `C` activation rows.
pub(crate) struct Int8Tile {
    pub blocks: usize,
    /// The row panels; those that do not exist repeat another one. // (W)
    pub w: [*const u8; MAX_PANELS],
    /// Prefetch distance of the weights of each row panel, in bytes; 0 for no prefetch. // (W)
    pub prefetch_distance: [isize; MAX_PANELS],
    /// log2 of the blocks of a superblock, for formats whose `BLOCKS` is 0.
    pub superblock_shift: u32,
    pub a: *const BlockQ8, // (C, blocks), row c at a + c * row_bytes
    pub row_bytes: usize,
    pub c: *mut f32, // (C, cols), row c at c + c * c_row_stride
    pub c_row_stride: usize,
    /// Weight rows that exist, 1..=16 W.
    pub cols: usize,
    /// Whether the chains go on from what C holds.
    pub accumulate: bool,
}

/// What block `i` of a superblock adds to the chains of a tile.
///
/// # Safety
/// - each header is valid for a header, each `q` for the codes of a block, each `a` for a `block_q8`.
#[inline(always)]
pub(super) unsafe fn block<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    headers: [*const u8; W],
    q: [*const u8; W],
    i: usize,
    a: [*const BlockQ8; C],
    acc: &mut [[S::F32s; C]; W],
) {
    // Arrays gain nothing when every loop has a copy of its own, and the library grew by 150 KB.
    // SAFETY: handed on to the caller.
    unsafe {
        if S::DOUBLE_ACCUMULATOR_TILES == 0 {
            called::<S, F, W, C>(s, headers, q, i, a, acc)
        } else {
            inlined::<S, F, W, C>(s, headers, q, i, a, acc)
        }
    }
}

/// [`block`], one copy for all that call it.
///
/// # Safety
/// - as [`block`].
#[inline(never)]
unsafe fn called<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    headers: [*const u8; W],
    q: [*const u8; W],
    i: usize,
    a: [*const BlockQ8; C],
    acc: &mut [[S::F32s; C]; W],
) {
    // SAFETY: handed on to the caller.
    unsafe { inlined::<S, F, W, C>(s, headers, q, i, a, acc) }
}

/// [`block`], in each loop.
///
/// # Safety
/// - as [`block`].
#[inline(always)]
unsafe fn inlined<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    headers: [*const u8; W],
    q: [*const u8; W],
    i: usize,
    a: [*const BlockQ8; C],
    acc: &mut [[S::F32s; C]; W],
) {
    // SAFETY: handed on to the caller.
    unsafe {
        let dots = dots::<S, F, W, C>(s, q, a);
        add_to_chains::<S, F, W, C>(s, headers, i, a, dots, acc);
    }
}

/// The scales of the dot products of block `i`: of all of it, or of half `half` where the halves have their
/// own.
///
/// # Safety
/// - `header` is that of the superblock.
#[inline(always)]
pub(super) unsafe fn scale_of_dot<S: SimdBytes, F: Format>(
    s: S,
    header: *const u8,
    i: usize,
    half: usize,
) -> S::F32s {
    // SAFETY: handed on to the caller.
    unsafe { if F::HALF_SCALES { F::half_scale(s, header, i, half) } else { F::scale(s, header, i) } }
}

/// What goes with the sum of the activations of block `i`, or of its half `half`: the minimum, and what the
/// offset of the codes takes from the dot product.
///
/// # Safety
/// - `header` is that of the superblock.
#[inline(always)]
pub(super) unsafe fn min_of_dot<S: SimdBytes, F: Format>(
    s: S,
    header: *const u8,
    i: usize,
    half: usize,
) -> S::F32s {
    // SAFETY: handed on to the caller.
    unsafe {
        let min = F::min(s, header, i, half);
        if F::OFFSET == 0 {
            return min;
        }
        let half = if F::HALF_SCALES { half } else { 0 };
        s.fma(scale_of_dot::<S, F>(s, header, i, half), s.splat(F::OFFSET as f32), min)
    }
}

/// All of [`block`] that is no dot product.
///
/// # Safety
/// - as [`block`].
#[inline(always)]
pub(super) unsafe fn add_to_chains<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    headers: [*const u8; W],
    i: usize,
    a: [*const BlockQ8; C],
    mut dots: DotSums<S, W, C>,
    acc: &mut [[S::F32s; C]; W],
) {
    for j in 0..W {
        if F::HALVES && !F::HALF_SCALES {
            // SAFETY: the header of the block.
            let factors = unsafe { [F::factor(s, headers[j], i, 0), F::factor(s, headers[j], i, 1)] };
            for c in 0..C {
                let first = s.i_mul(dots[0][j][c], factors[0]);
                dots[0][j][c] = s.i_add(first, s.i_mul(dots[1][j][c], factors[1]));
            }
        }
        if F::ZERO {
            // SAFETY: the header of the block.
            let zero = unsafe { F::zero(s, headers[j], i) };
            for c in 0..C {
                // SAFETY: the block of activations.
                let neg_sum = s.i_splat(unsafe { (*a[c]).neg_sum });
                dots[0][j][c] = s.i_add(dots[0][j][c], s.i_mul(zero, neg_sum));
            }
        }
        // SAFETY: the header of the block.
        let dw = unsafe { scale_of_dot::<S, F>(s, headers[j], i, 0) };
        for c in 0..C {
            // SAFETY: the block of activations.
            let dx = s.splat(unsafe { (*a[c]).d });
            acc[j][c] = s.fma(to_f32::<S, F>(s, dots[0][j][c]), s.mul(dw, dx), acc[j][c]);
        }
        if F::HALF_SCALES {
            // SAFETY: the header of the block.
            let dw = unsafe { scale_of_dot::<S, F>(s, headers[j], i, 1) };
            for c in 0..C {
                // SAFETY: the block of activations.
                let dx = s.splat(unsafe { (*a[c]).d });
                acc[j][c] = s.fma(to_f32::<S, F>(s, dots[1][j][c]), s.mul(dw, dx), acc[j][c]);
            }
        }
        if F::MIN {
            for h in 0..1 + usize::from(F::HALVES) {
                // SAFETY: the header of the block.
                let min = unsafe { min_of_dot::<S, F>(s, headers[j], i, h) };
                for c in 0..C {
                    // SAFETY: the block of activations.
                    let sum = factor_of_min::<F>(unsafe { &*a[c] }, h);
                    acc[j][c] = s.fma(min, s.splat(sum), acc[j][c]);
                }
            }
        }
    }
}

/// Prefetches what lies `distance` behind block `i` of a superblock. Unpacked weights are not prefetched:
/// they come from L2, and a prefetch of the second next block made Q4_0 and Q8_0 slower (docs/TUNING.md).
#[inline(always)]
pub(super) fn prefetch<S: SimdBytes, F: Format>(
    s: S,
    header: *const u8,
    q: *const u8,
    i: usize,
    distance: isize,
) {
    if F::BLOCKS == 1 || distance == 0 {
        return;
    }
    for line in 0..F::Codes::BYTES / 64 {
        s.prefetch_l2(q.wrapping_offset(distance + 64 * line as isize));
    }
    if i == 0 {
        for line in 0..F::HEADER.div_ceil(64) {
            s.prefetch_l2(header.wrapping_offset(distance + 64 * line as isize));
        }
    }
}

/// # Safety
/// - every operand is valid as the comments of [`Int8Tile`] say; row panels are whole superblocks.
#[inline(always)]
pub(crate) unsafe fn tile<S: SimdBytes, F: Format, const W: usize, const C: usize>(s: S, t: &Int8Tile) {
    let mut acc = [[s.splat(0.0); C]; W];
    if t.accumulate {
        // SAFETY: `cols` columns of the C rows exist.
        unsafe { load_columns(s, t.c, t.c_row_stride, t.cols, &mut acc) };
    }
    for b in 0..t.blocks {
        let (superblock, i) = place::<F>(b, t.superblock_shift);
        let mut headers = [std::ptr::null::<u8>(); W];
        let mut q = [std::ptr::null::<u8>(); W];
        for j in 0..W {
            // SAFETY: row panel j < W holds block b < blocks.
            unsafe {
                headers[j] = t.w[j].add(superblock * superblock_bytes::<F>(t.superblock_shift));
                q[j] = headers[j].add(F::HEADER + i * F::Codes::BYTES);
            }
            prefetch::<S, F>(s, headers[j], q[j], i, t.prefetch_distance[j]);
        }
        let mut a = [std::ptr::null::<BlockQ8>(); C];
        for c in 0..C {
            // SAFETY: block b < blocks of activation row c < C.
            a[c] = unsafe { t.a.byte_add(c * t.row_bytes).add(b) };
        }
        // SAFETY: the pointers were formed for block b just above.
        unsafe { block::<S, F, W, C>(s, headers, q, i, a, &mut acc) };
    }
    // SAFETY: `cols` columns of the C rows exist.
    unsafe { store_columns(s, t.c, t.c_row_stride, t.cols, &acc) };
}

/// `d * sum of q` of a block, or of one of its halves.
#[inline(always)]
pub(super) fn factor_of_min<F: Format>(a: &BlockQ8, half: usize) -> f32 {
    if !F::HALVES {
        return a.sum;
    }
    let neg = if half == 0 { a.neg_first } else { a.neg_sum - a.neg_first };
    a.d * -neg as f32
}
