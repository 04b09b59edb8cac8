//! AVX-512 F, BW, VL and DQ, with or without VNNI: 16 lanes are one zmm register, tails are masks.

mod bytes;
mod quant;

use super::token::{Avx512, hints, tier, v};
use super::transpose;
use crate::isa::Isa;
use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// The first `n` of 16 lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// A vector in memory without alignment.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned(__m512i);

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type F32s = __m512;
    type I32s = __m512i;
    const DOUBLE_ACCUMULATOR_TILES: usize = 4;
    const STATE_PANELS: usize = 4;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Avx512(())
    }
    hints!();
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        v!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's pointer is valid for 16 f32; `self` proves the features.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: the mask keeps the access inside the n f32 of the caller; `self` proves the features.
        unsafe { _mm512_maskz_loadu_ps(mask(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: __m512) {
        // SAFETY: the caller's pointer is valid for 16 f32; `self` proves the features.
        unsafe { _mm512_storeu_ps(p, a) }
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, a: __m512, n: usize) {
        // SAFETY: the mask keeps the access inside the n f32 of the caller; `self` proves the features.
        unsafe { _mm512_mask_storeu_ps(p, mask(n), a) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: handed on to the caller; `self` proves the features.
        unsafe { transpose::avx512(from, from_stride, to, to_stride) }
    }

    #[inline(always)]
    fn bits(self, a: __m512) -> __m512i {
        v!(_mm512_castps_si512(a))
    }
    #[inline(always)]
    fn of_bits(self, a: __m512i) -> __m512 {
        v!(_mm512_castsi512_ps(a))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        v!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        v!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn neg(self, a: __m512) -> __m512 {
        v!(_mm512_xor_ps(a, _mm512_set1_ps(-0.0)))
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        v!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        v!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale2(self, p: __m512, n: __m512) -> __m512 {
        v!(_mm512_scalef_ps(p, n))
    }
    #[inline(always)]
    fn fold_add(self, a: __m512) -> f32 {
        v!({
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }
    #[inline(always)]
    fn fold_max(self, a: __m512) -> f32 {
        v!({
            let a = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m512 {
        // SAFETY: the caller's pointer is valid for 16 u16 = 32 bytes; `self` proves the features.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16_n(self, p: *mut u16, a: __m512, n: usize) {
        // SAFETY: the mask keeps the access inside the n u16 of the caller; `self` proves the features.
        unsafe {
            let rounded = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a);
            _mm256_mask_storeu_epi16(p.cast(), mask(n), rounded);
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut u16, a: __m512, n: usize) {
        // `vcvtneps2bf16` flushes subnormals: no.
        // SAFETY: the mask keeps the access inside the n u16 of the caller; `self` proves the features.
        unsafe {
            let x = _mm512_castps_si512(a);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7fff)), odd);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            let rounded = _mm512_mask_or_epi32(up, nan, x, _mm512_set1_epi32(0x40_0000));
            let bits = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
            _mm256_mask_storeu_epi16(p.cast(), mask(n), bits);
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m512 {
        // SAFETY: the caller's pointer is valid for 16 u16 = 32 bytes; `self` proves the features.
        let words = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())) };
        self.bf16_first(words)
    }
    /// A table of 16 floats: `vpermps` looks at the low 4 bits of a lane, one operation instead of three.
    #[inline(always)]
    fn low_nibble(self, bytes: __m512i) -> __m512 {
        v!(_mm512_permutexvar_ps(
            bytes,
            _mm512_setr_ps(-8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.)
        ))
    }
    #[inline(always)]
    fn high_nibble(self, bytes: __m512i) -> __m512 {
        self.low_nibble(v!(_mm512_srli_epi32::<4>(bytes)))
    }

    /// The table times the scale: both halves of a block share one multiplication.
    #[inline(always)]
    fn nibble_scale(self, scale: f32) -> __m512 {
        v!(_mm512_mul_ps(
            _mm512_setr_ps(-8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.),
            _mm512_set1_ps(scale)
        ))
    }
    #[inline(always)]
    fn nibbles(self, bytes: __m512i, which: usize, scale: __m512) -> __m512 {
        v!(_mm512_permutexvar_ps(if which == 0 { bytes } else { _mm512_srli_epi32::<4>(bytes) }, scale))
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> __m512i {
        // SAFETY: the caller's pointer is valid for 32 u16 = 64 bytes; `self` proves the features.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn reload_bf16_pairs(self, p: *const u16) -> __m512i {
        // SAFETY: the caller's pointer is valid for 32 u16 = 64 bytes; the inner type has no alignment.
        unsafe { p.cast::<Unaligned>().read_volatile().0 }
    }
    #[inline(always)]
    fn bf16_first(self, pairs: __m512i) -> __m512 {
        v!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)))
    }
    #[inline(always)]
    fn bf16_second(self, pairs: __m512i) -> __m512 {
        v!(_mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536))))
    }

    #[inline(always)]
    fn i_splat(self, x: i32) -> __m512i {
        v!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn i_add(self, a: __m512i, b: __m512i) -> __m512i {
        v!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn i_sub(self, a: __m512i, b: __m512i) -> __m512i {
        v!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn i_mul(self, a: __m512i, b: __m512i) -> __m512i {
        v!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn i_and(self, a: __m512i, b: i32) -> __m512i {
        v!(_mm512_and_si512(a, _mm512_set1_epi32(b)))
    }
    #[inline(always)]
    fn i_xor(self, a: __m512i, b: __m512i) -> __m512i {
        v!(_mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn i_shl(self, a: __m512i, n: u32) -> __m512i {
        v!(_mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn i_shr(self, a: __m512i, n: u32) -> __m512i {
        v!(_mm512_srl_epi32(a, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn i_shr_signed(self, a: __m512i, n: u32) -> __m512i {
        v!(_mm512_sra_epi32(a, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> __m512i {
        // SAFETY: the caller's pointer is valid for 16 i32; `self` proves the features.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn i_store(self, p: *mut i32, a: __m512i) {
        // SAFETY: the caller's pointer is valid for 16 i32; `self` proves the features.
        unsafe { _mm512_storeu_si512(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> __m512i {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn i_load_i8(self, p: *const i8) -> __m512i {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    fn i_to_f32(self, a: __m512i) -> __m512 {
        v!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn i_fold_add(self, a: __m512i) -> i32 {
        v!(_mm512_reduce_add_epi32(a))
    }
    #[inline(always)]
    fn f_to_i32(self, a: __m512) -> __m512i {
        v!(_mm512_cvt_roundps_epi32::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    unsafe fn i_store_i8(self, p: *mut i8, a: __m512i) {
        // SAFETY: the caller's pointer is valid for 16 bytes; `self` proves the features.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(a)) }
    }
}

tier! {
    avx512 => crate::kernels::set::instantiate,
    isa: Isa::Avx512,
    bf16_fast: super::avx512_bf16::kernels,
    gemm: {
        1: [1 2 3 4 5 6 7 8] 2: [1 2 3 4 5 6 7 8] 3: [1 2 3 4] 4: [1 2 3 4] 5: [1 2 3 4] 6: [1 2 3 4]
    },
    // Panels are 64 columns wide.
    packed: {
        1: [1 2 3 4] 2: [1 2 3 4] 3: [1 2 3 4] 4: [1 2 3 4] 5: [1 2 3 4] 6: [1 2 3 4]
    },
    keys: { 1: [1 2 3 4] 2: [1 2 3 4] 3: [1 2 3 4] 4: [1 2 3 4] 5: [1 2] 6: [1 2] },
    values: { 1: [1 2] 2: [1 2] 3: [1 2] 4: [1 2] 5: [1] 6: [1] },
    quant: &quant::QUANT,
}

/// The kernels with dot instructions, for CPUs with the features of the set `avx512_vnni`.
pub(super) static VNNI_KERNELS: KernelSet = KernelSet {
    quant: &quant::VNNI,
    ids: &KernelIds::new(Isa::Avx512, "avx512vnni", KERNELS.gemm[0], &quant::VNNI),
    ..KERNELS
};
