//! The f32 register tile: MR rows by NV vectors of 16 columns, broadcast-FMA.
//!
//! `c[i][j] = chain over k ascending of fma(a[i][k], b[k][j], acc)` (NUMERICS rule 1). A is broadcast from
//! memory, B loaded in full vectors; nothing is shuffled, nothing summed across lanes. 6x64 on AVX-512:
//! 24 accumulators, and for each k 24 FMA against 10 loads (42 % of the load port on Zen 4). This is the
//! shape of the BLIS "sup" kernels (Van Zee, Parikh, van de Geijn 2020).

use super::LANES;
use crate::kernels::simd::Simd;

/// Operands of one tile.
pub(crate) struct GemmTile {
    pub k: usize,
    pub a: *const f32, // (MR, k): element (i, p) at a + i * a_row_stride + p * a_k_stride
    pub a_row_stride: usize,
    pub a_k_stride: usize,
    pub b: *const f32, // (k, NV, 16): vector (p, v) at b + p * b_k_stride + v * b_vec_stride
    pub b_k_stride: usize,
    pub b_vec_stride: usize,
    pub c: *mut f32, // (MR, 16 * (NV - 1) + tail), row i at c + i * c_row_stride
    pub c_row_stride: usize,
    /// Columns of the last vector that exist in C: 1..=16.
    pub tail: usize,
    /// Whether the chains go on from what C holds (a later block of k) or start from +0.0.
    pub resume: bool,
}

/// # Safety
/// - every element of A, B (full vectors) and C that the comments of [`GemmTile`] name is valid.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(s: S, t: &GemmTile) {
    let mut acc = [[s.splat(0.0); NV]; MR];
    if t.resume {
        for i in 0..MR {
            for j in 0..NV {
                // SAFETY: row i < MR, vector j < NV of C; the last vector is read up to `tail`.
                acc[i][j] = unsafe {
                    let p = t.c.add(i * t.c_row_stride + j * LANES);
                    if j + 1 == NV { s.load_n(p, t.tail) } else { s.load(p) }
                };
            }
        }
    }
    let (mut a, mut b) = (t.a, t.b);
    for _ in 0..t.k {
        let mut bv = [s.splat(0.0); NV];
        for j in 0..NV {
            // SAFETY: vector j < NV of row p < k of B.
            bv[j] = unsafe { s.load(b.add(j * t.b_vec_stride)) };
        }
        for i in 0..MR {
            // SAFETY: element p < k of row i < MR of A.
            let av = s.splat(unsafe { *a.add(i * t.a_row_stride) });
            for j in 0..NV {
                acc[i][j] = s.fma(av, bv[j], acc[i][j]);
            }
        }
        // Wrapping: after the last k both point past their operand and are not followed.
        a = a.wrapping_add(t.a_k_stride);
        b = b.wrapping_add(t.b_k_stride);
    }
    for i in 0..MR {
        for j in 0..NV {
            // SAFETY: as for the loads of C.
            unsafe {
                let p = t.c.add(i * t.c_row_stride + j * LANES);
                if j + 1 == NV && t.tail < LANES {
                    s.store_n(p, acc[i][j], t.tail);
                } else {
                    s.store(p, acc[i][j]);
                }
            }
        }
    }
}
