//! Rotary position embedding of one head (Su et al. 2021), in both pairings in use.

use super::LANES;
use crate::kernels::simd::Simd;

/// One head of one token, rotated in place by the angles of its position.
pub(crate) struct RopeHead {
    pub x: *mut f32,     // (2 * pairs)
    pub cos: *const f32, // (pairs)
    pub sin: *const f32, // (pairs)
    pub pairs: usize,
}

/// Pairs `(i, i + pairs)` (GPT-NeoX, Llama in GGUF "neox" order):
/// `x0' = x0 cos - x1 sin`, `x1' = x0 sin + x1 cos`, each one product and one FMA.
///
/// # Safety
/// - `x` is valid for `2 * pairs` f32, the tables for `pairs`.
#[inline(always)]
pub(crate) unsafe fn halves<S: Simd>(s: S, r: &RopeHead) {
    let mut j = 0;
    while j < r.pairs {
        let n = LANES.min(r.pairs - j);
        // SAFETY: lanes j..j + n < pairs.
        unsafe {
            let (p0, p1) = (r.x.add(j), r.x.add(r.pairs + j));
            let (x0, x1) = (s.load_n(p0, n), s.load_n(p1, n));
            let (cos, sin) = (s.load_n(r.cos.add(j), n), s.load_n(r.sin.add(j), n));
            let minus_x1_sin = s.mul(s.sub(s.splat(0.0), x1), sin);
            s.store_n(p0, s.fma(x0, cos, minus_x1_sin), n);
            s.store_n(p1, s.fma(x0, sin, s.mul(x1, cos)), n);
        }
        j += LANES;
    }
}

/// Pairs `(2i, 2i + 1)` (the paper, GPT-J). Written on single elements: under the features of the entry
/// the compiler vectorises it, and the operations are those of [`halves`].
///
/// # Safety
/// - as for [`halves`].
#[inline(always)]
pub(crate) unsafe fn interleaved<S: Simd>(s: S, r: &RopeHead) {
    for i in 0..r.pairs {
        // SAFETY: pair i < pairs.
        unsafe {
            let (x0, x1) = (*r.x.add(2 * i), *r.x.add(2 * i + 1));
            let (cos, sin) = (*r.cos.add(i), *r.sin.add(i));
            *r.x.add(2 * i) = s.fma_one(x0, cos, (0.0 - x1) * sin);
            *r.x.add(2 * i + 1) = s.fma_one(x0, sin, x1 * cos);
        }
    }
}
