//! Recurrent states: the gated delta rule and the selective scan, one token after the other.
//!
//! Both keep a matrix S (key elements, values) and are, for each token,
//!
//! ```text
//! S'[i][j] = S[i][j] * exp(a * g[i])                     decay; one g for all i, or one for each
//! u[j]     = by * (v[j] - sum over i of k[i] * S'[i][j]) delta rule
//! u[j]     = by * v[j]                                   selective scan
//! S[i][j]  = fma(k[i], u[j], S'[i][j])
//! y[j]     = sum over i of q[i] * S[i][j]                then times a scale, or plus skip * v[j]
//! ```
//!
//! Sums over i are chains of fused multiply-adds from +0.0 (NUMERICS rules 1 and 4); values are lanes, so
//! that nothing is summed across them. The state lies in panels of 16 values, `(panels, key elements, 16)`,
//! at every tier.
//!
//! A prompt takes this order as well. The panels of a work item stay in the L1 cache from the first token to
//! the last, and one pass over them ends a token and begins the next one: load, `fma` (S), `fma` (y),
//! multiply (decay), `fma` (the next u), store. Three of these four are the multiply-adds that the chunked
//! form (Yang et al. 2024, WY representation) needs too, so that the bound is 3/4 of the FMA peak. Rejected:
//! the chunked form, whose sums have another order, and which inverts a triangular matrix besides.

use super::LANES;
use super::math::exp;
use crate::kernels::simd::Simd;

/// The state of one head, or of some panels of it, and tokens for it. Strides are in elements, from token to
/// token.
pub(crate) struct Recurrence {
    pub tokens: usize,
    /// Key elements.
    pub rows: usize,
    pub panels: usize,
    /// Values of the last panel that exist: 1..=16.
    pub tail: usize,
    pub state: *mut f32, // (panels, rows, 16)
    pub q: *const f32,   // (tokens, rows)
    pub q_stride: usize,
    pub k: *const f32, // (tokens, rows)
    pub k_stride: usize,
    pub v: *const f32, // (tokens, 16 * (panels - 1) + tail)
    pub v_stride: usize,
    pub y: *mut f32, // as v
    pub y_stride: usize,
    pub decay: *const f32, // (tokens, 1), or (tokens, rows)
    pub decay_stride: usize,
    /// Whether each key element has a decay of its own.
    pub of_each: bool,
    pub by: *const f32, // (tokens, 1)
    pub by_stride: usize,
    /// The factor of the decays.
    pub a: f32,
    /// The delta rule's scale of y; the scan's factor of v in y.
    pub factor: f32,
}

/// What a pass over the state does. A token of the scan is one pass. Of the delta rule the first token begins
/// in a pass of its own, and each other one where the one before it ends.
const SCAN: u8 = 0;
const BEGIN: u8 = 1;
const END_AND_BEGIN: u8 = 2;
const END: u8 = 3;

/// The gated delta rule.
///
/// # Safety
/// - the operands are valid as [`Recurrence`] says; `tokens` and `panels` are at least 1.
#[inline(always)]
pub(crate) unsafe fn delta<S: Simd>(s: S, r: &Recurrence) {
    // SAFETY: handed on to the caller.
    unsafe { blocks::<S, true>(s, r) }
}

/// The selective scan.
///
/// # Safety
/// - as for [`delta`].
#[inline(always)]
pub(crate) unsafe fn scan<S: Simd>(s: S, r: &Recurrence) {
    // SAFETY: handed on to the caller.
    unsafe { blocks::<S, false>(s, r) }
}

/// The panels in blocks of as many as the registers hold sums of.
///
/// # Safety
/// - as for [`delta`].
#[inline(always)]
unsafe fn blocks<S: Simd, const DELTA: bool>(s: S, r: &Recurrence) {
    let mut p = 0;
    while p < r.panels {
        // SAFETY: panels p.. exist; the caller's operands.
        unsafe {
            if S::STATE_PANELS == 4 && r.panels - p >= 4 {
                tokens::<S, DELTA, 4>(s, r, p);
                p += 4;
            } else if S::STATE_PANELS == 4 && r.panels - p >= 2 {
                tokens::<S, DELTA, 2>(s, r, p);
                p += 2;
            } else {
                tokens::<S, DELTA, 1>(s, r, p);
                p += 1;
            }
        }
    }
}

