//! [`quant_int8`](super::quant_int8) of unpacked weights for instructions that multiply matrices: 2 weight
//! rows by 2 activation rows, 8 k each.
//!
//! The sums of 16 weight rows by a pair of activation rows are two vectors, in which pairs of lanes belong to
//! the two activation rows in turn: `[(row 0, first), (row 0, second), (row 1, first), ..]`. The chains of
//! f32 lie alike and are taken apart once, where they are stored. A weight's scale stands twice in the
//! vectors and an activation's in every second lane, so that each chain is that of
//! [`quant_int8`](super::quant_int8): the integers are exact, and the bits equal. Where the number of
//! activation rows is odd, the last one is its own partner, for nothing: the instruction does two rows in the
//! time of one.
//!
//! A block of 16 rows by 2 takes 32 instructions, and 32 operations of scales on the same pipes: 50 % of the
//! instruction's peak at best. A second pair would take 16 registers of chains and as many of sums: all 32.

use super::accumulators::{load_row, store_row};
use super::quant_codes::Codes;
use super::quant_dots::{biased, to_f32};
use super::quant_exact::{Expand, expand_header};
use super::quant_format::{Format, place, superblock_bytes};
use super::quant_int8::{Int8Tile, factor_of_min, min_of_dot, scale_of_dot};
use super::quant_parts::Parts;
use super::quantize::BlockQ8;

/// The operations on pairs of activation rows. `[T; 2]` of a lane type are 16 weight rows by a pair.
pub(crate) trait Pairs: Parts {
    /// 8 k of a pair of activation rows.
    type Acts: Copy;

    /// Two groups of 16 rows, as [`Pairs::dot_pair`] takes them: the first is 8 rows by 8 k.
    fn two_groups(self, first: Self::Bytes, second: Self::Bytes) -> [Self::Bytes; 2];
    /// 8 k from `8 * v` on, `v < 4`, of two blocks of activations.
    /// # Safety
    /// - both are valid for reads of 32 bytes.
    unsafe fn load_acts(self, first: *const i8, second: *const i8, v: usize) -> Self::Acts;
    /// Adds the products of 8 weight rows (unsigned) and the pair.
    fn dot_pair(self, acc: Self::I32s, w: Self::Bytes, a: Self::Acts) -> Self::I32s;
    /// The same vector, computed before any dot product that follows.
    fn settled(self, v: Self::F32s) -> Self::F32s;
    /// Each lane twice.
    fn twice(self, v: Self::F32s) -> [Self::F32s; 2];
    fn i_twice(self, v: Self::I32s) -> [Self::I32s; 2];
    /// Two numbers in turn.
    fn splat_two(self, first: f32, second: f32) -> Self::F32s;
    fn i_splat_two(self, first: i32, second: i32) -> Self::I32s;
    /// The lanes of two vectors in turn.
    fn join(self, first: Self::F32s, second: Self::F32s) -> [Self::F32s; 2];
    /// The two vectors that [`Pairs::join`] made one.
    fn part(self, joined: [Self::F32s; 2]) -> [Self::F32s; 2];
}

/// Groups `2 v` and `2 v + 1` of an unpacked block, which [`expand`] made.
///
/// # Safety
/// - `q` is valid for the codes of a block; `v < 4`.
#[inline(always)]
unsafe fn groups<S: Pairs>(s: S, q: *const u8, v: usize) -> [S::Bytes; 2] {
    // SAFETY: 128 of the 512 bytes of an unpacked block.
    unsafe { [s.load_bytes(q.add(128 * v)), s.load_bytes(q.add(128 * v + 64))] }
}

