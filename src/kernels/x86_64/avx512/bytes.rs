//! The codes and dot products of AVX-512.

use crate::kernels::simd::Simd;
use crate::kernels::simd_bytes::SimdBytes;
use crate::kernels::x86_64::token::{Avx512, v};
use std::arch::x86_64::*;

impl<const VNNI: bool> SimdBytes for Avx512<VNNI> {
    type Bytes = __m512i;
    type Act = __m512i;
    type NarrowAcc = __m512i;
    /// `e - 1` as an exponent, or where that is no normal number, `2^-128 << e`; a NaN for 255.
    #[inline(always)]
    unsafe fn load_e8m0(self, p: *const u8) -> __m512 {
        // SAFETY: handed on to the caller.
        let e = unsafe { self.load_u8(p) };
        v!({
            let one = _mm512_set1_epi32(1);
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, one));
            let small = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), _mm512_min_epi32(e, one));
            let is_nan = _mm512_cmpeq_epi32_mask(e, _mm512_set1_epi32(255));
            let nan = _mm512_set1_epi32(f32::NAN.to_bits() as i32);
            _mm512_castsi512_ps(_mm512_mask_max_epi32(nan, !is_nan, normal, small))
        })
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> __m512i {
        // SAFETY: the caller's pointer is valid for 64 bytes; `self` proves the features.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn gather(self, table: *const u32, at: __m512i) -> __m512i {
        // SAFETY: the caller's table has the words; `self` proves the features.
        v!(_mm512_i32gather_epi32::<4>(at, table.cast()))
    }
    #[inline(always)]
    unsafe fn gather_two(self, table: *const u32, at: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller's table has the words; `self` proves the features.
        v!([
            _mm512_i32gather_epi32::<8>(at, table.cast()),
            _mm512_i32gather_epi32::<8>(at, table.add(1).cast()),
        ])
    }
    #[inline(always)]
    fn bytes_signed(self, a: __m512i, signs: __m512i, g: usize) -> __m512i {
        let byte = (g / 2) as i32 * 0x0101_0101;
        let bits = v!(_mm512_set1_epi32(0x0804_0201 << (4 * (g % 2))));
        let spread = v!(_mm512_broadcast_i32x4(_mm_setr_epi32(
            byte,
            byte + 0x0404_0404,
            byte + 0x0808_0808,
            byte + 0x0c0c_0c0c
        )));
        let set = v!(_mm512_test_epi8_mask(_mm512_shuffle_epi8(signs, spread), bits));
        v!(_mm512_mask_sub_epi8(a, set, _mm512_setzero_si512(), a))
    }
    #[inline(always)]
    fn bytes_of(self, a: __m512i) -> __m512i {
        a
    }
    #[inline(always)]
    fn lanes_of_bytes(self, q: __m512i) -> __m512i {
        q
    }
    #[inline(always)]
    fn bytes_zero(self) -> Self::Bytes {
        v!(_mm512_setzero_si512())
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, q: __m512i) {
        // SAFETY: the caller's pointer is valid for 64 bytes; `self` proves the features.
        unsafe { _mm512_storeu_si512(p.cast(), q) }
    }
    #[inline(always)]
    fn bytes_or(self, a: __m512i, b: __m512i) -> __m512i {
        v!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn bytes_bits(self, q: __m512i, from: u32, to: u32, mask: u8) -> __m512i {
        v!({
            let moved = if to >= from {
                _mm512_sll_epi16(q, _mm_cvtsi32_si128((to - from) as i32))
            } else {
                _mm512_srl_epi16(q, _mm_cvtsi32_si128((from - to) as i32))
            };
            _mm512_and_si512(moved, _mm512_set1_epi8((mask << to) as i8))
        })
    }
    #[inline(always)]
    fn bytes_lookup(self, q: __m512i, table: &[u8; 16]) -> __m512i {
        // SAFETY: the table has the 16 bytes that are loaded; `self` proves the features.
        let table = unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())) };
        v!(_mm512_shuffle_epi8(table, q))
    }
    #[inline(always)]
    fn bytes_low_nibbles(self, q: __m512i) -> __m512i {
        v!(_mm512_and_si512(q, _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn bytes_high_nibbles(self, q: __m512i) -> __m512i {
        v!(_mm512_and_si512(_mm512_srli_epi16::<4>(q), _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn byte_to_f32(self, q: __m512i, j: u32) -> __m512 {
        v!(_mm512_cvtepi32_ps(_mm512_and_si512(
            _mm512_srl_epi32(q, _mm_cvtsi32_si128(8 * j as i32)),
            _mm512_set1_epi32(255)
        )))
    }
    #[inline(always)]
    unsafe fn load_act(self, p: *const i8) -> __m512i {
        // SAFETY: the caller's pointer is valid for 4 bytes; `self` proves the features.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    /// Without VNNI in 16 bits, as on AVX2: see there.
    #[inline(always)]
    fn narrow_start(self, init: __m512i) -> __m512i {
        if VNNI { init } else { v!(_mm512_setzero_si512()) }
    }
    #[inline(always)]
    fn narrow_dot(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        if VNNI {
            v!(_mm512_dpbusd_epi32(acc, w, a))
        } else {
            v!(_mm512_add_epi16(acc, _mm512_maddubs_epi16(w, a)))
        }
    }
    #[inline(always)]
    fn narrow_end(self, acc: __m512i, init: __m512i) -> __m512i {
        if VNNI {
            return acc;
        }
        v!(_mm512_add_epi32(init, _mm512_madd_epi16(acc, _mm512_set1_epi16(1))))
    }

    #[inline(always)]
    fn byte_start(self, neg_sum: __m512i) -> __m512i {
        if VNNI { self.i_shl(neg_sum, 7) } else { v!(_mm512_setzero_si512()) }
    }
    /// Without VNNI, `|w| * (w < 0 ? -a : a)`, as on AVX2.
    #[inline(always)]
    fn byte_dot(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        if VNNI {
            return v!(_mm512_dpbusd_epi32(acc, w, a));
        }
        v!({
            let w = _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN));
            let a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), a);
            _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        })
    }
}
