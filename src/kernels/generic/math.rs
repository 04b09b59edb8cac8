//! One polynomial for everything transcendental (NUMERICS rule 5).
//!
//! `exp2(x) = 2^n * p(x - n)` with `n` the nearest integer. `p` is the degree-6 relative minimax
//! polynomial on [-0.5, 0.5] (own Remez, error 1.9e-9 before rounding; 1.0e-7 evaluated in f32 by Horner
//! with FMA). Degree 5 would save one instruction of twelve and triple the error.

use crate::kernels::simd::Simd;

/// Coefficients of `p`, constant term first.
const P: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_47,
    0.055_503_29,
    0.009_618_489,
    0.001_339_993_1,
    0.000_153_458_12,
];

/// `log2(e)` as a sum of two f32: the product `x * log2(e)` keeps its fraction accurate for large `x`.
const LOG2E_HI: f32 = std::f32::consts::LOG2_E;
const LOG2E_LO: f32 = (std::f64::consts::LOG2_E - LOG2E_HI as f64) as f32;

/// The greatest f32 whose exponential is finite.
const EXP_TOP: f32 = 88.722_83;

/// `2^n * p(f)` for `x = n + f`: zero below `2^-126`, infinity from `2^128` on, NaN stays NaN.
#[inline(always)]
fn exp2_split<S: Simd>(s: S, x: S::F32s, n: S::F32s, f: S::F32s) -> S::F32s {
    let mut p = s.splat(P[6]);
    let mut i = 6;
    while i > 0 {
        i -= 1;
        p = s.fma(p, f, s.splat(P[i]));
    }
    s.select_lt(x, s.splat(-126.0), s.splat(0.0), s.scale2(p, n))
}

/// `2^x`. Relative error at most 1.2e-7 where the result is normal; results below 2^-126 are +0.0.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    let x = s.min(s.splat(128.0), x);
    let n = s.round(x);
    exp2_split(s, x, n, s.sub(x, n))
}

/// [`exp2`] for `x` of at most 128, or NaN: one minimum less, the same bits.
#[inline(always)]
pub(crate) fn exp2_of_negative<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    let n = s.round(x);
    exp2_split(s, x, n, s.sub(x, n))
}

/// `e^x`. Relative error at most 1.5e-7 where the result is normal; results below 2^-126 are +0.0.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    let top = s.splat(EXP_TOP);
    let clamped = s.min(top, x);
    let y = s.mul(clamped, s.splat(LOG2E_HI));
    let n = s.round(y);
    let f = s.fma(clamped, s.splat(LOG2E_HI), s.sub(s.splat(0.0), n));
    let f = s.fma(clamped, s.splat(LOG2E_LO), f);
    s.select_lt(top, x, s.splat(f32::INFINITY), exp2_split(s, y, n, f))
}

/// `x / (1 + e^(-c x))`: SiLU for `c = 1`.
#[inline(always)]
fn gated<S: Simd>(s: S, x: S::F32s, minus_cx: S::F32s) -> S::F32s {
    s.div(x, s.add(s.splat(1.0), exp(s, minus_cx)))
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    // For x below about -88 the denominator is infinite and the result -0.0; x = -inf gives NaN, as
    // IEEE says of inf/inf.
    gated(s, x, s.sub(s.splat(0.0), x))
}

/// GELU in the tanh form, `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, computed as
/// `x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))`, which is the same function without the tanh.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    const C: f32 = 1.595_769_2; // 2 * sqrt(2 / pi)
    let x2 = s.mul(x, x);
    let inner = s.mul(x, s.fma(x2, s.splat(-C * 0.044_715), s.splat(-C)));
    gated(s, x, inner)
}

/// Coefficients of `q`, constant term first, in `tanh(x) = x + x * x^2 * q(x^2)` for `|x| < 0.625`: the
/// relative minimax polynomial (own Remez, error 4.4e-9 before rounding).
const TANH: [f32; 5] = [-0.333_332_83, 0.133_314_43, -0.053_739_79, 0.020_639_343, -0.005_705_284];

/// `tanh(x)`, odd to the bit. Relative error at most 3e-7. Near zero `(1 - e) / (1 + e)` would lose all of
/// its digits to cancellation, so a polynomial takes over there.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    let size = s.abs(x);
    let e = exp2(s, s.mul(size, s.splat(-2.0 * LOG2E_HI)));
    let one = s.splat(1.0);
    let far = s.div(s.sub(one, e), s.add(one, e));
    let far = s.select_lt(x, s.splat(0.0), s.sub(s.splat(0.0), far), far);
    let z = s.mul(x, x);
    let mut q = s.splat(TANH[4]);
    let mut i = 4;
    while i > 0 {
        i -= 1;
        q = s.fma(q, z, s.splat(TANH[i]));
    }
    let near = s.fma(s.mul(x, z), q, x);
    s.select_lt(size, s.splat(0.625), near, far)
}

/// `max(x, 0)`; NaN stays NaN.
#[inline(always)]
pub(crate) fn relu<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    s.max(s.splat(0.0), x)
}