/// All tokens for `P` panels from `first` on.
///
/// # Safety
/// - as for [`delta`]; the panels exist.
#[inline(always)]
unsafe fn tokens<S: Simd, const DELTA: bool, const P: usize>(s: S, r: &Recurrence, first: usize) {
    let zero = [s.splat(0.0); P];
    // SAFETY: each token exists that a pass is told of.
    unsafe {
        if !DELTA {
            for t in 0..r.tokens {
                let v = values::<S, P>(s, r, first, t);
                let by = s.splat(*r.by.add(t * r.by_stride));
                let mut u = v;
                for p in 0..P {
                    u[p] = s.mul(by, v[p]);
                }
                let (mut y, _) = pass::<S, SCAN, P>(s, r, first, t, u);
                for p in 0..P {
                    y[p] = s.fma(s.splat(r.factor), v[p], y[p]);
                }
                store::<S, P>(s, r, first, t, y);
            }
            return;
        }
        let (_, mut seen) = pass::<S, BEGIN, P>(s, r, first, 0, zero);
        for t in 0..r.tokens {
            let v = values::<S, P>(s, r, first, t);
            let by = s.splat(*r.by.add(t * r.by_stride));
            let mut u = v;
            for p in 0..P {
                u[p] = s.mul(by, s.sub(v[p], seen[p]));
            }
            let (mut y, next) = if t + 1 < r.tokens {
                pass::<S, END_AND_BEGIN, P>(s, r, first, t, u)
            } else {
                pass::<S, END, P>(s, r, first, t, u)
            };
            seen = next;
            for p in 0..P {
                y[p] = s.mul(y[p], s.splat(r.factor));
            }
            store::<S, P>(s, r, first, t, y);
        }
    }
}

/// One pass over the state, for token `t` (and the next one): the sums of q, and the sums of k.
///
/// # Safety
/// - as for [`tokens`]; token t exists, and the next one where it is begun.
#[inline(always)]
unsafe fn pass<S: Simd, const WHAT: u8, const P: usize>(
    s: S,
    r: &Recurrence,
    first: usize,
    t: usize,
    u: [S::F32s; P],
) -> ([S::F32s; P], [S::F32s; P]) {
    let begun = if WHAT == END_AND_BEGIN { t + 1 } else { t };
    let mut y = [s.splat(0.0); P];
    let mut seen = [s.splat(0.0); P];
    // SAFETY: rows of the tokens, and of the panels from `first` on; decays of a token.
    unsafe {
        let (q, k) = (r.q.add(t * r.q_stride), r.k.add(t * r.k_stride));
        let next_k = r.k.add(begun * r.k_stride);
        let decay = r.decay.add(begun * r.decay_stride);
        let state = r.state.add(first * r.rows * LANES);
        // The decays of 16 rows, or 16 times that of all.
        let mut factors = [0f32; LANES];
        if WHAT != END && !r.of_each {
            let d = exp(s, s.mul(s.splat(*decay), s.splat(r.a)));
            s.store(factors.as_mut_ptr(), d);
        }
        let mut from = 0;
        while from < r.rows {
            let some = LANES.min(r.rows - from);
            if WHAT != END && r.of_each {
                let d = exp(s, s.mul(s.load_n(decay.add(from), some), s.splat(r.a)));
                s.store(factors.as_mut_ptr(), d);
            }
            for row in 0..some {
                let i = from + row;
                let common = s.splat(factors[row]);
                let at = state.add(i * LANES);
                for p in 0..P {
                    let panel = at.add(p * r.rows * LANES);
                    let mut x = s.load(panel);
                    if WHAT == SCAN || WHAT == BEGIN {
                        x = s.mul(x, common);
                    }
                    if WHAT != BEGIN {
                        x = s.fma(s.splat(*k.add(i)), u[p], x);
                        y[p] = s.fma(s.splat(*q.add(i)), x, y[p]);
                    }
                    if WHAT == END_AND_BEGIN {
                        x = s.mul(x, common);
                    }
                    if WHAT == BEGIN || WHAT == END_AND_BEGIN {
                        seen[p] = s.fma(s.splat(*next_k.add(i)), x, seen[p]);
                    }
                    s.store(panel, x);
                }
            }
            from += some;
        }
    }
    (y, seen)
}

/// The values of token `t` for `P` panels from `first` on.
///
/// # Safety
/// - as for [`pass`].
#[inline(always)]
unsafe fn values<S: Simd, const P: usize>(s: S, r: &Recurrence, first: usize, t: usize) -> [S::F32s; P] {
    let mut v = [s.splat(0.0); P];
    for p in 0..P {
        let n = if first + p + 1 == r.panels { r.tail } else { LANES };
        // SAFETY: n values of the panel exist.
        v[p] = unsafe { s.load_n(r.v.add(t * r.v_stride + (first + p) * LANES), n) };
    }
    v
}

/// Stores the results of token `t` for `P` panels from `first` on.
///
/// # Safety
/// - as for [`pass`].
#[inline(always)]
unsafe fn store<S: Simd, const P: usize>(s: S, r: &Recurrence, first: usize, t: usize, y: [S::F32s; P]) {
    for p in 0..P {
        let n = if first + p + 1 == r.panels { r.tail } else { LANES };
        // SAFETY: n values of the panel exist.
        unsafe { s.store_n(r.y.add(t * r.y_stride + (first + p) * LANES), y[p], n) };
    }
}
