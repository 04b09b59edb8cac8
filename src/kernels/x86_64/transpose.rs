//! 16 x 16 f32 transposed in registers: element `(i, j)` of `from` becomes element `(j, i)` of `to`.

use std::arch::x86_64::*;

/// Four perfect shuffles: each interleaves rows i and i + 8, which rotates the bits of (row, column).
///
/// # Safety
/// - the CPU has the features; `from` is valid for reads and `to` for writes of 16 rows of 16 f32.
#[inline(always)]
pub(super) unsafe fn avx512(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: 16 rows of 16 f32 on both sides, as the caller says; and its entry has the features.
    unsafe {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        let mut rows = [_mm512_setzero_ps(); 16];
        for i in 0..16 {
            rows[i] = _mm512_loadu_ps(from.add(i * from_stride));
        }
        for _ in 0..4 {
            let old = rows;
            for i in 0..8 {
                rows[2 * i] = _mm512_permutex2var_ps(old[i], low, old[i + 8]);
                rows[2 * i + 1] = _mm512_permutex2var_ps(old[i], high, old[i + 8]);
            }
        }
        for i in 0..16 {
            _mm512_storeu_ps(to.add(i * to_stride), rows[i]);
        }
    }
}

/// Four blocks of 8 x 8, each in three shuffles of eight registers (as [`avx512`]).
///
/// # Safety
/// - the CPU has the features; `from` is valid for reads and `to` for writes of 16 rows of 16 f32.
#[inline(always)]
pub(super) unsafe fn avx2(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    for block in 0..4 {
        let (i, j) = (block / 2 * 8, block % 2 * 8);
        // SAFETY: rows i..i + 8, columns j..j + 8 of the caller's block; and its entry has the features.
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for r in 0..8 {
                rows[r] = _mm256_loadu_ps(from.add((i + r) * from_stride + j));
            }
            for _ in 0..3 {
                let old = rows;
                for r in 0..4 {
                    let low = _mm256_unpacklo_ps(old[r], old[r + 4]);
                    let high = _mm256_unpackhi_ps(old[r], old[r + 4]);
                    rows[2 * r] = _mm256_permute2f128_ps::<0x20>(low, high);
                    rows[2 * r + 1] = _mm256_permute2f128_ps::<0x31>(low, high);
                }
            }
            for r in 0..8 {
                _mm256_storeu_ps(to.add((j + r) * to_stride + i), rows[r]);
            }
        }
    }
}
