//! Dot products of bytes in one ymm register: lane l gains `w[4l..4l+4] . a[4l..4l+4]`.

use super::lanes::in_order;
use std::arch::x86_64::*;

/// `w` of up to 6 bits. Without VNNI, `acc` holds 16-bit sums of pairs.
///
/// # Safety
/// - the CPU has AVX2, and with `VNNI` AVX-VNNI.
#[inline(always)]
pub(super) unsafe fn narrow<const VNNI: bool>(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
    // SAFETY: the caller vouches for the features; no operand is a pointer.
    unsafe {
        in_order(if VNNI {
            _mm256_dpbusd_avx_epi32(acc, w, a)
        } else {
            _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, a))
        })
    }
}

/// `w` of 8 bits with an offset of 128, of which VNNI leaves the correction to the caller.
///
/// Without VNNI, `|w| * sign(a, w)`: a pair of 8-bit products is at most 2 * 128 * 127 = 32512, so it cannot
/// saturate; unsigned weights could (2 * 255 * 127). Rejected: the nibbles of w apart, whose sums fit 16 bits
/// (two multiplications as here): no faster with many rows, and slower with one (docs/TUNING.md, `byte_dot`).
///
/// # Safety
/// - as [`narrow`].
#[inline(always)]
pub(super) unsafe fn byte<const VNNI: bool>(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
    // SAFETY: the caller vouches for the features; no operand is a pointer.
    unsafe {
        in_order(if VNNI {
            _mm256_dpbusd_avx_epi32(acc, w, a)
        } else {
            let w = _mm256_xor_si256(w, _mm256_set1_epi8(i8::MIN));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }
}
