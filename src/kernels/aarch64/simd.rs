//! The methods of NEON: 16 lanes are four registers of 128 bits.

use super::dots::{Dots, Sums};
use super::lanes::{each, v};
use super::token::Neon;
use super::{halves, tails, transpose};
use crate::kernels::simd::Simd;
use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

/// 16 lanes in memory without alignment.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned(Sums);

impl<D: Dots> Simd for Neon<D> {
    type F32s = [float32x4_t; 4];
    type I32s = Sums;
    const DOUBLE_ACCUMULATOR_TILES: usize = D::DOUBLE;
    const FMA_BY_LANE: bool = true;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Neon(PhantomData)
    }
    #[inline(always)]
    #[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read
    fn prefetch(self, p: *const f32) {
        // SAFETY: a hint, which reads nothing.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) p, options(nomem, nostack, preserves_flags)) }
    }
    #[inline(always)]
    #[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read
    fn prefetch_l2(self, p: *const u8) {
        // SAFETY: a hint, which reads nothing.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) p, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn rolled(self, mut n: usize) -> usize {
        // SAFETY: no instruction.
        unsafe { asm!("/* {0} */", inout(reg) n, options(nomem, nostack, preserves_flags)) }
        n
    }

    #[inline(always)]
    unsafe fn load_four(self, p: *const f32) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 4 f32; `self` proves the features.
        [unsafe { vld1q_f32(p) }; 4]
    }
    #[inline(always)]
    fn fma_lane<const L: i32>(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s {
        each!(r => vfmaq_laneq_f32::<L>(c[r], b[r], a[0]))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32s {
        v!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 f32; `self` proves the features.
        each!(r => vld1q_f32(p.add(4 * r)))
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for n f32.
        unsafe { if n == 16 { self.load(p) } else { tails::load(p, n) } }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: Self::F32s) {
        for r in 0..4 {
            // SAFETY: the caller's pointer is valid for 16 f32; `self` proves the features.
            unsafe { vst1q_f32(p.add(4 * r), a[r]) }
        }
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, a: Self::F32s, n: usize) {
        // SAFETY: the caller's pointer is valid for n f32.
        unsafe { if n == 16 { self.store(p, a) } else { tails::store(p, &a, n) } }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: handed on to the caller.
        unsafe { transpose::transpose(from, from_stride, to, to_stride) }
    }

    #[inline(always)]
    fn bits(self, a: Self::F32s) -> Self::I32s {
        each!(r => vreinterpretq_s32_f32(a[r]))
    }
    #[inline(always)]
    fn of_bits(self, a: Self::I32s) -> Self::F32s {
        each!(r => vreinterpretq_f32_s32(a[r]))
    }

    #[inline(always)]
    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(r => vaddq_f32(a[r], b[r]))
    }
    #[inline(always)]
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(r => vsubq_f32(a[r], b[r]))
    }
    #[inline(always)]
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(r => vmulq_f32(a[r], b[r]))
    }
    #[inline(always)]
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(r => vdivq_f32(a[r], b[r]))
    }
    #[inline(always)]
    fn fma(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s {
        each!(r => vfmaq_f32(c[r], a[r], b[r]))
    }
    /// Not `fmax`, which returns neither operand where one is NaN, and orders zeros.
    #[inline(always)]
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(r => vbslq_f32(vcgtq_f32(a[r], b[r]), a[r], b[r]))
    }
    #[inline(always)]
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(r => vbslq_f32(vcltq_f32(a[r], b[r]), a[r], b[r]))
    }
    #[inline(always)]
    fn abs(self, a: Self::F32s) -> Self::F32s {
        each!(r => vabsq_f32(a[r]))
    }
    #[inline(always)]
    fn neg(self, a: Self::F32s) -> Self::F32s {
        each!(r => vnegq_f32(a[r]))
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F32s, b: Self::F32s, x: Self::F32s, y: Self::F32s) -> Self::F32s {
        each!(r => vbslq_f32(vcltq_f32(a[r], b[r]), x[r], y[r]))
    }
    #[inline(always)]
    fn round(self, a: Self::F32s) -> Self::F32s {
        each!(r => vrndnq_f32(a[r]))
    }
    #[inline(always)]
    fn scale2(self, p: Self::F32s, n: Self::F32s) -> Self::F32s {
        each!(r => {
            let exponent = vshlq_n_s32::<23>(vcvtq_s32_f32(n[r]));
            let scaled = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p[r]), exponent));
            vbslq_f32(vceqq_f32(p[r], p[r]), scaled, p[r])
        })
    }
    #[inline(always)]
    fn fold_add(self, a: Self::F32s) -> f32 {
        v!({
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let a = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(a) + vget_lane_f32::<1>(a)
        })
    }
    #[inline(always)]
    fn fold_max(self, a: Self::F32s) -> f32 {
        v!({
            let max = |a, b| vbslq_f32(vcgtq_f32(a, b), a, b);
            let a = max(max(a[0], a[2]), max(a[1], a[3]));
            let a = max(a, vextq_f32::<2>(a, a));
            let (x, y) = (vgetq_lane_f32::<0>(a), vgetq_lane_f32::<1>(a));
            if x > y { x } else { y }
        })
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 u16; `self` proves the features.
        let (low, high) = unsafe { (vld1q_u16(p), vld1q_u16(p.add(8))) };
        let ([a, b], [c, d]) = (halves::widen_f16(low), halves::widen_f16(high));
        [a, b, c, d]
    }
    #[inline(always)]
    unsafe fn store_f16_n(self, p: *mut u16, a: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { store_u16_n(p, halves::round_f16(a), n) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut u16, a: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { store_u16_n(p, halves::round_bf16(a), n) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 u16; `self` proves the features.
        let words = unsafe { [vld1q_u16(p), vld1q_u16(p.add(8))] };
        each!(r => {
            let half = words[r / 2];
            let half = if r.is_multiple_of(2) { vget_low_u16(half) } else { vget_high_u16(half) };
            vreinterpretq_f32_u32(vshll_n_u16::<16>(half))
        })
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 32 u16, which are 16 i32.
        unsafe { self.i_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn reload_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 32 u16 = 64 bytes; the type has no alignment.
        unsafe { p.cast::<Unaligned>().read_volatile().0 }
    }

    #[inline(always)]
    fn i_splat(self, x: i32) -> Self::I32s {
        v!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn i_add(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(r => vaddq_s32(a[r], b[r]))
    }
    #[inline(always)]
    fn i_sub(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(r => vsubq_s32(a[r], b[r]))
    }
    #[inline(always)]
    fn i_mul(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(r => vmulq_s32(a[r], b[r]))
    }
    #[inline(always)]
    fn i_and(self, a: Self::I32s, b: i32) -> Self::I32s {
        each!(r => vandq_s32(a[r], vdupq_n_s32(b)))
    }
    #[inline(always)]
    fn i_xor(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(r => veorq_s32(a[r], b[r]))
    }
    #[inline(always)]
    fn i_shl(self, a: Self::I32s, n: u32) -> Self::I32s {
        each!(r => vshlq_s32(a[r], vdupq_n_s32(n as i32)))
    }
    #[inline(always)]
    fn i_shr(self, a: Self::I32s, n: u32) -> Self::I32s {
        each!(r => {
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[r]), vdupq_n_s32(-(n as i32))))
        })
    }
    #[inline(always)]
    fn i_shr_signed(self, a: Self::I32s, n: u32) -> Self::I32s {
        each!(r => vshlq_s32(a[r], vdupq_n_s32(-(n as i32))))
    }
    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 i32; `self` proves the features.
        each!(r => vld1q_s32(p.add(4 * r)))
    }
    #[inline(always)]
    unsafe fn i_store(self, p: *mut i32, a: Self::I32s) {
        for r in 0..4 {
            // SAFETY: the caller's pointer is valid for 16 i32; `self` proves the features.
            unsafe { vst1q_s32(p.add(4 * r), a[r]) }
        }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        let bytes = unsafe { vld1q_u8(p) };
        let words = v!([vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes)]);
        each!(r => {
            let half = words[r / 2];
            let wide = if r.is_multiple_of(2) { vmovl_u16(vget_low_u16(half)) } else { vmovl_high_u16(half) };
            vreinterpretq_s32_u32(wide)
        })
    }
    #[inline(always)]
    unsafe fn i_load_i8(self, p: *const i8) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        let bytes = unsafe { vld1q_s8(p) };
        let words = v!([vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)]);
        each!(r => {
            let half = words[r / 2];
            if r.is_multiple_of(2) { vmovl_s16(vget_low_s16(half)) } else { vmovl_high_s16(half) }
        })
    }
    #[inline(always)]
    fn i_to_f32(self, a: Self::I32s) -> Self::F32s {
        each!(r => vcvtq_f32_s32(a[r]))
    }
    #[inline(always)]
    fn i_fold_add(self, a: Self::I32s) -> i32 {
        v!(vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[2]), vaddq_s32(a[1], a[3]))))
    }
    #[inline(always)]
    fn f_to_i32(self, a: Self::F32s) -> Self::I32s {
        each!(r => vcvtnq_s32_f32(a[r]))
    }
    #[inline(always)]
    unsafe fn i_store_i8(self, p: *mut i8, a: Self::I32s) {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        unsafe {
            let words = |low, high| vuzp1q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
            let (low, high) = (words(a[0], a[1]), words(a[2], a[3]));
            vst1q_s8(p, vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high)));
        }
    }
}

/// Stores the first `n <= 16` numbers of 2 bytes.
///
/// # Safety
/// - `p` is valid for writes of `n` u16.
#[inline(always)]
unsafe fn store_u16_n(p: *mut u16, v: [uint16x8_t; 2], n: usize) {
    // SAFETY: the caller's pointer is valid for n u16; every AArch64 CPU that runs std has NEON.
    unsafe {
        if n == 16 {
            vst1q_u16(p, v[0]);
            vst1q_u16(p.add(8), v[1]);
        } else {
            tails::store_u16(p, &v, n);
        }
    }
}
