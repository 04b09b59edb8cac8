//! Quantised weights times int8 activations (NUMERICS rule 2).
//!
//! `acc[row] = chain over blocks ascending of fma(f32(dot), d_w * d_x, acc)`, where the dot product of a
//! block of 32 is an exact integer:
//! - formats with a zero point: of `code - zero` with the activations;
//! - formats with factors for the halves of a block: `f0 * dot0 + f1 * dot1`, at most 2 * 128 * 16 * 32 * 127
//!   < 2^24, so exact in f32 too;
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
use super::quant_format::{Format, place, superblock_bytes};
use super::quant_in_place;
use super::quantize::BlockQ8;
use crate::kernels::simd::Simd;

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

/// Integer dot products of block: `[whole or first half, second half]` for each row panel and row.
pub(super) type DotSums<S, const W: usize, const C: usize> = [[[<S as Simd>::I32s; C]; W]; 2];

/// The dot products of one block. Formats without halves have theirs in the first.
///
/// # Safety
/// - each `q` is valid for the codes of a block, each `a` for a `block_q8`.
#[inline(always)]
unsafe fn dots<S: Simd, F: Format, const W: usize, const C: usize>(
    s: S,
    q: [*const u8; W],
    a: [*const BlockQ8; C],
) -> DotSums<S, W, C> {
    if F::Codes::BITS == 8 {
        // SAFETY: handed on to the caller.
        unsafe { byte_dots::<S, F, W, C>(s, q, a) }
    } else if quant_in_place::applies::<S, F>() {
        // SAFETY: handed on to the caller.
        [unsafe { quant_in_place::dots::<S, F, W, C>(s, q, a) }, [[s.i_splat(0); C]; W]]
    } else {
        // SAFETY: handed on to the caller.
        unsafe { narrow_dots::<S, F, W, C>(s, q, a) }
    }
}

/// Whether a second chain of dot instructions pays: with few accumulators their latency (4 cycles) would
/// bound the tile to half of the load rate.
const fn two_chains<S: Simd>(tiles: usize) -> bool {
    tiles <= S::DOUBLE_ACCUMULATOR_TILES
}

/// A start value of the sums of a block, with the bias that [`to_f32`] takes off: not where the halves have
/// factors, whose products it would enter, and whose sums are larger than the bias allows.
#[inline(always)]
pub(super) fn biased<S: Simd, F: Format>(s: S, init: S::I32s) -> S::I32s {
    if S::DOT_BIAS == 0 || F::HALVES { init } else { s.i_add(init, s.i_splat(S::DOT_BIAS)) }
}

/// The sums of a block as f32. Without factors, at most 255 * 127 * 32 < 2^22.
#[inline(always)]
pub(super) fn to_f32<S: Simd, F: Format>(s: S, sums: S::I32s) -> S::F32s {
    if F::HALVES { s.i_to_f32(sums) } else { s.biased_to_f32(sums) }
}

/// [`dots`] of codes of up to 6 bits.
///
/// # Safety
/// - as [`dots`].
#[inline(always)]
unsafe fn narrow_dots<S: Simd, F: Format, const W: usize, const C: usize>(
    s: S,
    q: [*const u8; W],
    a: [*const BlockQ8; C],
) -> DotSums<S, W, C> {
    let split = F::HALVES || two_chains::<S>(W * C);
    let zero = s.i_splat(0);
    // What the sums so far are, apart from the open 16-bit ones (see `Simd::narrow_start`).
    let start = biased::<S, F>(s, zero);
    let mut sums = [[[start; C]; W], [[zero; C]; W]];
    let mut open = [[[s.narrow_start(start); C]; W], [[s.narrow_start(zero); C]; W]];
    if F::OFFSET > 0 {
        for c in 0..C {
            // SAFETY: the block of activations.
            let (all, first) = unsafe { (s.i_splat((*a[c]).neg_sum), s.i_splat((*a[c]).neg_first)) };
            let shift = F::OFFSET.trailing_zeros();
            let init = if F::HALVES {
                [s.i_shl(first, shift), s.i_shl(s.i_sub(all, first), shift)]
            } else {
                [biased::<S, F>(s, s.i_shl(all, shift)), zero]
            };
            for h in 0..2 {
                for j in 0..W {
                    sums[h][j][c] = init[h];
                    open[h][j][c] = s.narrow_start(init[h]);
                }
            }
        }
    }
    // Pairs of groups after which 16-bit sums are full: 8, 4 or 2 dots fit, two of them from each pair
    // unless the halves are apart.
    let run = match (F::Codes::BITS, split) {
        (4, _) | (5, true) => 4,
        (5, false) | (6, true) => 2,
        _ => 1,
    };
    macro_rules! step {
        ($v:expr) => {
            // SAFETY: the operands are the caller's.
            unsafe { add_pair::<S, F, Narrow, W, C>(s, q, a, $v, split, &mut open) };
            if ($v + 1) % run == 0 {
                for h in 0..1 + usize::from(split) {
                    for j in 0..W {
                        for c in 0..C {
                            sums[h][j][c] = s.narrow_end(open[h][j][c], sums[h][j][c]);
                            if $v < 3 {
                                open[h][j][c] = s.narrow_start(sums[h][j][c]);
                            }
                        }
                    }
                }
            }
        };
    }
    if S::DOUBLE_ACCUMULATOR_TILES == 0 {
        // Arrays gain nothing when each step is written out.
        for v in 0..4 {
            step!(v);
        }
    } else {
        // Written out: a loop that holds the barriers of `Simd::narrow_dot` is not unrolled.
        step!(0);
        step!(1);
        step!(2);
        step!(3);
    }
    if split && !F::HALVES {
        for j in 0..W {
            for c in 0..C {
                sums[0][j][c] = s.i_add(sums[0][j][c], sums[1][j][c]);
            }
        }
    }
    sums
}

