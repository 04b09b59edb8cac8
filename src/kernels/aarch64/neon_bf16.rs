//! `Fast` products with bf16 weights: `bfdot` on CPUs with it, twice the rate of FMA.
//!
//! The activations are rounded to bf16, and each instruction adds the products of two k to the accumulator:
//! both sums are rounded to odd, subnormals flushed. So bits differ from the exact product, but not by batch
//! or threads: sums go over pairs of k in ascending order.
//!
//! The tile is that of f32, 5 x 16: 20 registers of sums, 5 of A (four pairs each), 4 of B. Each pair of k
//! takes 20 `bfdot` by element, 4 loads of B and 5/4 of A. Rejected: `bfmmla`, which does twice the work of
//! `bfdot` at once, but over four k and two columns: B would have to be packed a second time, for `Fast`
//! alone.

use super::dots::Widening;
use super::lanes::{each, v};
use super::token::{Neon, tier};
use crate::isa::has_neon_bf16;
use crate::kernels::generic::gemm::{Accumulate, GemmTile};
use crate::kernels::set::FastBf16;
use crate::kernels::simd::Simd;
use std::arch::aarch64::*;
use std::arch::asm;
use std::sync::OnceLock;

type Token = Neon<Widening>;

/// The kernels, where the CPU has the instructions. A of the tiles, `[MR - 1][NV - 1]`, is bf16 in pairs of
/// k: its pointer is cast, its strides count pairs, and so does k.
pub(super) fn kernels() -> Option<&'static FastBf16> {
    static KERNELS: FastBf16 = FastBf16 {
        tiles: &[&[tile::<1, 1>], &[tile::<2, 1>], &[tile::<3, 1>], &[tile::<4, 1>], &[tile::<5, 1>]],
        round,
        pack,
    };
    // Read by each product of a chunk.
    static FOUND: OnceLock<bool> = OnceLock::new();
    FOUND.get_or_init(has_neon_bf16).then_some(&KERNELS)
}

/// Rounds `n` f32 to bf16, ties to even.
///
/// # Safety
/// - `x` is valid for reads of `n` f32 and `out` for writes of `n` u16.
#[inline(always)]
unsafe fn round_row(s: Token, x: *const f32, n: usize, out: *mut u16) {
    for i in (0..n).step_by(16) {
        let some = (n - i).min(16);
        // SAFETY: `some` elements from i on are below n.
        unsafe { s.store_bf16_n(out.add(i), s.load_n(x.add(i), some), some) }
    }
}

/// Rounds pairs of rows to bf16 and joins them: element j of rows 2g and 2g + 1 becomes pair `(g, j)`.
///
/// # Safety
/// - `stride` is a multiple of 16; `from` is valid for reads of `2 * groups * stride` f32 and `out` for
///   writes of as many u16.
#[inline(always)]
unsafe fn pack_pairs(s: Token, from: *const f32, groups: usize, stride: usize, out: *mut u16) {
    for g in 0..groups {
        for j in (0..stride).step_by(16) {
            // SAFETY: vectors at j < stride of rows 2g and 2g + 1; pairs (g, j..j + 16).
            unsafe {
                let row = from.add(2 * g * stride + j);
                let first = super::halves::round_bf16(s.load(row));
                let second = super::halves::round_bf16(s.load(row.add(stride)));
                let out = out.add(2 * (g * stride + j));
                for half in 0..2 {
                    vst1q_u16(out.add(16 * half), vzip1q_u16(first[half], second[half]));
                    vst1q_u16(out.add(16 * half + 8), vzip2q_u16(first[half], second[half]));
                }
            }
        }
    }
}

tier! {
    neon_bf16 => crate::kernels::set::instantiate_bf16,
    round: round_row,
    pack: pack_pairs,
    sums: DotBf16,
}

/// Sums of `bfdot`.
struct DotBf16;

impl Accumulate<Token> for DotBf16 {
    const B_BYTES: usize = 2;

    #[inline(always)]
    unsafe fn add<const MR: usize, const NV: usize>(
        s: Token,
        t: &GemmTile,
        a: *const f32,
        b: *const u8,
        _prefetch_a: Option<*const f32>, // A is packed and near
        acc: &mut [[[float32x4_t; 4]; NV]; MR],
    ) {
        // Drivers pack A in rows of pairs (`gemm_tiles` takes no other steps).
        debug_assert!(t.a_k_stride == 1);
        let (mut a, mut b) = (a.cast::<i32>(), b.cast::<u16>());
        let mut left = t.k;
        /// One pair of k: lane $lane of the pairs of A.
        macro_rules! step {
            ($av:ident, $lane:literal) => {
                for j in 0..NV {
                    // SAFETY: vector j < NV of a pair below k of B.
                    let bv = unsafe { s.load_bf16_pairs(b.add(j * t.b_vec_stride)) };
                    for i in 0..MR {
                        acc[i][j] = each!(r => bfdot::<$lane>(acc[i][j][r], bv[r], $av[i]));
                    }
                }
                // Wrapping: after the last k it points past B and is not followed.
                b = b.wrapping_add(t.b_k_stride);
            };
        }
        let mut av = [v!(vdupq_n_s32(0)); MR];
        while left >= 4 {
            for i in 0..MR {
                // SAFETY: pairs p..p + 4 <= k of row i < MR of A.
                av[i] = unsafe { vld1q_s32(a.add(i * t.a_row_stride)) };
            }
            step!(av, 0);
            step!(av, 1);
            step!(av, 2);
            step!(av, 3);
            a = a.wrapping_add(4);
            left -= 4;
        }
        while left > 0 {
            for i in 0..MR {
                // SAFETY: pair p < k of row i < MR of A.
                av[i] = unsafe { vld1q_dup_s32(a.add(i * t.a_row_stride)) };
            }
            step!(av, 0);
            a = a.wrapping_add(1);
            left -= 1;
        }
    }
}

/// `acc[l] + b[2 l] * a[2 LANE] + b[2 l + 1] * a[2 LANE + 1]`, bf16.
#[target_feature(enable = "neon,bf16")]
#[inline]
fn bfdot<const LANE: i32>(mut acc: float32x4_t, b: int32x4_t, a: int32x4_t) -> float32x4_t {
    // SAFETY: one instruction on registers, of the features above; not `pure`, so that the order is that of
    // the source.
    unsafe {
        asm!("bfdot {0:v}.4s, {1:v}.8h, {2:v}.2h[{3}]", inout(vreg) acc, in(vreg) b, in(vreg) a, const LANE,
            options(nomem, nostack, preserves_flags));
    }
    acc
}
