//! Activations to int8, in blocks of 32 along k (NUMERICS rule 2).
//!
//! One form, for every tier: `d = absmax / 127`, `r = 1 / d`, `q = round_ties_even(x * r)`, each one IEEE
//! operation. A block whose d is zero or subnormal (absmax below 1.5e-36) becomes zeros with d = 0; a
//! block with a NaN or an infinity has d = NaN and zeros, so every output that it touches is NaN.

use crate::kernels::simd::Simd;

/// Elements of a block.
pub(crate) const BLOCK: usize = 32;

/// One row of activations and where its parts go.
pub(crate) struct QuantizeRow {
    pub x: *const f32, // (32 * blocks)
    pub blocks: usize,
    pub q: *mut i8,        // (32 * blocks)
    pub d: *mut f32,       // (blocks): scales
    pub neg_sum: *mut i32, // (blocks): minus the sum of the block's q
}

/// # Safety
/// - the pointers are valid for the counts in the comments of [`QuantizeRow`].
#[inline(always)]
pub(crate) unsafe fn row<S: Simd>(s: S, r: &QuantizeRow) {
    let zero = s.splat(0.0);
    for b in 0..r.blocks {
        // SAFETY: block b < blocks of x.
        let (x0, x1) = unsafe { (s.load(r.x.add(b * BLOCK)), s.load(r.x.add(b * BLOCK + 16))) };
        let absmax = s.fold_max(s.max(s.abs(x0), s.abs(x1)));
        // x - x is zero for finite x and NaN otherwise; a maximum could lose the NaN.
        let poison = s.fold_add(s.add(s.sub(x0, x0), s.sub(x1, x1)));
        let d = absmax / 127.0 + poison;
        let usable = (f32::MIN_POSITIVE..f32::INFINITY).contains(&d);
        let (q0, q1) = if usable {
            let inv = s.splat(1.0 / d);
            (s.f_to_i32(s.mul(x0, inv)), s.f_to_i32(s.mul(x1, inv)))
        } else {
            (s.f_to_i32(zero), s.f_to_i32(zero))
        };
        let scale = if usable {
            d
        } else if poison == 0.0 {
            0.0
        } else {
            f32::NAN
        };
        // SAFETY: block b < blocks of q, d and neg_sum.
        unsafe {
            s.i_store_i8(r.q.add(b * BLOCK), q0);
            s.i_store_i8(r.q.add(b * BLOCK + 16), q1);
            *r.d.add(b) = scale;
            *r.neg_sum.add(b) = -s.i_fold_add(s.i_add(q0, q1));
        }
    }
}
