//! Element-wise operators against values that were computed elsewhere (mpmath with 300 bits, rounded once)
//! and against f64 over the whole range; equal bits at every tier and length; bad input.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::*;
use kvern::{Activation, Context, Error, Isa, MatMut, MatRef};

/// f32 of a fixture, little-endian.
fn fixture(name: &str) -> Vec<f32> {
    let path = format!("{}/tests/fixtures/ops/elementwise/{name}.f32", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Runs `op` on a copy of `x` at every tier, as one row and as rows of 37, and returns the scalar result.
fn everywhere(x: &[f32], what: &str, op: impl Fn(&Context, MatMut<'_>)) -> Vec<f32> {
    let run = |ctx: &Context, n: usize| {
        let mut y = x.to_vec();
        let whole = x.len() / n * n;
        op(ctx, MatMut::dense(&mut y[..whole], whole / n, n).unwrap());
        if whole < x.len() {
            let rest = x.len() - whole;
            op(ctx, MatMut::dense(&mut y[whole..], 1, rest).unwrap());
        }
        y
    };
    let want = run(&context(Isa::Scalar, 1), x.len());
    for_each_isa(|ctx| {
        for n in [x.len(), 37.min(x.len())] {
            let got = run(&context(ctx.isa(), 3), n);
            assert_same_bits(&got, &want, &format!("{what} in rows of {n} at {}", ctx.isa()));
        }
    });
    want
}

/// What the documentation promises of one function.
struct Promise {
    relative: f64,
    absolute: f64,
    /// Largest size of a result that may be a zero instead.
    flushed: f64,
}

const NORMAL: f64 = f32::MIN_POSITIVE as f64;

fn promise(activation: Activation) -> Promise {
    let (relative, absolute) = match activation {
        Activation::Identity | Activation::Relu => (0.0, 0.0),
        Activation::Gelu => (4e-6, 2e-7),
        Activation::GeluErf => (9e-7, 0.0),
        Activation::ReluSquared => (6e-8, 0.0),
        _ => (5e-7, 0.0),
    };
    // Where an exponential on the way leaves the range, the result is that of its limit.
    let overflows = matches!(activation, Activation::Silu | Activation::GeluQuick | Activation::Gelu);
    Promise { relative, absolute, flushed: if overflows { 120.0 * NORMAL } else { NORMAL } }
}

#[track_caller]
fn holds(x: f32, got: f32, want: f64, p: &Promise, what: &str) {
    if want.is_nan() {
        return assert!(got.is_nan(), "{what}({x:e}): {got} against NaN");
    }
    // Beyond f32 there is infinity, and within half an ulp of its end either.
    if want.abs() > f64::from(f32::MAX) * (1.0 - p.relative) && got.is_infinite() {
        return assert_eq!(got.is_sign_negative(), want < 0.0, "{what}({x:e})");
    }
    let error = (f64::from(got) - want).abs();
    let bound = p.relative * want.abs() + p.absolute;
    let flushed = want.abs() <= p.flushed && error <= want.abs() * (1.0 + p.relative) + 1e-45;
    assert!(error <= bound || flushed, "{what}({x:e}): {got:e} against {want:e}");
}

/// The numbers of x in the fixtures, and the functions with their files.
const FUNCTIONS: [(Activation, &str); 10] = [
    (Activation::Relu, "relu"),
    (Activation::Gelu, "gelu_tanh"),
    (Activation::Silu, "silu"),
    (Activation::GeluErf, "gelu_erf"),
    (Activation::GeluQuick, "gelu_quick"),
    (Activation::ReluSquared, "relu_squared"),
    (Activation::Sigmoid, "sigmoid"),
    (Activation::Tanh, "tanh"),
    (Activation::Softplus, "softplus"),
    (Activation::Exp, "exp"),
];

#[test]
fn activations_match_the_reference() {
    let x = fixture("x");
    for (activation, name) in FUNCTIONS {
        let want = fixture(name);
        assert_eq!(want.len(), x.len());
        let got = everywhere(&x, name, |ctx, m| activate(ctx, activation, m));
        for ((&x, &got), &want) in x.iter().zip(&got).zip(&want) {
            if x == f32::NEG_INFINITY && matches!(activation, Activation::Gelu | Activation::Silu) {
                assert!(got.is_nan(), "{name}(-inf) = {got}");
                continue;
            }
            holds(x, got, f64::from(want), &promise(activation), name);
        }
    }
}

#[test]
fn softcap_and_the_clamped_gate_match_the_reference() {
    let x = fixture("x");
    for cap in [30.0, 50.0] {
        let name = format!("softcap_{cap}");
        let got = everywhere(&x, &name, |ctx, m| softcap(ctx, cap, m).unwrap());
        let p = Promise { relative: 5e-7, absolute: 0.0, flushed: f64::from(cap) * NORMAL };
        for ((&x, &got), &want) in x.iter().zip(&got).zip(&fixture(&name)) {
            holds(x, got, f64::from(want), &p, &name);
        }
    }
    let (gates, ups, want) = (fixture("swiglu_oai_gate"), fixture("swiglu_oai_up"), fixture("swiglu_oai"));
    assert_eq!(want.len(), gates.len() * ups.len());
    let x: Vec<f32> = gates.iter().flat_map(|&gate| ups.iter().map(move |_| gate)).collect();
    let z: Vec<f32> = gates.iter().flat_map(|_| ups.iter().copied()).collect();
    let run = |ctx: &Context, m: MatMut<'_>| {
        let from = x.len() - m.rows() * m.cols(); // the rest of the rows, if it is not all of them
        let from = if m.rows() == 1 { from } else { 0 };
        let zm = MatRef::dense(&z[from..from + m.rows() * m.cols()], m.rows(), m.cols()).unwrap();
        swiglu_oai(ctx, 1.702, 7.0, m, zm).unwrap();
    };
    let got = everywhere(&x, "swiglu_oai", run);
    for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
        // The reference has 1.702 where the call has the f32 next to it.
        let alpha = (1.702 - f64::from(1.702f32)).abs() * f64::from(x[i].abs().min(104.0));
        let p = Promise { relative: 6e-7 + alpha, absolute: 0.0, flushed: 1e3 * NORMAL };
        holds(x[i], got, f64::from(want), &p, &format!("swiglu_oai with up = {}", z[i]));
    }
}

/// The functions in f64, each in a form that loses no digits.
fn exact(activation: Activation, x: f64) -> f64 {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => {
            x * logistic(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x))
        }
        Activation::Silu => x * logistic(x),
        Activation::GeluErf => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        Activation::GeluQuick => x * logistic(1.702 * x),
        Activation::ReluSquared => x.max(0.0) * x.max(0.0),
        Activation::Sigmoid => logistic(x),
        Activation::Tanh => x.tanh(),
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Exp => x.exp(),
        _ => x,
    }
}

