//! The softmax of one row of scores over one chunk of keys, and the merge of chunks.
//!
//! Within a chunk: one maximum m, `p = exp2(s - m)`, a rule-4 sum l. Chunks are merged in ascending order
//! by the online-softmax rule (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022):
//! `m' = max(m, m_c)`, `l' = l_c * beta + l * alpha`, `o' = o_c * beta + o * alpha` with
//! `alpha = exp2(m - m')`, `beta = exp2(m_c - m')`. Each chunk is computed against its own maximum and
//! not the running one, so chunks may be computed anywhere in any order and merged later: same bits.

use super::math::exp2;
use super::{IOTA, LANES};
use crate::kernels::simd::Simd;

/// Scores of one row and the keys that it may see.
pub(crate) struct ChunkRow {
    pub s: *mut f32, // (ceil(hi / 16) * 16): scores in the exp2 domain; becomes p in lo..hi
    /// Visible keys of the chunk: `lo..hi`, not empty.
    pub lo: usize,
    pub hi: usize,
}

/// Turns the scores `lo..hi` into probabilities and returns `(m, l)`. A row whose visible scores are all
/// -inf gives m = -inf, l = 0 and zeros.
///
/// # Safety
/// - `s` is valid for the vectors of 16 that cover `lo..hi`, counted from key 0 of the chunk.
#[inline(always)]
pub(crate) unsafe fn softmax<S: Simd>(s: S, r: &ChunkRow) -> (f32, f32) {
    let minus_inf = s.splat(f32::NEG_INFINITY);
    let (first, last) = (r.lo / LANES, r.hi.div_ceil(LANES));
    // SAFETY: IOTA holds 16 f32.
    let iota = unsafe { s.load(IOTA.as_ptr()) };
    let mut max = minus_inf;
    for v in first..last {
        // SAFETY: vector v covers keys of lo..hi.
        let mut x = unsafe { s.load(r.s.add(v * LANES)) };
        if v == first || v + 1 == last {
            // Keys as f32 are exact: a chunk has far fewer than 2^24.
            let lo = s.splat(r.lo as f32 - (v * LANES) as f32);
            let hi = s.splat(r.hi as f32 - (v * LANES) as f32);
            x = s.select_lt(iota, lo, minus_inf, s.select_lt(iota, hi, x, minus_inf));
            // SAFETY: as for the load.
            unsafe { s.store(r.s.add(v * LANES), x) };
        }
        max = s.max(x, max); // in this order a NaN is left out; it spreads through p and l
    }
    let m = s.fold_max(max);
    // All -inf: against zero every p is exp2(-inf) = 0, where (-inf) - (-inf) would be NaN.
    let reference = s.splat(if m == f32::NEG_INFINITY { 0.0 } else { m });
    let mut sum = s.splat(0.0);
    for v in first..last {
        // SAFETY: as above.
        unsafe {
            let p = exp2(s, s.sub(s.load(r.s.add(v * LANES)), reference));
            s.store(r.s.add(v * LANES), p);
            sum = s.add(sum, p);
        }
    }
    (m, s.fold_add(sum))
}

/// Running state of one query row, and one chunk to merge into it.
pub(crate) struct MergeRow {
    pub o: *mut f32,       // (dim): running sum of p * v
    pub chunk: *const f32, // (dim): the chunk's sum
    pub dim: usize,
    pub m: f32,
    pub l: f32,
    pub chunk_m: f32,
    pub chunk_l: f32,
}

/// Merges one chunk and returns the new `(m, l)`.
///
/// # Safety
/// - `o` and `chunk` are valid for `dim` f32.
#[inline(always)]
pub(crate) unsafe fn merge<S: Simd>(s: S, r: &MergeRow) -> (f32, f32) {
    if r.chunk_m == f32::NEG_INFINITY && r.chunk_l == 0.0 {
        return (r.m, r.l); // nothing visible has any weight, and nothing is NaN
    }
    let m = if r.m > r.chunk_m { r.m } else { r.chunk_m };
    let alpha = exp2(s, s.splat(r.m - m));
    let beta = exp2(s, s.splat(r.chunk_m - m));
    let mut j = 0;
    while j < r.dim {
        let n = LANES.min(r.dim - j);
        // SAFETY: lanes j..j + n < dim.
        unsafe {
            let old = s.mul(s.load_n(r.o.add(j), n), alpha);
            s.store_n(r.o.add(j), s.fma(s.load_n(r.chunk.add(j), n), beta, old), n);
        }
        j += LANES;
    }
    let l = s.fma(s.splat(r.chunk_l), beta, s.mul(s.splat(r.l), alpha));
    (m, s.fold_max(l))
}
