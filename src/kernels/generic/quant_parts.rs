//! [`quant_int8`](super::quant_int8) where 16 lanes are four registers, of which there are 32.
//!
//! With 3 activation rows, 12 registers hold chains, 12 sums, 3 activations, and the others the codes on
//! their way and constants: none is left. So the groups of four k are taken in ascending order, vectors of
//! codes that serve several groups are loaded for each, and where the halves of a block have sums of their
//! own, 8 weight rows are taken after the other 8, the chains of the first before the sums of the second. The
//! operations of each lane are those of [`quant_int8`](super::quant_int8): the bits are equal.

use super::accumulators::{load_columns, store_columns};
use super::quant_codes::{Codes, Plane};
use super::quant_dots::{DotSums, biased};
use super::quant_exact::{Expand, expand_header};
use super::quant_format::{Format, place, superblock_bytes};
use super::quant_int8::{Int8Tile, add_to_chains, prefetch};
use super::quantize::BlockQ8;
use crate::kernels::simd_bytes::SimdBytes;

/// The operations on 8 of the 16 lanes, from `8 * part` on, `part < 2`. What a method makes of the other
/// lanes is not used, and the compiler leaves it out.
pub(crate) trait Parts: SimdBytes {
    /// The same address, which the compiler takes for another one: what lies there is loaded again, and not
    /// kept in registers from an earlier load.
    fn again(self, p: *const u8) -> *const u8;
    /// Adds the dot products of signed bytes.
    fn dot_part(self, part: usize, acc: Self::I32s, w: Self::Bytes, a: Self::Act) -> Self::I32s;
    /// Codes of 8 bits, whose offset is 128, as signed bytes.
    fn signed(self, w: Self::Bytes) -> Self::Bytes;
    /// The part's lanes of `of`, and the others of `rest`; computed before any dot product that follows.
    fn join_parts(self, part: usize, of: Self::F32s, rest: Self::F32s) -> Self::F32s;
}

/// Whether a vector of codes that group `g` needs has served an earlier group.
const fn shared<C: Codes>(g: usize) -> bool {
    let (mut i, mut shared) = (0, false);
    while i < C::PLANES.len() {
        let Plane { bits, .. } = C::PLANES[i];
        shared = shared || bits < 4 && g > 0 || bits == 4 && g >= 4;
        i += 1;
    }
    shared
}

/// What the sums of a block start with: of all of it, or of its halves.
///
/// # Safety
/// - `a` is valid for a `block_q8`.
#[inline(always)]
unsafe fn start<S: SimdBytes, F: Format>(s: S, a: *const BlockQ8) -> [S::I32s; 2] {
    let zero = s.i_splat(0);
    if F::OFFSET == 0 || F::Codes::BITS == 8 {
        return [biased::<S, F>(s, zero), zero];
    }
    let shift = F::OFFSET.trailing_zeros();
    // SAFETY: the caller's block.
    let (all, first) = unsafe { (s.i_splat((*a).neg_sum), s.i_splat((*a).neg_first)) };
    if F::HALVES {
        [s.i_shl(first, shift), s.i_shl(s.i_sub(all, first), shift)]
    } else {
        [biased::<S, F>(s, s.i_shl(all, shift)), zero]
    }
}

