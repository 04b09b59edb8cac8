//! What happens to a finished chain: `c = beta * c + act(alpha * acc + bias) (* gate)`.
//!
//! One pass over rows that the tile kernel has just left in L1 or L2.

use super::LANES;
use super::math;
use crate::kernels::simd::Simd;
use crate::matmul::Activation;

/// One row of a finished tile.
pub(crate) struct EpilogueRow {
    pub acc: *const f32,  // (cols): the chains; may be `c` itself
    pub c: *mut f32,      // (cols)
    pub bias: *const f32, // (cols), or null
    pub gate: *const f32, // (cols), or null
    pub cols: usize,
    pub alpha: f32,
    pub beta: f32,
    pub activation: Activation,
}

/// # Safety
/// - `acc`, `c`, and `bias` and `gate` where they are not null, are valid for `cols` f32.
#[inline(always)]
pub(crate) unsafe fn row<S: Simd>(s: S, e: &EpilogueRow) {
    let (alpha, beta) = (s.splat(e.alpha), s.splat(e.beta));
    let mut j = 0;
    while j < e.cols {
        let n = LANES.min(e.cols - j);
        // SAFETY: lanes j..j + n lie inside the row.
        unsafe {
            let mut x = s.mul(alpha, s.load_n(e.acc.add(j), n));
            if !e.bias.is_null() {
                x = s.add(x, s.load_n(e.bias.add(j), n));
            }
            x = match e.activation {
                Activation::Identity => x,
                Activation::Relu => math::relu(s, x),
                Activation::Gelu => math::gelu(s, x),
                Activation::Silu => math::silu(s, x),
            };
            if !e.gate.is_null() {
                x = s.mul(x, s.load_n(e.gate.add(j), n));
            }
            if e.beta != 0.0 {
                x = s.fma(beta, s.load_n(e.c.add(j), n), x);
            }
            s.store_n(e.c.add(j), x, n);
        }
        j += LANES;
    }
}
