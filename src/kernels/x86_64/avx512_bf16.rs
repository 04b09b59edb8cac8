//! `Fast` products with bf16 weights: `vdpbf16ps` on CPUs with AVX-512 BF16, twice the rate of FMA.
//!
//! The activations are rounded to bf16, and each instruction adds the products of two k to the accumulator
//! with roundings of its own (no fused chain, subnormals flushed): bits differ from the exact product, so
//! this is an explicit option. They still do not depend on batch or threads: sums go over pairs of k in
//! ascending order.

use super::token::{Avx512, tier};
use crate::isa::has_avx512_bf16;
use crate::kernels::generic::gemm::{Accumulate, GemmTile};
use crate::kernels::set::FastBf16;
use crate::kernels::simd::Simd;
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// The kernels, where the CPU has the instructions. A of the tiles, `[MR - 1][NV - 1]`, is bf16 in pairs of
/// k: its pointer is cast, its strides count pairs, and so does k.
pub(in crate::kernels) fn kernels() -> Option<&'static FastBf16> {
    macro_rules! row {
        ($mr:literal) => {
            &[tile::<$mr, 1>, tile::<$mr, 2>, tile::<$mr, 3>, tile::<$mr, 4>]
        };
    }
    static KERNELS: FastBf16 =
        FastBf16 { tiles: &[row!(1), row!(2), row!(3), row!(4), row!(5), row!(6)], round, pack };
    // Read by each product of a chunk: one load instead of a dozen features.
    static FOUND: OnceLock<bool> = OnceLock::new();
    FOUND.get_or_init(has_avx512_bf16).then_some(&KERNELS)
}

/// Rounds `n` f32 to bf16, ties to even, subnormals to zero.
///
/// # Safety
/// - the CPU has AVX-512 BF16; `x` is valid for reads of `n` f32 and `out` for writes of `n` u16.
#[inline(always)]
unsafe fn round_row(_s: Avx512<false>, x: *const f32, n: usize, out: *mut u16) {
    let whole = n / 32 * 32;
    for i in (0..whole).step_by(32) {
        // SAFETY: 32 elements from i on are below n; both vectors are 64 plain bytes.
        unsafe {
            let rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x.add(i + 16)), _mm512_loadu_ps(x.add(i)));
            let bits = std::mem::transmute::<__m512bh, __m512i>(rounded);
            _mm512_storeu_si512(out.add(i).cast(), bits);
        }
    }
    for i in (whole..n).step_by(16) {
        let mask = if n - i < 16 { (1u16 << (n - i)) - 1 } else { u16::MAX };
        // SAFETY: the mask keeps both accesses inside the n elements; both vectors are 32 plain bytes.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x.add(i)));
            let bits = std::mem::transmute::<__m256bh, __m256i>(rounded);
            _mm256_mask_storeu_epi16(out.add(i).cast(), mask, bits);
        }
    }
}

/// Rounds pairs of rows to bf16 and joins them: element j of rows 2g and 2g + 1 becomes pair `(g, j)`.
///
/// # Safety
/// - the CPU has AVX-512 BF16; `stride` is a multiple of 16; `from` is valid for reads of `2 * groups *
///   stride` f32 and `out` for writes of as many u16.
#[inline(always)]
unsafe fn pack_pairs(_s: Avx512<false>, from: *const f32, groups: usize, stride: usize, out: *mut u16) {
    const JOIN: [u16; 32] = [
        0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
        14, 30, 15, 31,
    ];
    // SAFETY: JOIN holds 32 u16.
    let join = unsafe { _mm512_loadu_si512(JOIN.as_ptr().cast()) };
    for g in 0..groups {
        for j in (0..stride).step_by(16) {
            // SAFETY: vectors at j < stride of rows 2g and 2g + 1; pairs (g, j..j + 16); both types of the
            // cast are 64 plain bytes.
            unsafe {
                let row = from.add(2 * g * stride + j);
                let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(row.add(stride)), _mm512_loadu_ps(row));
                let both = std::mem::transmute::<__m512bh, __m512i>(both);
                let pairs = _mm512_permutexvar_epi16(join, both);
                _mm512_storeu_si512(out.add(2 * (g * stride + j)).cast(), pairs);
            }
        }
    }
}

tier! {
    avx512_bf16 => crate::kernels::set::instantiate_bf16,
    round: round_row,
    pack: pack_pairs,
    sums: DotBf16,
}

/// Sums of `vdpbf16ps`.
struct DotBf16;

impl Accumulate<Avx512<false>> for DotBf16 {
    const B_BYTES: usize = 2;

    #[inline(always)]
    unsafe fn add<const MR: usize, const NV: usize>(
        s: Avx512<false>,
        t: &GemmTile,
        a: *const f32,
        b: *const u8,
        _prefetch_a: Option<*const f32>, // A is packed and near
        acc: &mut [[__m512; NV]; MR],
    ) {
        let (mut a, mut b) = (a.cast::<i32>(), b.cast::<u16>());
        for _ in 0..t.k {
            let mut bv = [s.i_splat(0); NV];
            for j in 0..NV {
                // SAFETY: vector j < NV of a pair below k of B.
                bv[j] = unsafe { s.load_bf16_pairs(b.add(j * t.b_vec_stride)) };
            }
            for i in 0..MR {
                // SAFETY: pair p < k of row i < MR of A.
                let av = s.i_splat(unsafe { *a.add(i * t.a_row_stride) });
                for j in 0..NV {
                    // SAFETY: the entry that this is inlined into has the feature.
                    acc[i][j] = unsafe { _mm512_dpbf16_ps(acc[i][j], as_bf16(av), as_bf16(bv[j])) };
                }
            }
            // Wrapping: after the last k both point past their operand and are not followed.
            a = a.wrapping_add(t.a_k_stride);
            b = b.wrapping_add(t.b_k_stride);
        }
    }
}

/// The same bits as a vector of bf16.
///
/// # Safety
/// - none beyond the features: every bit pattern is a vector of bf16.
#[inline(always)]
unsafe fn as_bf16(v: __m512i) -> __m512bh {
    // SAFETY: both types are 64 plain bytes; std has no cast intrinsic between them.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(v) }
}