#[test]
fn activations_hold_their_bounds_over_the_whole_range() {
    let mut random = Random::new(9);
    // Every exponent with several fractions, and a dense grid where the functions bend and end.
    let mut x: Vec<f32> = (0..255u32)
        .flat_map(|e| (0..8).map(move |i| (e << 23) | (i * 0x0f_1234)))
        .map(f32::from_bits)
        .flat_map(|x| [x, -x])
        .collect();
    x.extend((-30_000..30_000).map(|i| i as f32 * 0.005));
    x.extend(random.vec(20_000).iter().map(|x| 20.0 * x));
    for (activation, name) in FUNCTIONS {
        let got = everywhere(&x, name, |ctx, m| activate(ctx, activation, m));
        let p = promise(activation);
        for (&x, &got) in x.iter().zip(&got) {
            holds(x, got, exact(activation, f64::from(x)), &p, name);
        }
    }
}

#[test]
fn operations_of_two_matrices_are_the_activation_and_one_rounding() {
    let mut random = Random::new(10);
    for n in (1..=130).chain([1000]) {
        let (x, z) = (random.vec(3 * n), random.vec(3 * n));
        let zm = MatRef::dense(&z, 3, n).unwrap();
        let run = |what: &str, op: &dyn Fn(&Context, MatMut<'_>)| {
            let mut out: Option<Vec<f32>> = None;
            for_each_isa(|ctx| {
                let mut y = x.clone();
                op(&context(ctx.isa(), 2), MatMut::dense(&mut y, 3, n).unwrap());
                let want = out.get_or_insert_with(|| y.clone());
                assert_same_bits(&y, want, &format!("{what} of {n} at {}", ctx.isa()));
            });
            out.unwrap()
        };
        for activation in Activation::ALL {
            let act = run("activate", &|ctx, m| activate(ctx, activation, m));
            let got = run("activate_mul", &|ctx, m| activate_mul(ctx, activation, m, zm).unwrap());
            let want: Vec<f32> = act.iter().zip(&z).map(|(x, z)| x * z).collect();
            assert_same_bits(&got, &want, &format!("{activation:?} times z, {n}"));
        }
        let got = run("mul", &|ctx, m| mul(ctx, m, zm).unwrap());
        assert!((0..3 * n).all(|i| got[i].to_bits() == (x[i] * z[i]).to_bits()));
        let got = run("scale", &|ctx, m| scale(ctx, m, -0.3));
        assert!((0..3 * n).all(|i| got[i].to_bits() == (x[i] * -0.3).to_bits()));
        let got = run("add_scaled", &|ctx, m| add_scaled(ctx, m, 0.22, zm).unwrap());
        let fma = |i: usize| (f64::from(0.22f32) * f64::from(z[i]) + f64::from(x[i])) as f32;
        assert!((0..3 * n).all(|i| (got[i] - fma(i)).abs() <= f32::EPSILON * got[i].abs() / 2.0));
    }
}