/// What block `i` of a superblock adds to the chains of a tile. Pair p are activation rows 2 p and 2 p + 1;
/// there are fewer pairs than C, which is as many as a type can say.
///
/// # Safety
/// - `header` is valid for a header, `q` for the codes of a block, each `a` for a `block_q8`.
#[inline(always)]
unsafe fn block<S: Pairs, F: Format, const C: usize>(
    s: S,
    mut header: *const u8,
    q: *const u8,
    i: usize,
    a: [[*const BlockQ8; 2]; C],
    acc: &mut [[S::F32s; 2]; C],
) {
    let pairs = C.div_ceil(2);
    let zero = s.i_splat(0);
    // Of weight rows `8 * h` to `8 * h + 7`, `h` in the range.
    macro_rules! rows {
        ($range:expr) => {
            let mut sums = [[[zero; 2]; C]; 2];
            for p in 0..pairs {
                // SAFETY: the blocks of activations.
                let start = unsafe { start::<S, F>(s, a[p]) };
                (sums[0][p], sums[1][p]) = ([start[0]; 2], [start[1]; 2]);
            }
            macro_rules! step {
                ($v:literal) => {
                    let half = if F::HALVES { $v / 2 } else { 0 };
                    // SAFETY: groups below 8 of the block.
                    let w = unsafe { groups(s, q, $v) };
                    for p in 0..pairs {
                        // SAFETY: the 32 activations of each block.
                        let acts = unsafe { s.load_acts(a[p][0].cast(), a[p][1].cast(), $v) };
                        for h in $range {
                            sums[half][p][h] = s.dot_pair(sums[half][p][h], w[h], acts);
                        }
                    }
                };
            }
            step!(0);
            step!(1);
            step!(2);
            step!(3);
            for p in 0..pairs {
                for h in $range {
                    let sums = [sums[0][p][h], sums[1][p][h]];
                    // SAFETY: the header of the block, and the blocks of activations.
                    acc[p][h] = unsafe { chains::<S, F>(s, h, header, i, a[p], sums, acc[p][h]) };
                }
            }
        };
    }
    if F::HALVES {
        rows!(0..1);
        for p in 0..pairs {
            acc[p][0] = s.settled(acc[p][0]);
        }
        header = s.again(header);
        rows!(1..2);
    } else {
        rows!(0..2);
    }
}

/// What the sums of a block start with, for a pair: of all of it, or of its halves.
///
/// # Safety
/// - each `a` is valid for a `block_q8`.
#[inline(always)]
unsafe fn start<S: Pairs, F: Format>(s: S, a: [*const BlockQ8; 2]) -> [S::I32s; 2] {
    let zero = s.i_splat(0);
    if F::OFFSET == 0 {
        return [biased::<S, F>(s, zero), zero];
    }
    // SAFETY: the caller's blocks.
    let (all, half) = unsafe {
        let all = s.i_splat_two((*a[0]).neg_sum, (*a[1]).neg_sum);
        (all, s.i_splat_two((*a[0]).neg_first, (*a[1]).neg_first))
    };
    let shift = F::OFFSET.trailing_zeros();
    if F::HALVES {
        [s.i_shl(half, shift), s.i_shl(s.i_sub(all, half), shift)]
    } else {
        [biased::<S, F>(s, s.i_shl(all, shift)), zero]
    }
}

/// The chains of weight rows `8 * h` to `8 * h + 7` and a pair, with what block `i` adds to them.
///
/// # Safety
/// - as [`block`].
#[inline(always)]
unsafe fn chains<S: Pairs, F: Format>(
    s: S,
    h: usize,
    header: *const u8,
    i: usize,
    a: [*const BlockQ8; 2],
    sums: [S::I32s; 2],
    acc: S::F32s,
) -> S::F32s {
    let mut dot = sums[0];
    // SAFETY: the header of the block, and the blocks of activations.
    unsafe {
        let [first, second] = [&*a[0], &*a[1]];
        if F::HALVES && !F::HALF_SCALES {
            dot = s.i_mul(dot, s.i_twice(F::factor(s, header, i, 0))[h]);
            dot = s.i_add(dot, s.i_mul(sums[1], s.i_twice(F::factor(s, header, i, 1))[h]));
        }
        if F::ZERO {
            let neg_sum = s.i_splat_two(first.neg_sum, second.neg_sum);
            dot = s.i_add(dot, s.i_mul(s.i_twice(F::zero(s, header, i))[h], neg_sum));
        }
        let mut acc = acc;
        for half in 0..1 + usize::from(F::HALF_SCALES) {
            let dot = if half == 0 { dot } else { sums[1] };
            let dw = s.twice(scale_of_dot::<S, F>(s, header, i, half))[h];
            acc = s.fma(to_f32::<S, F>(s, dot), s.mul(dw, s.splat_two(first.d, second.d)), acc);
        }
        if F::MIN {
            for half in 0..1 + usize::from(F::HALVES) {
                let sum = s.splat_two(factor_of_min::<F>(first, half), factor_of_min::<F>(second, half));
                acc = s.fma(s.twice(min_of_dot::<S, F>(s, header, i, half))[h], sum, acc);
            }
        }
        acc
    }
}

