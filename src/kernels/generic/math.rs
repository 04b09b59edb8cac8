//! One polynomial for everything transcendental (NUMERICS rule 5).
//!
//! `exp2(x) = 2^n * p(x - n)` with `n` the nearest integer. `p` is the degree-6 relative minimax
//! polynomial on [-0.5, 0.5] (own Remez, error 1.9e-9 before rounding; 1.0e-7 evaluated in f32 by Horner
//! with FMA). Degree 5 would save one instruction of twelve and triple the error.

use crate::epilogue::Activation;
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

/// The polynomial of `coefficients`, constant term first, by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F32s, coefficients: &[f32; N]) -> S::F32s {
    let mut p = s.splat(coefficients[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        p = s.fma(p, x, s.splat(coefficients[i]));
    }
    p
}

/// `2^n * p(f)` for `x = n + f`: zero below `2^-126`, infinity from `2^128` on, NaN stays NaN.
#[inline(always)]
fn exp2_split<S: Simd>(s: S, x: S::F32s, n: S::F32s, f: S::F32s) -> S::F32s {
    let p = polynomial(s, f, &P);
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
    exp_sum(s, x, None)
}

/// `e^(x + low)`, where `low` is what the rounding of x left out. Without `low` that rounding adds up to
/// `2^-24 |x|` to the relative error.
#[inline(always)]
fn exp_sum<S: Simd>(s: S, x: S::F32s, low: Option<S::F32s>) -> S::F32s {
    let top = s.splat(EXP_TOP);
    let clamped = s.min(top, x);
    let y = s.mul(clamped, s.splat(LOG2E_HI));
    let n = s.round(y);
    let f = s.fma(clamped, s.splat(LOG2E_HI), s.sub(s.splat(0.0), n));
    let mut f = s.fma(clamped, s.splat(LOG2E_LO), f);
    if let Some(low) = low {
        f = s.fma(low, s.splat(LOG2E_HI), f);
    }
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
    let q = polynomial(s, z, &TANH);
    let near = s.fma(s.mul(x, z), q, x);
    s.select_lt(size, s.splat(0.625), near, far)
}

/// `max(x, 0)`; NaN stays NaN.
#[inline(always)]
pub(crate) fn relu<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    s.max(s.splat(0.0), x)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    gated(s, s.splat(1.0), s.sub(s.splat(0.0), x))
}

/// `x * sigmoid((c + c_low) x)`, -0.0 for -inf: below -104, where the sigmoid is 0 in f32 for `c >= 1`, x
/// counts as -104. Relative error at most 5e-7 where the exponential is a normal number.
#[inline(always)]
pub(crate) fn scaled_silu<S: Simd>(s: S, x: S::F32s, c: S::F32s, c_low: f32) -> S::F32s {
    let x = s.max(s.splat(-104.0), x);
    let minus = s.sub(s.splat(0.0), x);
    let high = s.mul(c, minus);
    let low = s.fma(s.splat(c_low), minus, s.fma(c, minus, s.sub(s.splat(0.0), high)));
    s.div(x, s.add(s.splat(1.0), exp_sum(s, high, Some(low))))
}

/// `max(x, 0)^2`; NaN stays NaN.
#[inline(always)]
pub(crate) fn relu_squared<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    let x = relu(s, x);
    s.mul(x, x)
}

/// Coefficients of `q`, constant term first, in `atanh(z) = z * q(z^2)` for `|z| <= 1/3`: the relative
/// minimax polynomial (own Remez, error 4.0e-9 before rounding).
const ATANH: [f32; 5] = [1.0, 0.333_331_58, 0.200_124_55, 0.139_803, 0.140_891_67];

/// `ln(1 + e^x)` as `max(x, 0) + ln(1 + y)` with `y = e^-|x|`, where `ln(1 + y) = 2 atanh(y / (2 + y))`: no
/// digit is lost where y is small. Relative error at most 2.2e-7 where the result is normal.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    let y = exp(s, s.neg(s.abs(x)));
    let z = s.div(y, s.add(y, s.splat(2.0)));
    let q = polynomial(s, s.mul(z, z), &ATANH);
    s.add(relu(s, x), s.mul(s.add(z, z), q))
}

/// Factor of the variable `u = 1 / (1 + 0.3 a)` of [`LOWER_TAIL`].
const TAIL_SCALE: f32 = 0.3;

/// Coefficients of `r`, constant term first, in `Phi(-a) = e^(-a^2 / 2) * u * r(u)` for `a` in `[0, 14]`,
/// `Phi` being the normal distribution: the relative minimax polynomial (own Remez, error 3.5e-9 before
/// rounding).
const LOWER_TAIL: [f32; 10] = [
    0.119_686_63,
    0.119_572_84,
    0.110_227_324,
    0.078_425_57,
    0.096_057_86,
    -0.079_247_42,
    0.191_581_8,
    -0.228_067_6,
    0.112_375_826,
    -0.020_612_84,
];

/// GELU in the exact form, `x * Phi(x)`: with `p = x * Phi(-|x|)`, `p` for negative x and `x - p` for others,
/// so that no digit is lost on either side. Relative error at most 9e-7 where the result is normal.
///
/// Rejected: `erf` by a polynomial, and `0.5 x (1 + erf)`, which has no right digit left at x = -5.
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(s: S, x: S::F32s) -> S::F32s {
    // Beyond 15 the tail is 0 in f32, and infinities would give inf * 0.
    let near = s.max(s.splat(-15.0), s.min(s.splat(15.0), x));
    let a = s.abs(near);
    let u = s.div(s.splat(1.0), s.fma(a, s.splat(TAIL_SCALE), s.splat(1.0)));
    let r = s.mul(polynomial(s, u, &LOWER_TAIL), u);
    let square = s.mul(a, a);
    let rest = s.fma(a, a, s.neg(square));
    let e = exp_sum(s, s.mul(square, s.splat(-0.5)), Some(s.mul(rest, s.splat(-0.5))));
    let p = s.mul(near, s.mul(r, e));
    s.select_lt(x, s.splat(0.0), p, s.sub(x, p))
}

/// The factor of the quick GELU, 1.702, as a sum of two f32.
const QUICK: f32 = 1.702;
const QUICK_LOW: f32 = (1.702 - QUICK as f64) as f32;

/// One activation; a constant one costs no choice.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, activation: Activation, x: S::F32s) -> S::F32s {
    match activation {
        Activation::Identity => x,
        Activation::Relu => relu(s, x),
        // Arrays gain nothing when every loop has copies of its own, and the library grew by 70 KB.
        curve if S::DOUBLE_ACCUMULATOR_TILES == 0 => called_curve(s, curve, x),
        curve => self::curve(s, curve, x),
    }
}

/// [`curve`], one copy for all that call it.
#[inline(never)]
fn called_curve<S: Simd>(s: S, activation: Activation, x: S::F32s) -> S::F32s {
    curve(s, activation, x)
}

/// The activations that take more than a few instructions.
#[inline(always)]
fn curve<S: Simd>(s: S, activation: Activation, x: S::F32s) -> S::F32s {
    match activation {
        Activation::Identity | Activation::Relu => x,
        Activation::Gelu => gelu(s, x),
        Activation::Silu => silu(s, x),
        Activation::GeluErf => gelu_erf(s, x),
        Activation::GeluQuick => scaled_silu(s, x, s.splat(QUICK), QUICK_LOW),
        Activation::ReluSquared => relu_squared(s, x),
        Activation::Sigmoid => sigmoid(s, x),
        Activation::Tanh => tanh(s, x),
        Activation::Softplus => softplus(s, x),
        Activation::Exp => exp(s, x),
    }
}