/// What block `i` of a superblock adds to the chains of one row panel.
///
/// # Safety
/// - `header` is valid for a header, `q` for the codes of a block, each `a` for a `block_q8`.
#[inline(always)]
unsafe fn block<S: Parts, F: Format, const C: usize>(
    s: S,
    header: *const u8,
    mut q: *const u8,
    i: usize,
    a: [*const BlockQ8; C],
    acc: &mut [[S::F32s; C]; 1],
) {
    macro_rules! starts {
        () => {{
            let mut sums: DotSums<S, 1, C> = [[[s.i_splat(0); C]]; 2];
            for c in 0..C {
                // SAFETY: the block of activations.
                [sums[0][0][c], sums[1][0][c]] = unsafe { start::<S, F>(s, a[c]) };
            }
            sums
        }};
    }
    macro_rules! group {
        ($parts:expr, $sums:expr, $g:literal) => {
            if const { shared::<F::Codes>($g) } {
                q = s.again(q);
            }
            let into = usize::from(F::HALVES && $g >= 4);
            // SAFETY: group g < 8 of the block.
            let mut w = unsafe { F::Codes::group(s, q, $g) };
            if F::Codes::BITS == 8 && F::BLOCKS != 1 {
                w = s.signed(w);
            }
            for c in 0..C {
                // SAFETY: group g < 8 of the 32 activations.
                let a = unsafe { s.load_group(a[c].cast::<i8>(), $g) };
                for part in $parts {
                    $sums[into][0][c] = s.dot_part(part, $sums[into][0][c], w, a);
                }
            }
        };
    }
    macro_rules! groups {
        ($parts:expr, $sums:expr) => {
            group!($parts, $sums, 0);
            group!($parts, $sums, 1);
            group!($parts, $sums, 2);
            group!($parts, $sums, 3);
            group!($parts, $sums, 4);
            group!($parts, $sums, 5);
            group!($parts, $sums, 6);
            group!($parts, $sums, 7);
        };
    }
    if !F::HALVES {
        let mut sums = starts!();
        groups!(0..2, sums);
        // SAFETY: handed on to the caller.
        unsafe { add_to_chains::<S, F, 1, C>(s, [header], i, a, sums, acc) };
        return;
    }
    macro_rules! part {
        ($part:literal) => {
            q = s.again(q);
            let mut sums = starts!();
            groups!($part..$part + 1, sums);
            let mut chains = *acc;
            // SAFETY: handed on to the caller.
            unsafe { add_to_chains::<S, F, 1, C>(s, [s.again(header)], i, a, sums, &mut chains) };
            for c in 0..C {
                acc[0][c] = s.join_parts($part, chains[0][c], acc[0][c]);
            }
        };
    }
    part!(0);
    part!(1);
}

/// [`quant_int8::tile`](super::quant_int8::tile) of one row panel.
///
/// # Safety
/// - every operand is valid as the comments of [`Int8Tile`] say; the row panel is whole superblocks.
#[inline(always)]
pub(crate) unsafe fn tile<S: Parts, F: Format, const W: usize, const C: usize>(s: S, t: &Int8Tile) {
    const { assert!(W == 1) };
    let mut acc = [[s.splat(0.0); C]];
    if t.accumulate {
        // SAFETY: `cols` columns of the C rows exist.
        unsafe { load_columns(s, t.c, t.c_row_stride, t.cols, &mut acc) };
    }
    for b in 0..t.blocks {
        let (superblock, i) = place::<F>(b, t.superblock_shift);
        // SAFETY: the row panel holds block b < blocks.
        let (header, q) = unsafe {
            let header = t.w[0].add(superblock * superblock_bytes::<F>(t.superblock_shift));
            (header, header.add(F::HEADER + i * F::Codes::BYTES))
        };
        prefetch::<S, F>(s, header, q, i, t.prefetch_distance[0]);
        let mut a = [std::ptr::null::<BlockQ8>(); C];
        for c in 0..C {
            // SAFETY: block b < blocks of activation row c < C.
            a[c] = unsafe { t.a.byte_add(c * t.row_bytes).add(b) };
        }
        // SAFETY: the pointers were formed for block b just above.
        unsafe { block::<S, F, C>(s, header, q, i, a, &mut acc) };
    }
    // SAFETY: `cols` columns of the C rows exist.
    unsafe { store_columns(s, t.c, t.c_row_stride, t.cols, &acc) };
}

/// [`quant_exact::expand`](super::quant_exact::expand), with codes of 8 bits as signed bytes.
///
/// # Safety
/// - the operands are valid as the comments of [`Expand`] say.
#[inline(always)]
pub(crate) unsafe fn expand<S: Parts, F: Format>(s: S, e: &Expand) {
    for n in 0..e.blocks {
        // SAFETY: the block's superblock of the row panel, and unpacked block n.
        unsafe {
            let (q, out) = expand_header::<S, F>(s, e, n);
            let shared = F::Codes::shared(s, q);
            for p in 0..4 {
                let groups = F::Codes::two_groups(s, q, shared, p);
                for i in 0..2 {
                    let codes = if F::Codes::BITS == 8 { s.signed(groups[i]) } else { groups[i] };
                    s.store_bytes(out.add(128 * p + 64 * i), codes);
                }
            }
        }
    }
}