/// [`quant_int8::tile`](super::quant_int8::tile) of one row panel.
///
/// # Safety
/// - every operand is valid as the comments of [`Int8Tile`] say; the row panel is whole superblocks.
#[inline(always)]
pub(crate) unsafe fn tile<S: Pairs, F: Format, const W: usize, const C: usize>(s: S, t: &Int8Tile) {
    const { assert!(W == 1 && F::BLOCKS == 1) };
    let pairs = C.div_ceil(2);
    // The rows of pair p.
    let rows = |p: usize| [2 * p, (2 * p + 1).min(C - 1)];
    let mut acc = [[s.splat(0.0); 2]; C];
    if t.accumulate {
        for p in 0..pairs {
            let [first, second] = rows(p);
            // SAFETY: `cols` columns of the C rows exist.
            let [[first], [second]] = unsafe {
                [
                    load_row::<S, 1>(s, t.c.wrapping_add(first * t.c_row_stride), t.cols),
                    load_row::<S, 1>(s, t.c.wrapping_add(second * t.c_row_stride), t.cols),
                ]
            };
            acc[p] = s.join(first, second);
        }
    }
    for b in 0..t.blocks {
        let (superblock, i) = place::<F>(b, t.superblock_shift);
        // SAFETY: the row panel holds block b < blocks.
        let (header, q) = unsafe {
            let header = t.w[0].add(superblock * superblock_bytes::<F>(t.superblock_shift));
            (header, header.add(F::HEADER + i * F::Codes::BYTES))
        };
        let mut a = [[std::ptr::null::<BlockQ8>(); 2]; C];
        for p in 0..pairs {
            let [first, second] = rows(p);
            // SAFETY: block b < blocks of activation rows below C.
            a[p] = unsafe {
                [t.a.byte_add(first * t.row_bytes).add(b), t.a.byte_add(second * t.row_bytes).add(b)]
            };
        }
        // SAFETY: the pointers were formed for block b just above.
        unsafe { block::<S, F, C>(s, header, q, i, a, &mut acc) };
    }
    for p in 0..pairs {
        let [first, second] = rows(p);
        let parts = s.part(acc[p]);
        // SAFETY: `cols` columns of the C rows exist.
        unsafe {
            store_row(s, t.c.wrapping_add(first * t.c_row_stride), t.cols, [parts[0]]);
            if second != first {
                store_row(s, t.c.wrapping_add(second * t.c_row_stride), t.cols, [parts[1]]);
            }
        }
    }
}

/// [`quant_exact::expand`](super::quant_exact::expand), with the codes in the order of [`Pairs::two_groups`].
///
/// # Safety
/// - the operands are valid as the comments of [`Expand`] say.
#[inline(always)]
pub(crate) unsafe fn expand<S: Pairs, F: Format>(s: S, e: &Expand) {
    for n in 0..e.blocks {
        // SAFETY: the block's superblock of the row panel, and unpacked block n.
        unsafe {
            let (q, out) = expand_header::<S, F>(s, e, n);
            for v in 0..4 {
                let first = F::Codes::group(s, q, 2 * v);
                let [low, high] = s.two_groups(first, F::Codes::group(s, q, 2 * v + 1));
                s.store_bytes(out.add(128 * v), low);
                s.store_bytes(out.add(128 * v + 64), high);
            }
        }
    }
}
