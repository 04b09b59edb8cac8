//! The dot products of 4 weights by 4 activations in each of 16 lanes: the only difference between the tiers.
//!
//! Weights of 8 bits have an offset of 128: flipping their top bit makes them signed, so that no start value
//! corrects for the offset. Every sum is an exact integer, so all tiers have the same bits.

use super::lanes::{each, v};
use std::arch::aarch64::*;
use std::arch::asm;

/// 16 lanes of 4 bytes, and 16 sums.
pub(crate) type Bytes = [uint8x16_t; 4];
pub(crate) type Sums = [int32x4_t; 4];

/// How a tier multiplies.
pub(crate) trait Dots: Copy {
    /// Four activation bytes, for all lanes.
    type Act: Copy;
    /// Sums of weights of up to 6 bits.
    type Narrow: Copy;
    /// See [`Simd::DOUBLE_ACCUMULATOR_TILES`](crate::kernels::simd::Simd::DOUBLE_ACCUMULATOR_TILES).
    const DOUBLE: usize;

    /// # Safety
    /// - `p` is valid for reads of 4 bytes.
    unsafe fn load(p: *const i8) -> Self::Act;
    /// Group `g < 8` of a block.
    /// # Safety
    /// - `block` is valid for reads of 32 bytes.
    unsafe fn load_group(block: *const i8, g: usize) -> Self::Act;
    fn narrow_start(init: Sums) -> Self::Narrow;
    fn narrow_dot(acc: Self::Narrow, w: Bytes, a: Self::Act) -> Self::Narrow;
    fn narrow_end(acc: Self::Narrow, init: Sums) -> Sums;
    /// Of bytes that are signed already.
    fn signed_dot(acc: Sums, w: Bytes, a: Self::Act) -> Sums;
}

/// Four bytes in each lane.
///
/// # Safety
/// - `p` is valid for reads of 4 bytes.
#[inline(always)]
unsafe fn broadcast(p: *const i8) -> int8x16_t {
    // SAFETY: the caller's 4 bytes; every AArch64 CPU that runs std has NEON.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(p.cast::<i32>().read_unaligned())) }
}

/// `smlal`: products of 8 bits in sums of 16.
#[derive(Clone, Copy)]
pub(crate) struct Widening;

impl Dots for Widening {
    type Act = int8x16_t;
    /// 16-bit sums, one for each of the four bytes of each lane.
    type Narrow = [int16x8_t; 8];
    const DOUBLE: usize = 1;

    #[inline(always)]
    unsafe fn load(p: *const i8) -> int8x16_t {
        // SAFETY: handed on to the caller.
        unsafe { broadcast(p) }
    }
    #[inline(always)]
    unsafe fn load_group(block: *const i8, g: usize) -> int8x16_t {
        // SAFETY: 4 of the caller's 32 bytes.
        unsafe { broadcast(block.add(4 * g)) }
    }
    #[inline(always)]
    fn narrow_start(_init: Sums) -> Self::Narrow {
        v!([vdupq_n_s16(0); 8])
    }
    #[inline(always)]
    fn narrow_dot(mut acc: Self::Narrow, w: Bytes, a: int8x16_t) -> Self::Narrow {
        for r in 0..4 {
            v!({
                let w = vreinterpretq_s8_u8(w[r]);
                acc[2 * r] = vmlal_s8(acc[2 * r], vget_low_s8(w), vget_low_s8(a));
                acc[2 * r + 1] = vmlal_high_s8(acc[2 * r + 1], w, a);
            });
        }
        acc
    }
    /// Two neighbours fit 16 bits, as [`Simd::narrow_start`](crate::kernels::simd::Simd::narrow_start) says.
    #[inline(always)]
    fn narrow_end(acc: Self::Narrow, init: Sums) -> Sums {
        each!(r => vpadalq_s16(init[r], vpaddq_s16(acc[2 * r], acc[2 * r + 1])))
    }
    /// A pair of products is at most 2 * 128 * 127 = 32512.
    #[inline(always)]
    fn signed_dot(acc: Sums, w: Bytes, a: int8x16_t) -> Sums {
        each!(r => {
            let w = vreinterpretq_s8_u8(w[r]);
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
            vpadalq_s16(acc[r], vpaddq_s16(low, vmull_high_s8(w, a)))
        })
    }
}