#[test]
fn products_end_with_the_bits_of_a_pass_of_its_own() {
    use kvern::matmul::{matmul, matmul_workspace_bytes};
    use kvern::{Epilogue, Workspace};
    let mut random = Random::new(11);
    for (m, n, k) in [(1, 33, 40), (7, 70, 65)] {
        let (a, b) = (random.vec(m * k), random.vec(k * n));
        let (a, b) = (MatRef::dense(&a, m, k).unwrap(), MatRef::dense(&b, k, n).unwrap());
        for_each_isa(|ctx| {
            let mut ws = Workspace::new(matmul_workspace_bytes(ctx, m, n, k).unwrap()).unwrap();
            for activation in Activation::ALL {
                let (mut want, mut got) = (vec![0.0; m * n], vec![0.0; m * n]);
                let plain = Epilogue::default();
                matmul(ctx, &mut ws, a, b, MatMut::dense(&mut want, m, n).unwrap(), &plain).unwrap();
                activate(ctx, activation, MatMut::dense(&mut want, m, n).unwrap());
                let e = plain.activation(activation);
                matmul(ctx, &mut ws, a, b, MatMut::dense(&mut got, m, n).unwrap(), &e).unwrap();
                assert_same_bits(&got, &want, &format!("{activation:?} at {}", ctx.isa()));
            }
        });
    }
}

#[test]
fn bad_numbers_and_shapes_are_refused_and_change_nothing() {
    let ctx = Context::serial();
    let (start, z) = ([1.0f32; 6], [2.0f32; 6]);
    let mut x = start;
    let zm = MatRef::dense(&z, 2, 3).unwrap();
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let e = softcap(&ctx, cap, MatMut::dense(&mut x, 2, 3).unwrap()).unwrap_err();
        assert_eq!(e.to_string(), format!("cap = {cap} must be positive and finite"));
        let e = swiglu_oai(&ctx, 1.702, cap, MatMut::dense(&mut x, 2, 3).unwrap(), zm).unwrap_err();
        assert_eq!(e.to_string(), format!("limit = {cap} must be positive and finite"));
    }
    for alpha in [0.0, 0.99, -2.0, f32::NAN, f32::INFINITY] {
        let e = swiglu_oai(&ctx, alpha, 7.0, MatMut::dense(&mut x, 2, 3).unwrap(), zm).unwrap_err();
        assert_eq!(e.to_string(), format!("alpha = {alpha} must be finite and at least 1"));
    }
    type Operation<'a> = &'a dyn Fn(MatMut<'_>, MatRef<'_>) -> kvern::Result<()>;
    let operations: [Operation<'_>; 4] = [
        &|x, z| mul(&ctx, x, z),
        &|x, z| add_scaled(&ctx, x, 2.0, z),
        &|x, z| activate_mul(&ctx, Activation::Gelu, x, z),
        &|x, z| swiglu_oai(&ctx, 1.702, 7.0, x, z),
    ];
    for operation in operations {
        let wide = MatRef::dense(&z, 3, 2).unwrap();
        let e = operation(MatMut::dense(&mut x, 2, 3).unwrap(), wide).unwrap_err();
        assert!(matches!(e, Error::Shape { what: "z.rows", got: 3, want: 2, .. }), "{e}");
        let e = operation(MatMut::dense(&mut x, 2, 3).unwrap(), wide.t()).unwrap_err();
        assert!(e.to_string().starts_with("z"), "{e}");
    }
    assert_eq!(x, start);
}
