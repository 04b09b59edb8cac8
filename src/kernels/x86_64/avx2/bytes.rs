//! The codes and dot products of AVX2.

use super::dots;
use super::lanes::{each, halves};
use crate::kernels::simd::Simd;
use crate::kernels::simd_bytes::SimdBytes;
use crate::kernels::x86_64::token::{Avx2, v};
use std::arch::x86_64::*;

impl<const VNNI: bool> SimdBytes for Avx2<VNNI> {
    type Bytes = [__m256i; 2];
    type Act = __m256i;
    type NarrowAcc = [__m256i; 2]; // without VNNI, 16-bit sums of pairs
    /// One dot product instruction leaves the loads of the activations a seventh of the work.
    const ROW_PANELS: usize = 1 + VNNI as usize;
    const WIDE_DOTS: bool = VNNI;
    /// `e - 1` as an exponent, or where that is no normal number, `2^-128 << e`; all bits for 255, a NaN.
    #[inline(always)]
    unsafe fn load_e8m0(self, p: *const u8) -> Self::F32s {
        // SAFETY: handed on to the caller.
        let e = unsafe { self.load_u8(p) };
        halves!(h => {
            let one = _mm256_set1_epi32(1);
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e[h], one));
            let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), _mm256_min_epi32(e[h], one));
            let nan = _mm256_cmpeq_epi32(e[h], _mm256_set1_epi32(255));
            _mm256_castsi256_ps(_mm256_or_si256(_mm256_max_epi32(normal, small), nan))
        })
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::Bytes {
        // SAFETY: the caller's pointer is valid for 64 bytes; `self` proves the features.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn gather(self, table: *const u32, words: usize, at: Self::I32s) -> Self::I32s {
        // SAFETY: the caller's table has the words; `self` proves the features.
        halves!(h => match words {
            1 => _mm256_i32gather_epi32::<4>(table.cast(), at[h]),
            _ => _mm256_i32gather_epi32::<8>(table.cast(), at[h]),
        })
    }
    #[inline(always)]
    fn bytes_of(self, a: Self::I32s) -> Self::Bytes {
        a
    }
    #[inline(always)]
    fn bytes_zero(self) -> Self::Bytes {
        v!([_mm256_setzero_si256(); 2])
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, q: Self::Bytes) {
        // SAFETY: the caller's pointer is valid for 64 bytes; `self` proves the features.
        unsafe {
            _mm256_storeu_si256(p.cast(), q[0]);
            _mm256_storeu_si256(p.add(32).cast(), q[1]);
        }
    }
    #[inline(always)]
    fn bytes_or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        each!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn bytes_bits(self, q: Self::Bytes, from: u32, to: u32, mask: u8) -> Self::Bytes {
        halves!(h => {
            let moved = if to >= from {
                _mm256_sll_epi16(q[h], _mm_cvtsi32_si128((to - from) as i32))
            } else {
                _mm256_srl_epi16(q[h], _mm_cvtsi32_si128((from - to) as i32))
            };
            _mm256_and_si256(moved, _mm256_set1_epi8((mask << to) as i8))
        })
    }
    #[inline(always)]
    fn bytes_lookup(self, q: Self::Bytes, table: &[u8; 16]) -> Self::Bytes {
        // SAFETY: the table has the 16 bytes that are loaded; `self` proves the features.
        let table = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
        halves!(h => _mm256_shuffle_epi8(table, q[h]))
    }
    #[inline(always)]
    fn bytes_low_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        halves!(h => _mm256_and_si256(q[h], _mm256_set1_epi8(15)))
    }
    #[inline(always)]
    fn bytes_high_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        halves!(h => _mm256_and_si256(_mm256_srli_epi16::<4>(q[h]), _mm256_set1_epi8(15)))
    }
    #[inline(always)]
    fn byte_to_f32(self, q: Self::Bytes, j: u32) -> Self::F32s {
        halves!(h => {
            let bytes = _mm256_srl_epi32(q[h], _mm_cvtsi32_si128(8 * j as i32));
            _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(255)))
        })
    }
    #[inline(always)]
    unsafe fn load_act(self, p: *const i8) -> __m256i {
        // SAFETY: the caller's pointer is valid for 4 bytes; `self` proves the features.
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    /// Without VNNI, `vpmaddubsw` saturates its 16-bit pair sums at 32767; a 4-bit pair is at most
    /// 2 * 15 * 127 = 3810, so the 8 dots of a block (30480) fit without widening in between.
    #[inline(always)]
    fn narrow_start(self, init: Self::I32s) -> Self::NarrowAcc {
        if VNNI { init } else { v!([_mm256_setzero_si256(); 2]) }
    }
    #[inline(always)]
    fn narrow_dot(self, acc: Self::NarrowAcc, w: Self::Bytes, a: __m256i) -> Self::NarrowAcc {
        halves!(h => dots::narrow::<VNNI>(acc[h], w[h], a))
    }
    #[inline(always)]
    fn narrow_end(self, acc: Self::NarrowAcc, init: Self::I32s) -> Self::I32s {
        if VNNI {
            return acc;
        }
        halves!(h => _mm256_add_epi32(init[h], _mm256_madd_epi16(acc[h], _mm256_set1_epi16(1))))
    }

    #[inline(always)]
    fn byte_start(self, neg_sum: Self::I32s) -> Self::I32s {
        if VNNI { self.i_shl(neg_sum, 7) } else { v!([_mm256_setzero_si256(); 2]) }
    }
    #[inline(always)]
    fn byte_dot(self, acc: Self::I32s, w: Self::Bytes, a: __m256i) -> Self::I32s {
        halves!(h => dots::byte::<VNNI>(acc[h], w[h], a))
    }
}
