//! Activations to int8, in blocks of 32 along k (NUMERICS rule 2).
//!
//! One form, for every tier: `d = absmax / 127`, `r = 1 / d`, `q = round_ties_even(x * r)`, each one IEEE
//! operation. A block whose d is zero or subnormal (absmax below 1.5e-36) becomes zeros with d = 0; a
//! block with a NaN or an infinity has d = NaN and zeros, so every output that it touches is NaN.
//!
//! A row becomes one [`BlockQ8`] of 48 bytes for each block: the codes with all that any format wants to
//! know about them, so that one row serves weights of every format, and a tile needs one pointer for each
//! row.

use crate::kernels::simd::Simd;
use bytemuck::{Pod, Zeroable};

/// Elements of a block.
pub(crate) const BLOCK: usize = 32;

/// One block of quantised activations: ggml's `block_q8`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BlockQ8 {
    pub q: [i8; BLOCK],
    /// The scale.
    pub d: f32,
    /// Minus the sum of q: formats with unsigned codes start their dot products with a multiple of it.
    pub neg_sum: i32,
    /// `d * sum of q`, rounded once: the factor of a format's minimum.
    pub sum: f32,
    /// Minus the sum of the first 16 q.
    pub neg_first: i32,
}
const _: () = assert!(size_of::<BlockQ8>() == 48);

impl BlockQ8 {
    /// A block of codes that were quantised elsewhere.
    pub(crate) fn of(codes: &[i8; BLOCK], d: f32) -> BlockQ8 {
        let sum = |codes: &[i8]| codes.iter().map(|&q| i32::from(q)).sum::<i32>();
        let (all, first) = (sum(codes), sum(&codes[..BLOCK / 2]));
        BlockQ8 { q: *codes, d, neg_sum: -all, sum: d * all as f32, neg_first: -first }
    }
}

/// One row of activations and where its blocks go.
pub(crate) struct QuantizeRow {
    pub x: *const f32, // (32 * blocks)
    pub blocks: usize,
    pub out: *mut BlockQ8, // (blocks)
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
        let first = s.i_fold_add(q0);
        let all = first + s.i_fold_add(q1);
        // SAFETY: record b < blocks.
        unsafe {
            let out = r.out.add(b);
            s.i_store_i8((&raw mut (*out).q).cast(), q0);
            s.i_store_i8((&raw mut (*out).q).cast::<i8>().add(16), q1);
            (*out).d = scale;
            (*out).neg_sum = -all;
            (*out).sum = scale * all as f32;
            (*out).neg_first = -first;
        }
    }
}