/// What adds the dot products of a group to sums.
trait Accumulate<S: Simd> {
    type Sums: Copy;
    fn dot(s: S, sums: Self::Sums, w: S::Bytes, a: S::Act) -> Self::Sums;
}

/// Of codes of up to 6 bits, see [`Simd::narrow_dot`].
struct Narrow;

impl<S: Simd> Accumulate<S> for Narrow {
    type Sums = S::NarrowAcc;

    #[inline(always)]
    fn dot(s: S, sums: S::NarrowAcc, w: S::Bytes, a: S::Act) -> S::NarrowAcc {
        s.narrow_dot(sums, w, a)
    }
}

/// Of codes of 8 bits, see [`Simd::byte_dot`].
struct Whole;

impl<S: Simd> Accumulate<S> for Whole {
    type Sums = S::I32s;

    #[inline(always)]
    fn dot(s: S, sums: S::I32s, w: S::Bytes, a: S::Act) -> S::I32s {
        s.byte_dot(sums, w, a)
    }
}

/// Adds the dot products of groups `v` and `v + 4`: to one sum, or to one each where the sums are `split`.
///
/// # Safety
/// - as [`dots`]; `v < 4`.
#[inline(always)]
unsafe fn add_pair<S: Simd, F: Format, D: Accumulate<S>, const W: usize, const C: usize>(
    s: S,
    q: [*const u8; W],
    a: [*const BlockQ8; C],
    v: usize,
    split: bool,
    sums: &mut [[[D::Sums; C]; W]; 2],
) {
    for h in 0..2 {
        let into = if split { h } else { 0 };
        let mut w = [s.bytes_zero(); W];
        for j in 0..W {
            // SAFETY: group v + 4 h < 8 of the block.
            w[j] = unsafe { F::Codes::group(s, q[j], v + 4 * h) };
        }
        for c in 0..C {
            // SAFETY: group v + 4 h < 8 of the 32 activations.
            let a = unsafe { s.load_group(a[c].cast::<i8>(), v + 4 * h) };
            for j in 0..W {
                sums[into][j][c] = D::dot(s, sums[into][j][c], w[j], a);
            }
        }
    }
}

/// [`dots`] of codes of 8 bits with an offset of 128.
///
/// # Safety
/// - as [`dots`].
#[inline(always)]
unsafe fn byte_dots<S: Simd, F: Format, const W: usize, const C: usize>(
    s: S,
    q: [*const u8; W],
    a: [*const BlockQ8; C],
) -> DotSums<S, W, C> {
    debug_assert!(F::OFFSET == 128 && !F::HALVES);
    let split = two_chains::<S>(W * C);
    let zero = s.i_splat(0);
    let mut sums = [[[zero; C]; W]; 2];
    for c in 0..C {
        // SAFETY: the block of activations.
        let init = biased::<S, F>(s, s.byte_start(s.i_splat(unsafe { (*a[c]).neg_sum })));
        for j in 0..W {
            sums[0][j][c] = init;
        }
    }
    // SAFETY: the operands are the caller's.
    unsafe {
        if S::DOUBLE_ACCUMULATOR_TILES == 0 {
            for v in 0..4 {
                add_pair::<S, F, Whole, W, C>(s, q, a, v, split, &mut sums);
            }
        } else {
            add_pair::<S, F, Whole, W, C>(s, q, a, 0, split, &mut sums);
            add_pair::<S, F, Whole, W, C>(s, q, a, 1, split, &mut sums);
            add_pair::<S, F, Whole, W, C>(s, q, a, 2, split, &mut sums);
            add_pair::<S, F, Whole, W, C>(s, q, a, 3, split, &mut sums);
        }
    }
    if split {
        for j in 0..W {
            for c in 0..C {
                sums[0][j][c] = s.i_add(sums[0][j][c], sums[1][j][c]);
            }
        }
    }
    sums
}

/// What block `i` of a superblock adds to the chains of a tile.
///
/// # Safety
/// - each header is valid for a header, each `q` for the codes of a block, each `a` for a `block_q8`.
#[inline(always)]
pub(super) unsafe fn block<S: Simd, F: Format, const W: usize, const C: usize>(
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
unsafe fn called<S: Simd, F: Format, const W: usize, const C: usize>(
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
unsafe fn inlined<S: Simd, F: Format, const W: usize, const C: usize>(
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

/// All of [`block`] that is no dot product.
///
/// # Safety
/// - as [`block`].
#[inline(always)]
pub(super) unsafe fn add_to_chains<S: Simd, F: Format, const W: usize, const C: usize>(
    s: S,
    headers: [*const u8; W],
    i: usize,
    a: [*const BlockQ8; C],
    mut dots: DotSums<S, W, C>,
    acc: &mut [[S::F32s; C]; W],
) {
    for j in 0..W {
        if F::HALVES {
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
        let dw = unsafe { F::scale(s, headers[j], i) };
        for c in 0..C {
            // SAFETY: the block of activations.
            let dx = s.splat(unsafe { (*a[c]).d });
            acc[j][c] = s.fma(to_f32::<S, F>(s, dots[0][j][c]), s.mul(dw, dx), acc[j][c]);
        }
        if F::MIN {
            for h in 0..1 + usize::from(F::HALVES) {
                // SAFETY: the header of the block.
                let min = unsafe { F::min(s, headers[j], i, h) };
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
pub(super) fn prefetch<S: Simd, F: Format>(s: S, header: *const u8, q: *const u8, i: usize, distance: isize) {
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
pub(crate) unsafe fn tile<S: Simd, F: Format, const W: usize, const C: usize>(s: S, t: &Int8Tile) {
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
