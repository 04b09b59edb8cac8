//! The register tile: MR rows by NV vectors of 16 columns, broadcast-FMA, B in f32, f16 or bf16.
//!
//! `c[i][j] = chain over k ascending of fma(a[i][k], b[k][j], acc)` (NUMERICS rule 1). A is broadcast from
//! memory, B loaded in full vectors; nothing is shuffled, nothing summed across lanes. 6x64 on AVX-512:
//! 24 accumulators, and for each k 24 FMA against 10 loads (42 % of the load port on Zen 4). This is the
//! shape of the BLIS "sup" kernels (Van Zee, Parikh, van de Geijn 2020).
//!
//! f16 and bf16 weights are widened exactly in registers, 1 or 2 operations a vector on ports that FMA does
//! not use, and join the same chain: the result has the bits of the product with the widened weights.

use super::LANES;
use crate::kernels::simd::Simd;

/// An element type of B: how 16 columns of `STEP` consecutive k are stored and widened.
pub(crate) trait Element {
    /// What memory holds.
    type Raw: Copy;
    /// Steps of k that are stored together: element `(k, j)` of a vector lies at `j * STEP + k % STEP`.
    const STEP: usize;

    /// The 16 columns of step `step < STEP`.
    ///
    /// # Safety
    /// - `p` is valid for reads of `16 * STEP` elements.
    unsafe fn widen<S: Simd>(s: S, p: *const Self::Raw, step: usize) -> S::F;
}

/// f32: as it is.
pub(crate) struct F32;

impl Element for F32 {
    type Raw = f32;
    const STEP: usize = 1;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const f32, _step: usize) -> S::F {
        // SAFETY: 16 elements, as the caller says.
        unsafe { s.load(p) }
    }
}

/// f16: one conversion a vector.
pub(crate) struct F16;

impl Element for F16 {
    type Raw = u16;
    const STEP: usize = 1;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u16, _step: usize) -> S::F {
        // SAFETY: 16 elements, as the caller says.
        unsafe { s.load_f16(p) }
    }
}

/// bf16 in pairs of k, the operand of `vdpbf16ps`: a shift or a mask widens one of the pair, where single
/// elements would need a shuffle on the port of the FMA.
pub(crate) struct Bf16;

impl Element for Bf16 {
    type Raw = u16;
    const STEP: usize = 2;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u16, step: usize) -> S::F {
        // SAFETY: 32 elements, as the caller says. Both steps load; the compiler keeps one load.
        let pairs = unsafe { s.load_bf16_pairs(p) };
        if step == 0 { s.bf16_first(pairs) } else { s.bf16_second(pairs) }
    }
}

/// bf16 one after the other, for contractions whose ends are not even (values by keys).
pub(crate) struct Bf16Row;

impl Element for Bf16Row {
    type Raw = u16;
    const STEP: usize = 1;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u16, _step: usize) -> S::F {
        // SAFETY: 16 elements, as the caller says.
        unsafe { s.load_bf16(p) }
    }
}

/// Operands of one tile. Strides of B are in its elements and for whole groups of `STEP` k.
pub(crate) struct GemmTile {
    pub k: usize,
    pub a: *const f32, // (MR, k): element (i, p) at a + i * a_row_stride + p * a_k_stride
    pub a_row_stride: usize,
    pub a_k_stride: usize,
    pub b: *const u8, // (k / STEP, NV, 16, STEP): vector (g, v) at b + g * b_k_stride + v * b_vec_stride
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
/// - every element of A, B (full vectors of whole groups) and C that the comments of [`GemmTile`] name is
///   valid, and B is aligned to its elements.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, E: Element, const MR: usize, const NV: usize>(s: S, t: &GemmTile) {
    // SAFETY: C is valid, as the caller says.
    let mut acc = unsafe { start::<S, MR, NV>(s, t) };
    let (mut a, mut b) = (t.a, t.b.cast::<E::Raw>());
    /// One step of k.
    macro_rules! step {
        ($step:expr) => {
            let mut bv = [s.splat(0.0); NV];
            for j in 0..NV {
                // SAFETY: vector j < NV of a group below k of B.
                bv[j] = unsafe { E::widen(s, b.add(j * t.b_vec_stride), $step) };
            }
            for i in 0..MR {
                // SAFETY: element p < k of row i < MR of A.
                let av = s.splat(unsafe { *a.add(i * t.a_row_stride) });
                for j in 0..NV {
                    acc[i][j] = s.fma(av, bv[j], acc[i][j]);
                }
            }
        };
    }
    for _ in 0..t.k / E::STEP {
        // Wrapping: after the last k both point past their operand and are not followed.
        step!(0);
        a = a.wrapping_add(t.a_k_stride);
        if E::STEP == 2 {
            step!(1);
            a = a.wrapping_add(t.a_k_stride);
        }
        b = b.wrapping_add(t.b_k_stride);
    }
    if t.k % E::STEP == 1 {
        step!(0);
    }
    // SAFETY: C is valid, as the caller says.
    unsafe { finish::<S, MR, NV>(s, t, acc) }
}

/// The accumulators at the start: zeros, or what C holds.
///
/// # Safety
/// - C is valid as [`GemmTile`] says.
#[inline(always)]
pub(crate) unsafe fn start<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    t: &GemmTile,
) -> [[S::F; NV]; MR] {
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
    acc
}

/// Stores the accumulators.
///
/// # Safety
/// - C is valid as [`GemmTile`] says.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    t: &GemmTile,
    acc: [[S::F; NV]; MR],
) {
    for i in 0..MR {
        for j in 0..NV {
            // SAFETY: row i < MR, vector j < NV of C; the last vector is written up to `tail`.
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
