//! The integer dot products of one block of quantised weights with activations: what [`super::quant_int8`]
//! adds to its chains. Every sum is exact, so that their order is free.

use super::quant_codes::Codes;
use super::quant_format::Format;
use super::quant_in_place;
use super::quantize::BlockQ8;
use crate::kernels::simd::Simd;
use crate::kernels::simd_bytes::SimdBytes;

/// Integer dot products of a block: `[whole or first half, second half]` for each row panel and row.
pub(super) type DotSums<S, const W: usize, const C: usize> = [[[<S as Simd>::I32s; C]; W]; 2];

/// The dot products of one block. Formats without halves have theirs in the first.
///
/// # Safety
/// - each `q` is valid for the codes of a block, each `a` for a `block_q8`.
#[inline(always)]
pub(super) unsafe fn dots<S: SimdBytes, F: Format, const W: usize, const C: usize>(
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
const fn two_chains<S: SimdBytes>(tiles: usize) -> bool {
    tiles <= S::DOUBLE_ACCUMULATOR_TILES
}

/// A start value of the sums of a block, with the bias that [`to_f32`] takes off: not where the halves have
/// factors, whose products it would enter, and whose sums are larger than the bias allows.
#[inline(always)]
pub(super) fn biased<S: SimdBytes, F: Format>(s: S, init: S::I32s) -> S::I32s {
    if S::DOT_BIAS == 0 || F::HALVES { init } else { s.i_add(init, s.i_splat(S::DOT_BIAS)) }
}

/// The sums of a block as f32. Without factors, at most 255 * 127 * 32 < 2^22.
#[inline(always)]
pub(super) fn to_f32<S: SimdBytes, F: Format>(s: S, sums: S::I32s) -> S::F32s {
    if F::HALVES { s.i_to_f32(sums) } else { s.biased_to_f32(sums) }
}

/// [`dots`] of codes of up to 6 bits.
///
/// # Safety
/// - as [`dots`].
#[inline(always)]
unsafe fn narrow_dots<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    q: [*const u8; W],
    a: [*const BlockQ8; C],
) -> DotSums<S, W, C> {
    let split = F::HALVES || two_chains::<S>(W * C);
    let zero = s.i_splat(0);
    // What the sums so far are, apart from the open 16-bit ones (see `SimdBytes::narrow_start`).
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
        // Written out: a loop that holds the barriers of `SimdBytes::narrow_dot` is not unrolled.
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
trait Accumulate<S: SimdBytes> {
    type Sums: Copy;
    fn dot(s: S, sums: Self::Sums, w: S::Bytes, a: S::Act) -> Self::Sums;
}

/// Of codes of up to 6 bits, see [`SimdBytes::narrow_dot`].
struct Narrow;

impl<S: SimdBytes> Accumulate<S> for Narrow {
    type Sums = S::NarrowAcc;

    #[inline(always)]
    fn dot(s: S, sums: S::NarrowAcc, w: S::Bytes, a: S::Act) -> S::NarrowAcc {
        s.narrow_dot(sums, w, a)
    }
}

/// Of codes of 8 bits, see [`SimdBytes::byte_dot`].
struct Whole;

impl<S: SimdBytes> Accumulate<S> for Whole {
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
unsafe fn add_pair<S: SimdBytes, F: Format, D: Accumulate<S>, const W: usize, const C: usize>(
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
unsafe fn byte_dots<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    q: [*const u8; W],
    a: [*const BlockQ8; C],
) -> DotSums<S, W, C> {
    debug_assert!(F::OFFSET == 128);
    let split = F::HALVES || two_chains::<S>(W * C);
    let zero = s.i_splat(0);
    let mut sums = [[[zero; C]; W]; 2];
    for c in 0..C {
        // SAFETY: the block of activations.
        let (all, first) = unsafe { (s.i_splat((*a[c]).neg_sum), s.i_splat((*a[c]).neg_first)) };
        let init = if F::HALVES {
            [s.byte_start(first), s.byte_start(s.i_sub(all, first))]
        } else {
            [biased::<S, F>(s, s.byte_start(all)), zero]
        };
        for h in 0..2 {
            for j in 0..W {
                sums[h][j][c] = init[h];
            }
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
    if split && !F::HALVES {
        for j in 0..W {
            for c in 0..C {
                sums[0][j][c] = s.i_add(sums[0][j][c], sums[1][j][c]);
            }
        }
    }
    sums
}
