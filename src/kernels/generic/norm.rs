//! Row reductions (NUMERICS rule 4): element i belongs to lane i mod 16, lanes accumulate in ascending i
//! and are folded by halves.

use super::math::exp;
use super::{IOTA, LANES};
use crate::kernels::simd::Simd;

/// One row in, one row out.
pub(crate) struct NormRow {
    pub x: *const f32,    // (n)
    pub y: *mut f32,      // (n), may be `x`
    pub gain: *const f32, // (n)
    pub bias: *const f32, // (n), or null
    pub n: usize,
    pub eps: f32,
}

/// Accumulates `f(acc, x[i])` lane by lane; lanes beyond `n` see `fill`.
macro_rules! reduce {
    ($s:expr, $x:expr, $n:expr, $start:expr, |$acc:ident, $v:ident, $lanes:ident| $body:expr) => {{
        let mut $acc = $start;
        let mut j = 0;
        while j < $n {
            let $lanes = LANES.min($n - j);
            // SAFETY: lanes j..j + lanes < n of a row that the caller vouches for.
            let $v = unsafe { $s.load_n($x.add(j), $lanes) };
            $acc = $body;
            j += LANES;
        }
        $acc
    }};
}

/// Sets lanes `n..` of `x` to `fill`.
#[inline(always)]
fn fill_tail<S: Simd>(s: S, x: S::F32s, n: usize, fill: S::F32s) -> S::F32s {
    // SAFETY: IOTA holds 16 f32.
    let iota = unsafe { s.load(IOTA.as_ptr()) };
    s.select_lt(iota, s.splat(n as f32), x, fill)
}

/// The maximum of a row, NaN left out; -inf for an empty one.
///
/// # Safety
/// - `x` is valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn max<S: Simd>(s: S, x: *const f32, n: usize) -> f32 {
    let low = s.splat(f32::NEG_INFINITY);
    let max = reduce!(s, x, n, low, |acc, v, lanes| s.max(fill_tail(s, v, lanes, low), acc));
    s.fold_max(max)
}

/// `y = (x - mean) / sqrt(var + eps) * gain + bias`.
///
/// # Safety
/// - the pointers are valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn layer_norm<S: Simd>(s: S, r: &NormRow) {
    let n = r.n as f32;
    let zero = s.splat(0.0);
    let mean = s.fold_add(reduce!(s, r.x, r.n, zero, |acc, v, _lanes| s.add(acc, v))) / n;
    let mean = s.splat(mean);
    let var = reduce!(s, r.x, r.n, zero, |acc, v, lanes| {
        let d = fill_tail(s, s.sub(v, mean), lanes, zero);
        s.fma(d, d, acc)
    });
    let inv = s.splat(1.0 / (s.fold_add(var) / n + r.eps).sqrt());
    // SAFETY: as the caller says.
    unsafe { scale_row(s, r, mean, inv) };
}

/// `y = x / sqrt(mean(x^2) + eps) * gain (+ bias)`.
///
/// # Safety
/// - the pointers are valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn rms_norm<S: Simd>(s: S, r: &NormRow) {
    let zero = s.splat(0.0);
    let squares = reduce!(s, r.x, r.n, zero, |acc, v, _lanes| s.fma(v, v, acc));
    let inv = s.splat(1.0 / (s.fold_add(squares) / r.n as f32 + r.eps).sqrt());
    // SAFETY: as the caller says.
    unsafe { scale_row(s, r, zero, inv) };
}

/// `y = ((x - mean) * inv) * gain (+ bias, by FMA)`.
///
/// # Safety
/// - as for the callers.
#[inline(always)]
unsafe fn scale_row<S: Simd>(s: S, r: &NormRow, mean: S::F32s, inv: S::F32s) {
    let mut j = 0;
    while j < r.n {
        let n = LANES.min(r.n - j);
        // SAFETY: lanes j..j + n lie inside the row.
        unsafe {
            let x = s.mul(s.sub(s.load_n(r.x.add(j), n), mean), inv);
            let gain = s.load_n(r.gain.add(j), n);
            let y =
                if r.bias.is_null() { s.mul(x, gain) } else { s.fma(x, gain, s.load_n(r.bias.add(j), n)) };
            s.store_n(r.y.add(j), y, n);
        }
        j += LANES;
    }
}

/// `x = exp(x - max) / sum`, in place. A row of -inf gives zeros.
///
/// # Safety
/// - `x` is valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn softmax<S: Simd>(s: S, x: *mut f32, n: usize) {
    // SAFETY: as the caller says.
    let m = unsafe { max(s, x, n) };
    let reference = s.splat(if m == f32::NEG_INFINITY { 0.0 } else { m });
    let zero = s.splat(0.0);
    let mut sum = zero;
    let mut j = 0;
    while j < n {
        let lanes = LANES.min(n - j);
        // SAFETY: lanes j..j + lanes < n.
        unsafe {
            let p = fill_tail(s, exp(s, s.sub(s.load_n(x.add(j), lanes), reference)), lanes, zero);
            s.store_n(x.add(j), p, lanes);
            sum = s.add(sum, p);
        }
        j += LANES;
    }
    let sum = s.fold_add(sum);
    // SAFETY: as the caller says.
    unsafe { divide(s, x, n, sum) };
}

/// `x = x / by`, in place; zeros when `by` is zero.
///
/// # Safety
/// - `x` is valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn divide<S: Simd>(s: S, x: *mut f32, n: usize, by: f32) {
    let divisor = s.splat(if by == 0.0 { 1.0 } else { by });
    let mut j = 0;
    while j < n {
        let lanes = LANES.min(n - j);
        // SAFETY: lanes j..j + lanes < n.
        unsafe { s.store_n(x.add(j), s.div(s.load_n(x.add(j), lanes), divisor), lanes) };
        j += LANES;
    }
}
