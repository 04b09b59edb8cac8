//! Two registers of f32 rounded to 16 numbers of 2 bytes, ties to even, with AVX2 and F16C.

use std::arch::x86_64::*;

/// The first `n <= 16` as f16.
///
/// # Safety
/// - the CPU has AVX2 and F16C; `p` is valid for writes of `n` u16.
#[inline(always)]
pub(super) unsafe fn store_f16_n(p: *mut u16, a: [__m256; 2], n: usize) {
    let mut lanes = [0u16; 16];
    // SAFETY: the array holds 16 u16, of which the first n <= 16 go to the caller's n u16.
    unsafe {
        let to = lanes.as_mut_ptr();
        _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a[0]));
        _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a[1]));
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
    }
}

/// The first `n <= 16` as bf16.
///
/// # Safety
/// - the CPU has AVX2; `p` is valid for writes of `n` u16.
#[inline(always)]
pub(super) unsafe fn store_bf16_n(p: *mut u16, a: [__m256; 2], n: usize) {
    let mut lanes = [0u16; 16];
    // SAFETY: the array holds 16 u16, of which the first n <= 16 go to the caller's n u16.
    unsafe {
        // The pack works on halves of 128 bits: quarters 0 2 1 3.
        let packed = _mm256_packus_epi32(bf16_bits(a[0]), bf16_bits(a[1]));
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        _mm256_storeu_si256(lanes.as_mut_ptr().cast(), packed);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
    }
}

/// The bits of 8 bf16, one in each lane.
///
/// # Safety
/// - the CPU has AVX2.
#[inline(always)]
unsafe fn bf16_bits(a: __m256) -> __m256i {
    // SAFETY: registers only; the CPU has AVX2, as the caller says.
    unsafe {
        let x = _mm256_castps_si256(a);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(x), _mm256_set1_epi32(1));
        let up = _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7fff)), odd);
        let quiet = _mm256_or_si256(x, _mm256_set1_epi32(0x40_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(up, quiet, nan))
    }
}
