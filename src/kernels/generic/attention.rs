//! One row of scores over one chunk of keys: soft cap, ALiBi and masks, the softmax, and the merge of chunks.
//!
//! Within a chunk: one maximum m, `p = exp2(s - m)`, a rule-4 sum l. Chunks are merged in ascending order
//! by the online-softmax rule (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022):
//! `m' = max(m, m_c)`, `l' = l_c * beta + l * alpha`, `o' = o_c * beta + o * alpha` with
//! `alpha = exp2(m - m')`, `beta = exp2(m_c - m')`. Each chunk is computed against its own maximum, not
//! against the running one, so chunks may be computed in any order and merged later with the same bits.

use super::math::{exp2, exp2_of_negative, tanh};
use super::{IOTA, LANES};
use crate::kernels::simd::Simd;

/// One row of scores, and the terms that are added to `q . k`.
pub(crate) struct AdjustRow {
    pub s: *mut f32, // (n)
    pub n: usize,
    /// `s = cap * tanh(s)`; 0 for none. The division by the cap is part of the query's factor.
    pub cap: f32,
    /// `s = s - slope * |key - query|` for ALiBi; 0 for none.
    pub slope: f32,
    /// Key 0 minus the query, in tokens.
    pub offset: f32,
    /// `s = s + mask * mask_factor`, -inf whatever s where the mask is -inf.
    pub mask: *const f32, // (n), or null
    pub mask_factor: f32,
}

/// Softcap, then ALiBi, then the additive mask, each by one FMA or product. Where a finite mask makes a
/// finite score overflow, the score is the finite number next to the infinity: only a mask of -inf hides a
/// key, and a row of the lowest masks has equal scores.
///
/// # Safety
/// - `s` is valid for `n` f32, and so is `mask` unless it is null.
#[inline(always)]
pub(crate) unsafe fn adjust<S: Simd>(s: S, r: &AdjustRow) {
    // SAFETY: IOTA holds 16 f32.
    let iota = unsafe { s.load(IOTA.as_ptr()) };
    let (minus_inf, inf) = (s.splat(f32::NEG_INFINITY), s.splat(f32::INFINITY));
    let (lowest, highest) = (s.splat(f32::MIN), s.splat(f32::MAX));
    let mut j = 0;
    while j < r.n {
        let n = LANES.min(r.n - j);
        // SAFETY: lanes j..j + n < n of the row and its mask.
        unsafe {
            let mut x = s.load_n(r.s.add(j), n);
            if r.cap != 0.0 {
                x = s.mul(s.splat(r.cap), tanh(s, x));
            }
            if r.slope != 0.0 {
                // Exact below 2^24 tokens.
                let distance = s.abs(s.add(iota, s.splat(r.offset + j as f32)));
                x = s.fma(distance, s.splat(-r.slope), x);
            }
            if !r.mask.is_null() {
                let mask = s.load_n(r.mask.add(j), n);
                let sum = s.fma(mask, s.splat(r.mask_factor), x);
                // Infinite bounds where the score or the mask is infinite; a NaN stays, as the second
                // operand.
                let low = s.min(x, lowest);
                let high = s.max(x, s.select_lt(mask, inf, highest, inf));
                x = s.min(high, s.max(low, sum));
                x = s.select_lt(mask, lowest, minus_inf, x);
            }
            s.store_n(r.s.add(j), x, n);
        }
        j += LANES;
    }
}

/// One row of scores and its boolean mask.
pub(crate) struct HideRow {
    pub s: *mut f32,       // (n)
    pub seen: *const bool, // (n)
    pub n: usize,
}

/// `s = seen ? s : -inf`. Written on single elements: under the features of the entry the compiler vectorises
/// it, and a selection has no rounding.
///
/// # Safety
/// - both rows are valid for `n` elements.
#[inline(always)]
pub(crate) unsafe fn hide<S: Simd>(_s: S, r: &HideRow) {
    for i in 0..r.n {
        // SAFETY: i < n.
        unsafe {
            let x = *r.s.add(i);
            *r.s.add(i) = if *r.seen.add(i) { x } else { f32::NEG_INFINITY };
        }
    }
}

/// One row of scores and its visible keys (input), their maximum and sum (output).
pub(crate) struct ChunkRow {
    pub s: *mut f32, // (ceil(hi / 16) * 16): scores in the exp2 domain; becomes p in lo..hi
    /// Visible keys of the chunk: `lo..hi`. An empty row is left as it is.
    pub lo: usize,
    pub hi: usize,
    /// The maximum, and the sum of the probabilities.
    pub m: f32,
    pub l: f32,
}

/// Turns the scores `lo..hi` of each row into probabilities, and leaves `(m, l)`. A row whose visible scores
/// are all -inf gives m = -inf, l = 0 and zeros.
///
/// The maxima of all rows come first: each is a chain of dependent operations and a fold, which the core
/// overlaps with the next row's. Row after row waits more than half of the time (docs/TUNING.md, softmax of a
/// chunk).
///
/// # Safety
/// - `rows` is valid for `n` rows, and `s` of each one that is not empty for the vectors of 16 that cover
///   `lo..hi`, counted from key 0 of the chunk.
#[inline(always)]
pub(crate) unsafe fn softmax<S: Simd>(s: S, rows: *mut ChunkRow, n: usize) {
    // SAFETY: as the caller says, and no other reference to the rows is live.
    let rows = unsafe { std::slice::from_raw_parts_mut(rows, n) };
    for r in rows.iter_mut().filter(|r| r.lo < r.hi) {
        // SAFETY: handed on to the caller.
        r.m = unsafe { chunk_max(s, r) };
    }
    for r in rows.iter_mut().filter(|r| r.lo < r.hi) {
        // All -inf: against zero every p is exp2(-inf) = 0, where (-inf) - (-inf) would be NaN.
        let reference = s.splat(if r.m == f32::NEG_INFINITY { 0.0 } else { r.m });
        let mut sum = s.splat(0.0);
        for v in r.lo / LANES..r.hi.div_ceil(LANES) {
            // SAFETY: vector v covers keys of lo..hi.
            unsafe {
                let p = exp2_of_negative(s, s.sub(s.load(r.s.add(v * LANES)), reference));
                s.store(r.s.add(v * LANES), p);
                sum = s.add(sum, p);
            }
        }
        r.l = s.fold_add(sum);
    }
}

/// The maximum of the scores `lo..hi`. Scores of the same vectors outside of `lo..hi` become -inf.
///
/// # Safety
/// - as for [`softmax`], of one row that is not empty.
#[inline(always)]
unsafe fn chunk_max<S: Simd>(s: S, r: &ChunkRow) -> f32 {
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
    s.fold_max(max)
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
