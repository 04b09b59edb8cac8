//! The codes and dot products of AVX2.

use super::dots;
use super::lanes::{each, halves};
use crate::kernels::simd::{LANES, Simd};
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
    /// Loads of each word: a gather takes 1.1 times as long on Zen.
    #[inline(always)]
    unsafe fn gather(self, table: *const u32, at: Self::I32s) -> Self::I32s {
        let mut lanes = [0i32; LANES];
        // SAFETY: the array holds 16 i32.
        unsafe { self.i_store(lanes.as_mut_ptr(), at) };
        macro_rules! word {
            ($i:expr) => {
                *table.add(lanes[$i] as usize) as i32
            };
        }
        // SAFETY: the caller's table has a word at each of them; `self` proves the features.
        halves!(h => _mm256_setr_epi32(
            word!(8 * h),
            word!(8 * h + 1),
            word!(8 * h + 2),
            word!(8 * h + 3),
            word!(8 * h + 4),
            word!(8 * h + 5),
            word!(8 * h + 6),
            word!(8 * h + 7)
        ))
    }
    /// A load for each entry and shuffles that sort the words: two gathers take 1.5 times as long on Zen.
    #[inline(always)]
    unsafe fn gather_two(self, table: *const u32, at: Self::I32s) -> [Self::I32s; 2] {
        let mut lanes = [0i32; LANES];
        // SAFETY: the array holds 16 i32; the caller's table has two words from twice each of them on; `self`
        // proves the features.
        unsafe {
            self.i_store(lanes.as_mut_ptr(), at);
            // Entries i and i + 1, and with i + 4 and i + 5.
            macro_rules! two {
                ($i:expr) => {{
                    let first = _mm_loadl_epi64(table.add(2 * lanes[$i] as usize).cast());
                    _mm_loadh_pd(_mm_castsi128_pd(first), table.add(2 * lanes[$i + 1] as usize).cast())
                }};
            }
            macro_rules! four {
                ($i:expr) => {
                    _mm256_castpd_ps(_mm256_set_m128d(two!($i + 4), two!($i)))
                };
            }
            let mut sorted = [[_mm256_setzero_si256(); 2]; 2];
            for h in 0..2 {
                let (a, b) = (four!(8 * h), four!(8 * h + 2));
                sorted[0][h] = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(a, b));
                sorted[1][h] = _mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(a, b));
            }
            sorted
        }
    }
    #[inline(always)]
    fn bytes_signed(self, a: Self::I32s, signs: Self::I32s, g: usize) -> Self::I32s {
        let byte = (g / 2) as i32 * 0x0101_0101;
        let bits = v!(_mm256_set1_epi32(0x0804_0201 << (4 * (g % 2))));
        let spread = v!(_mm256_setr_epi32(
            byte,
            byte + 0x0404_0404,
            byte + 0x0808_0808,
            byte + 0x0c0c_0c0c,
            byte,
            byte + 0x0404_0404,
            byte + 0x0808_0808,
            byte + 0x0c0c_0c0c
        ));
        halves!(h => {
            let set = _mm256_and_si256(_mm256_shuffle_epi8(signs[h], spread), bits);
            let mask = _mm256_cmpeq_epi8(set, bits);
            _mm256_sub_epi8(_mm256_xor_si256(a[h], mask), mask)
        })
    }
    #[inline(always)]
    fn bytes_of(self, a: Self::I32s) -> Self::Bytes {
        a
    }
    #[inline(always)]
    fn lanes_of_bytes(self, q: Self::Bytes) -> Self::I32s {
        q
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
