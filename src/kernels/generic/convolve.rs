//! Causal convolution along tokens, each channel with taps of its own.

use super::LANES;
use crate::kernels::simd::Simd;

/// The most taps of a channel.
pub(crate) const MAX_TAPS: usize = 8;

/// One token: `taps` rows in, one row out.
pub(crate) struct ConvolveRow {
    /// The token's row is the last of them, the oldest the first.
    pub x: [*const f32; MAX_TAPS], // (n) each
    pub taps: usize,
    pub weights: *const f32, // (taps, n), rows `weights_stride` apart
    pub weights_stride: usize,
    pub bias: *const f32, // (n), or null
    pub y: *mut f32,      // (n)
    pub n: usize,
}

/// `y = sum of weights[i] * x[i] + bias`: for each channel one chain of fused multiply-adds from +0.0, the
/// oldest token first, then the bias.
///
/// # Safety
/// - the first `taps <= MAX_TAPS` rows of `x`, rows `0..taps` of `weights`, `bias` if there is one, and `y`
///   are valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn row<S: Simd>(s: S, r: &ConvolveRow) {
    let mut j = 0;
    while j < r.n {
        let n = LANES.min(r.n - j);
        let mut acc = s.splat(0.0);
        for i in 0..r.taps {
            // SAFETY: lanes j..j + n of rows i < taps.
            unsafe {
                let w = s.load_n(r.weights.add(i * r.weights_stride + j), n);
                acc = s.fma(w, s.load_n(r.x[i].add(j), n), acc);
            }
        }
        // SAFETY: the same lanes of bias and output.
        unsafe {
            if !r.bias.is_null() {
                acc = s.add(acc, s.load_n(r.bias.add(j), n));
            }
            s.store_n(r.y.add(j), acc, n);
        }
        j += LANES;
    }
}
