//! Dot products with codes as they lie in memory: the nibbles of the upper half of a block are masked and not
//! shifted down, so that their sums come 16 times as large, which one exact shift of each sum corrects. That
//! saves a shift of each vector of codes, for tiers whose dot products take bytes of any size
//! ([`SimdBytes::WIDE_DOTS`]).

use super::quant_codes::Codes;
use super::quant_format::Format;
use super::quantize::BlockQ8;
use crate::kernels::simd_bytes::SimdBytes;

/// Whether the codes of a format are multiplied in place.
pub(super) const fn applies<S: SimdBytes, F: Format>() -> bool {
    S::WIDE_DOTS && S::DOT_BIAS == 0 && !F::HALVES && F::Codes::IN_PLACE > 0
}

/// The dot products of one block.
///
/// Magnitudes: 16 times a sum below 2^17.
///
/// # Safety
/// - each `q` is valid for the codes of a block, each `a` for a `block_q8`.
#[inline(always)]
pub(super) unsafe fn dots<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    mut q: [*const u8; W],
    a: [*const BlockQ8; C],
) -> [[S::I32s; C]; W] {
    let zero = s.i_splat(0);
    let mut sums = [[s.narrow_start(zero); C]; W];
    if F::OFFSET > 0 {
        for c in 0..C {
            // SAFETY: the block of activations.
            let all = s.i_splat(unsafe { (*a[c]).neg_sum });
            let init = s.i_shl(all, F::OFFSET.trailing_zeros() + F::Codes::IN_PLACE);
            for j in 0..W {
                sums[j][c] = s.narrow_start(init);
            }
        }
    }
    // Written out, because a loop that holds the barriers of `SimdBytes::narrow_dot` is not unrolled.
    // SAFETY: the operands are the caller's.
    unsafe {
        add::<S, F, W, C>(s, q, a, 4, &mut sums);
        add::<S, F, W, C>(s, q, a, 5, &mut sums);
        add::<S, F, W, C>(s, q, a, 6, &mut sums);
        add::<S, F, W, C>(s, q, a, 7, &mut sums);
    }
    for j in 0..W {
        for c in 0..C {
            let shifted = s.i_shr_signed(s.narrow_end(sums[j][c], zero), F::Codes::IN_PLACE);
            sums[j][c] = s.narrow_start(shifted);
        }
        // The vectors are loaded again, as operands of masks: kept from above they would take all registers.
        q[j] = s.opaque(q[j].cast()).cast();
    }
    // SAFETY: the operands are the caller's.
    unsafe {
        add::<S, F, W, C>(s, q, a, 0, &mut sums);
        add::<S, F, W, C>(s, q, a, 1, &mut sums);
        add::<S, F, W, C>(s, q, a, 2, &mut sums);
        add::<S, F, W, C>(s, q, a, 3, &mut sums);
    }
    let mut ends = [[zero; C]; W];
    for j in 0..W {
        for c in 0..C {
            ends[j][c] = s.narrow_end(sums[j][c], zero);
        }
    }
    ends
}

/// Adds the dot products of group `g`, times `2^IN_PLACE` from the fourth on.
///
/// # Safety
/// - as [`dots`]; `g < 8`.
#[inline(always)]
unsafe fn add<S: SimdBytes, F: Format, const W: usize, const C: usize>(
    s: S,
    q: [*const u8; W],
    a: [*const BlockQ8; C],
    g: usize,
    sums: &mut [[S::NarrowAcc; C]; W],
) {
    let mut w = [s.bytes_zero(); W];
    for j in 0..W {
        // SAFETY: group g < 8 of the block.
        w[j] = unsafe { if g < 4 { F::Codes::group(s, q[j], g) } else { F::Codes::in_place(s, q[j], g) } };
    }
    for c in 0..C {
        // SAFETY: group g < 8 of the 32 activations.
        let a = unsafe { s.load_group(a[c].cast::<i8>(), g) };
        for j in 0..W {
            sums[j][c] = s.narrow_dot(sums[j][c], w[j], a);
        }
    }
}
