//! AVX2 with FMA and F16C, with or without AVX-VNNI: 16 lanes are two ymm registers.

mod bytes;
mod dots;
mod lanes;
mod quant;

use super::token::{Avx2, hints, tier, v};
use super::{narrow, transpose};
use crate::isa::Isa;
use crate::kernels::simd::Simd;
use lanes::{each, halves, mask};
use std::arch::x86_64::*;

/// Two vectors in memory without alignment.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned([__m256i; 2]);

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F32s = [__m256; 2];
    type I32s = [__m256i; 2];
    const DOUBLE_ACCUMULATOR_TILES: usize = 1;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Avx2(())
    }
    hints!();
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32s {
        v!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 f32; `self` proves the features.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F32s {
        // SAFETY: the masks keep the access inside the n f32 of the caller (masked-out lanes are not
        // accessed, so the wrapping offset is never followed); `self` proves the features.
        unsafe {
            [_mm256_maskload_ps(p, mask(n)), _mm256_maskload_ps(p.wrapping_add(8), mask(n.saturating_sub(8)))]
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: Self::F32s) {
        // SAFETY: the caller's pointer is valid for 16 f32; `self` proves the features.
        unsafe {
            _mm256_storeu_ps(p, a[0]);
            _mm256_storeu_ps(p.add(8), a[1]);
        }
    }
    /// Through the stack: `vmaskmovps` stores are microcoded on Zen up to 4 (tens of cycles).
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, a: Self::F32s, n: usize) {
        let mut lanes = [0f32; 16];
        // SAFETY: the array holds 16 f32, of which the first n <= 16 go to the caller's n f32.
        unsafe {
            self.store(lanes.as_mut_ptr(), a);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: handed on to the caller; `self` proves the features.
        unsafe { transpose::avx2(from, from_stride, to, to_stride) }
    }

    #[inline(always)]
    fn bits(self, a: Self::F32s) -> Self::I32s {
        halves!(h => _mm256_castps_si256(a[h]))
    }
    #[inline(always)]
    fn of_bits(self, a: Self::I32s) -> Self::F32s {
        halves!(h => _mm256_castsi256_ps(a[h]))
    }
    #[inline(always)]
    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s {
        v!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        each!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn abs(self, a: Self::F32s) -> Self::F32s {
        let sign = self.splat(-0.0);
        each!(_mm256_andnot_ps, sign, a)
    }
    #[inline(always)]
    fn neg(self, a: Self::F32s) -> Self::F32s {
        let sign = self.splat(-0.0);
        each!(_mm256_xor_ps, sign, a)
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F32s, b: Self::F32s, x: Self::F32s, y: Self::F32s) -> Self::F32s {
        halves!(h => {
            _mm256_blendv_ps(y[h], x[h], _mm256_cmp_ps::<_CMP_LT_OQ>(a[h], b[h]))
        })
    }
    #[inline(always)]
    fn round(self, a: Self::F32s) -> Self::F32s {
        halves!(h => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[h]))
    }
    #[inline(always)]
    fn scale2(self, p: Self::F32s, n: Self::F32s) -> Self::F32s {
        halves!(h => {
            let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n[h]));
            let scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p[h]), exponent));
            _mm256_blendv_ps(scaled, p[h], _mm256_cmp_ps::<_CMP_UNORD_Q>(p[h], p[h]))
        })
    }
    #[inline(always)]
    fn fold_add(self, a: Self::F32s) -> f32 {
        v!({
            let a = _mm256_add_ps(a[0], a[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }
    #[inline(always)]
    fn fold_max(self, a: Self::F32s) -> f32 {
        v!({
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 u16 = 32 bytes; `self` proves the features.
        unsafe {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
        }
    }
    #[inline(always)]
    unsafe fn store_f16_n(self, p: *mut u16, a: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller; `self` proves the features.
        unsafe { narrow::store_f16_n(p, a, n) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut u16, a: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller; `self` proves the features.
        unsafe { narrow::store_bf16_n(p, a, n) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 u16 = 32 bytes; `self` proves the features.
        let words = unsafe {
            [
                _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast())),
            ]
        };
        self.bf16_first(words)
    }
    #[inline(always)]
    fn low_nibble(self, bytes: Self::I32s) -> Self::F32s {
        halves!(h => {
            let nibble = _mm256_and_si256(bytes[h], _mm256_set1_epi32(15));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(nibble, _mm256_set1_epi32(8)))
        })
    }
    #[inline(always)]
    fn high_nibble(self, bytes: Self::I32s) -> Self::F32s {
        self.low_nibble(halves!(h => _mm256_srli_epi32::<4>(bytes[h])))
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 32 u16 = 64 bytes; `self` proves the features.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(16).cast())] }
    }
    #[inline(always)]
    unsafe fn reload_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 32 u16 = 64 bytes; the inner type has no alignment.
        unsafe { p.cast::<Unaligned>().read_volatile().0 }
    }
    #[inline(always)]
    fn bf16_first(self, pairs: Self::I32s) -> Self::F32s {
        halves!(h => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs[h])))
    }
    #[inline(always)]
    fn bf16_second(self, pairs: Self::I32s) -> Self::F32s {
        halves!(h => _mm256_castsi256_ps(_mm256_and_si256(pairs[h], _mm256_set1_epi32(-65536))))
    }

    #[inline(always)]
    fn i_splat(self, x: i32) -> Self::I32s {
        v!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn i_add(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(_mm256_add_epi32, a, b)
    }
    #[inline(always)]
    fn i_sub(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(_mm256_sub_epi32, a, b)
    }
    #[inline(always)]
    fn i_mul(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(_mm256_mullo_epi32, a, b)
    }
    #[inline(always)]
    fn i_and(self, a: Self::I32s, b: i32) -> Self::I32s {
        halves!(h => _mm256_and_si256(a[h], _mm256_set1_epi32(b)))
    }
    #[inline(always)]
    fn i_xor(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        each!(_mm256_xor_si256, a, b)
    }
    #[inline(always)]
    fn i_shl(self, a: Self::I32s, n: u32) -> Self::I32s {
        halves!(h => _mm256_sll_epi32(a[h], _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn i_shr(self, a: Self::I32s, n: u32) -> Self::I32s {
        halves!(h => _mm256_srl_epi32(a[h], _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn i_shr_signed(self, a: Self::I32s, n: u32) -> Self::I32s {
        halves!(h => _mm256_sra_epi32(a[h], _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 i32; `self` proves the features.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())] }
    }
    #[inline(always)]
    unsafe fn i_store(self, p: *mut i32, a: Self::I32s) {
        // SAFETY: the caller's pointer is valid for 16 i32; `self` proves the features.
        unsafe {
            _mm256_storeu_si256(p.cast(), a[0]);
            _mm256_storeu_si256(p.add(8).cast(), a[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        unsafe {
            let high = _mm_loadl_epi64(p.add(8).cast());
            [_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())), _mm256_cvtepu8_epi32(high)]
        }
    }
    #[inline(always)]
    unsafe fn i_load_i8(self, p: *const i8) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        unsafe {
            let high = _mm_loadl_epi64(p.add(8).cast());
            [_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())), _mm256_cvtepi8_epi32(high)]
        }
    }
    #[inline(always)]
    fn i_to_f32(self, a: Self::I32s) -> Self::F32s {
        halves!(h => _mm256_cvtepi32_ps(a[h]))
    }
    #[inline(always)]
    fn i_fold_add(self, a: Self::I32s) -> i32 {
        v!({
            let a = _mm256_add_epi32(a[0], a[1]);
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b1110>(a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<1>(a)))
        })
    }
    #[inline(always)]
    fn f_to_i32(self, a: Self::F32s) -> Self::I32s {
        let a = self.round(a);
        halves!(h => _mm256_cvttps_epi32(a[h]))
    }
    #[inline(always)]
    unsafe fn i_store_i8(self, p: *mut i8, a: Self::I32s) {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        unsafe {
            let words = _mm256_packs_epi32(a[0], a[1]); // dwords 0-3 8-11 | 4-7 12-15
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.cast(), bytes);
        }
    }
}

// 6x16: 12 accumulators, 2 of B and one broadcast of 16 registers. Fewer rows take more columns, so that
// a chain of FMA (latency 4, two a cycle) never waits: 1x64 and 2x32 have 8 accumulators.
tier! {
    avx2 => crate::kernels::set::instantiate,
    isa: Isa::Avx2,
    bf16_fast: || None,
    gemm: { 1: [1 2 3 4] 2: [1 2] 3: [1] 4: [1] 5: [1] 6: [1] },
    keys: { 1: [1 2] 2: [1] 3: [1] 4: [1] },
    values: { 1: [1] 2: [1] },
    quant: &quant::QUANT,
}

/// The kernels with dot instructions, for CPUs with the features of the set `avx_vnni`.
pub(super) static VNNI_KERNELS: KernelSet = KernelSet {
    isa: Isa::AvxVnni,
    quant: &quant::VNNI,
    ids: &KernelIds::new(Isa::AvxVnni, Isa::AvxVnni.name(), KERNELS.gemm[0], &quant::VNNI),
    ..KERNELS
};

/// The kernels of the same tier without them.
pub(super) static VNNI_WITHOUT_DOTS: KernelSet = KernelSet {
    isa: Isa::AvxVnni,
    ids: &KernelIds::new(Isa::AvxVnni, Isa::AvxVnni.name(), KERNELS.gemm[0], &quant::QUANT),
    ..KERNELS
};