/// `sdot` by element: one load of 16 activations serves four groups. Where the CPU multiplies matrices too
/// (`I8MM`), the tiles of unpacked weights do that.
#[derive(Clone, Copy)]
pub(crate) struct Sdot<const I8MM: bool>;

/// Four bytes of 16: those of lane `lane`, a number that is known where it is compiled.
#[derive(Clone, Copy)]
pub(crate) struct Lane {
    bytes: int8x16_t,
    lane: usize,
}

impl<const I8MM: bool> Dots for Sdot<I8MM> {
    type Act = Lane;
    type Narrow = Sums;
    const DOUBLE: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const i8) -> Lane {
        // SAFETY: handed on to the caller.
        Lane { bytes: unsafe { broadcast(p) }, lane: 0 }
    }
    #[inline(always)]
    unsafe fn load_group(block: *const i8, g: usize) -> Lane {
        // SAFETY: half g / 4 of the caller's 32 bytes.
        Lane { bytes: unsafe { vld1q_s8(block.add(16 * (g / 4))) }, lane: g % 4 }
    }
    #[inline(always)]
    fn narrow_start(init: Sums) -> Sums {
        init
    }
    #[inline(always)]
    fn narrow_dot(acc: Sums, w: Bytes, a: Lane) -> Sums {
        Self::signed_dot(acc, w, a)
    }
    #[inline(always)]
    fn narrow_end(acc: Sums, _init: Sums) -> Sums {
        acc
    }
    #[inline(always)]
    fn signed_dot(acc: Sums, w: Bytes, a: Lane) -> Sums {
        each!(r => sdot_lane(acc[r], w[r], a))
    }
}

/// `sdot` of one register.
///
/// # Safety
/// - the CPU has `dotprod`.
#[inline(always)]
pub(super) unsafe fn sdot_lane(acc: int32x4_t, w: uint8x16_t, a: Lane) -> int32x4_t {
    // SAFETY: the caller's CPU.
    unsafe {
        match a.lane {
            0 => sdot::<0>(acc, w, a.bytes),
            1 => sdot::<1>(acc, w, a.bytes),
            2 => sdot::<2>(acc, w, a.bytes),
            _ => sdot::<3>(acc, w, a.bytes),
        }
    }
}

/// `acc[l] + sum over j of w[4l + j] * a[4 LANE + j]`, signed bytes.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: i32>(mut acc: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
    // Not `pure`, so that the dot products stay in the order of the source.
    // SAFETY: one instruction on registers, of the features above.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) acc, in(vreg) w, in(vreg) a, const LANE,
            options(nomem, nostack, preserves_flags));
    }
    acc
}

/// 8 k of two activation rows.
pub(super) type Acts = int8x16_t;

/// `8 * v` on of two blocks of activations.
///
/// # Safety
/// - both are valid for reads of 32 bytes; `v < 4`.
#[inline(always)]
pub(super) unsafe fn load_acts(first: *const i8, second: *const i8, v: usize) -> Acts {
    // SAFETY: half v / 2 of the caller's 32 bytes; every AArch64 CPU that runs std has NEON.
    unsafe {
        let first = vreinterpretq_s64_s8(vld1q_s8(first.add(16 * (v / 2))));
        let second = vreinterpretq_s64_s8(vld1q_s8(second.add(16 * (v / 2))));
        let both = if v.is_multiple_of(2) { vzip1q_s64(first, second) } else { vzip2q_s64(first, second) };
        vreinterpretq_s8_s64(both)
    }
}

/// `acc[2 i + j] + sum over k < 8 of w[8 i + k] * a[8 j + k]`, w unsigned.
#[target_feature(enable = "neon,i8mm")]
#[inline]
pub(super) fn usmmla(mut acc: int32x4_t, w: uint8x16_t, a: Acts) -> int32x4_t {
    // SAFETY: one instruction on registers, of the features above; not `pure`, as in `sdot`.
    unsafe {
        asm!("usmmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) w, in(vreg) a,
            options(nomem, nostack, preserves_flags));
    }
    acc
}
