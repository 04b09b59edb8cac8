//! The codes and dot products of NEON.

use super::dots::{Bytes, Dots};
use super::lanes::{each, v};
use super::token::Neon;
use crate::kernels::simd::Simd;
use crate::kernels::simd_bytes::SimdBytes;
use std::arch::aarch64::*;

/// 1.5 * 2^23: an f32 of so many ones, whose bits plus a small integer are the sum of both.
const MAGIC: f32 = 12_582_912.0;

impl<D: Dots> SimdBytes for Neon<D> {
    type Bytes = Bytes;
    type Act = D::Act;
    type NarrowAcc = D::Narrow;
    const DOT_BIAS: i32 = MAGIC.to_bits() as i32;
    /// `e - 1` as an exponent, or where that is no normal number, `2^-128 << e`; all bits for 255, a NaN.
    #[inline(always)]
    unsafe fn load_e8m0(self, p: *const u8) -> Self::F32s {
        // SAFETY: handed on to the caller.
        let e = unsafe { self.load_u8(p) };
        each!(r => {
            let one = vdupq_n_s32(1);
            let normal = vshlq_n_s32::<23>(vsubq_s32(e[r], one));
            let small = vshlq_s32(vdupq_n_s32(0x0020_0000), vminq_s32(e[r], one));
            let nan = vreinterpretq_s32_u32(vceqq_s32(e[r], vdupq_n_s32(255)));
            vreinterpretq_f32_s32(vorrq_s32(vmaxq_s32(normal, small), nan))
        })
    }
    #[inline(always)]
    fn biased_to_f32(self, a: Self::I32s) -> Self::F32s {
        each!(r => vsubq_f32(vreinterpretq_f32_s32(a[r]), vdupq_n_f32(MAGIC)))
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::Bytes {
        // SAFETY: the caller's pointer is valid for 64 bytes; `self` proves the features.
        each!(r => vld1q_u8(p.add(16 * r)))
    }
    #[inline(always)]
    fn bytes_signed(self, a: Self::I32s, signs: Self::I32s, g: usize) -> Self::I32s {
        let byte = (g / 2) as u32 * 0x0101_0101;
        let rows = [byte, byte + 0x0404_0404, byte + 0x0808_0808, byte + 0x0c0c_0c0c];
        // SAFETY: the array holds four u32.
        let spread = v!(vreinterpretq_u8_u32(vld1q_u32(rows.as_ptr())));
        let bits = v!(vreinterpretq_u8_u32(vdupq_n_u32(0x0804_0201 << (4 * (g % 2)))));
        each!(r => {
            let mask = vtstq_u8(vqtbl1q_u8(vreinterpretq_u8_s32(signs[r]), spread), bits);
            let a = vreinterpretq_u8_s32(a[r]);
            vreinterpretq_s32_u8(vsubq_u8(veorq_u8(a, mask), mask))
        })
    }
    #[inline(always)]
    fn bytes_of(self, a: Self::I32s) -> Self::Bytes {
        each!(r => vreinterpretq_u8_s32(a[r]))
    }
    #[inline(always)]
    fn lanes_of_bytes(self, q: Self::Bytes) -> Self::I32s {
        each!(r => vreinterpretq_s32_u8(q[r]))
    }
    #[inline(always)]
    fn bytes_zero(self) -> Self::Bytes {
        v!([vdupq_n_u8(0); 4])
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, q: Self::Bytes) {
        for r in 0..4 {
            // SAFETY: the caller's pointer is valid for 64 bytes; `self` proves the features.
            unsafe { vst1q_u8(p.add(16 * r), q[r]) }
        }
    }
    #[inline(always)]
    fn bytes_or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        each!(r => vorrq_u8(a[r], b[r]))
    }
    #[inline(always)]
    fn bytes_bits(self, q: Self::Bytes, from: u32, to: u32, mask: u8) -> Self::Bytes {
        let left = to as i8 - from as i8;
        each!(r => vandq_u8(vshlq_u8(q[r], vdupq_n_s8(left)), vdupq_n_u8(mask << to)))
    }
    #[inline(always)]
    fn bytes_lookup(self, q: Self::Bytes, table: &[u8; 16]) -> Self::Bytes {
        // SAFETY: the table has the 16 bytes that are loaded; `self` proves the features.
        let table = unsafe { vld1q_u8(table.as_ptr()) };
        each!(r => vqtbl1q_u8(table, q[r]))
    }
    #[inline(always)]
    fn bytes_low_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        each!(r => vandq_u8(q[r], vdupq_n_u8(15)))
    }
    #[inline(always)]
    fn bytes_high_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        each!(r => vshrq_n_u8::<4>(q[r]))
    }
    /// The byte is left where it is: the conversion divides by the power of two.
    #[inline(always)]
    fn byte_to_f32(self, q: Self::Bytes, j: u32) -> Self::F32s {
        each!(r => {
            let byte = vandq_u32(vreinterpretq_u32_u8(q[r]), vdupq_n_u32(255 << (8 * j)));
            match j {
                0 => vcvtq_f32_u32(byte),
                1 => vcvtq_n_f32_u32::<8>(byte),
                2 => vcvtq_n_f32_u32::<16>(byte),
                _ => vcvtq_n_f32_u32::<24>(byte),
            }
        })
    }
    #[inline(always)]
    unsafe fn load_act(self, p: *const i8) -> D::Act {
        // SAFETY: handed on to the caller.
        unsafe { D::load(p) }
    }
    #[inline(always)]
    unsafe fn load_group(self, block: *const i8, g: usize) -> D::Act {
        // SAFETY: handed on to the caller.
        unsafe { D::load_group(block, g) }
    }
    #[inline(always)]
    fn narrow_start(self, init: Self::I32s) -> D::Narrow {
        D::narrow_start(init)
    }
    #[inline(always)]
    fn narrow_dot(self, acc: D::Narrow, w: Bytes, a: D::Act) -> D::Narrow {
        D::narrow_dot(acc, w, a)
    }
    #[inline(always)]
    fn narrow_end(self, acc: D::Narrow, init: Self::I32s) -> Self::I32s {
        D::narrow_end(acc, init)
    }
    #[inline(always)]
    fn byte_start(self, _neg_sum: Self::I32s) -> Self::I32s {
        self.i_splat(0)
    }
    #[inline(always)]
    fn byte_dot(self, acc: Self::I32s, w: Bytes, a: D::Act) -> Self::I32s {
        D::signed_dot(acc, each!(r => veorq_u8(w[r], vdupq_n_u8(128))), a)
    }
}
