//! Norms with options: against values that were computed elsewhere (transformers in f64, rounded once),
//! against f64 at every length, and against what they are made of; bad input.

use crate::support::safetensors::Tensors;
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::{NormKind, NormOptions, activate_mul, layer_norm, norm, rms_norm};
use kvern::{Activation, Context, Error, Isa, MatMut, MatRef};

const SENTINEL: f32 = 1.25e30;
const KINDS: [NormKind; 4] = [NormKind::Rms, NormKind::Layer, NormKind::L2, NormKind::Unit];

/// A norm of rows of n at every tier, alone and on 3 threads, into rows with gaps that stay; the bits of the
/// scalar tier.
fn everywhere(options: &NormOptions<'_>, x: &[f32], n: usize, what: &str) -> Vec<f32> {
    let rows = x.len() / n;
    let run = |ctx: &Context| {
        let mut y = vec![SENTINEL; rows * (n + 3)];
        let out = MatMut::new(&mut y, rows, n, n + 3).unwrap();
        norm(ctx, options, MatRef::dense(x, rows, n).unwrap(), out).unwrap();
        y
    };
    let want = run(&context(Isa::Scalar, 1));
    for_each_isa(|ctx| {
        for threads in [1, 3] {
            assert_same_bits(&run(&context(ctx.isa(), threads)), &want, &format!("{what} at {}", ctx.isa()));
        }
    });
    let gaps = |i: usize| i % (n + 3) >= n;
    assert!((0..want.len()).all(|i| gaps(i) == (want[i] == SENTINEL)), "{what}: gaps");
    want.chunks_exact(n + 3).flat_map(|row| row[..n].to_vec()).collect()
}

/// The formula in f64: elements with the sizes that their errors are relative to.
fn oracle(kind: NormKind, x: &[f64], eps: f64, gain: &dyn Fn(usize) -> f64) -> Vec<(f64, f64)> {
    let n = x.len() as f64;
    let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
    let sum: f64 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
    let root = match kind {
        NormKind::L2 => (sum + eps).sqrt(),
        NormKind::Unit => sum.sqrt().max(eps),
        _ => (sum / n + eps).sqrt(),
    };
    let shift = if kind == NormKind::Layer { 1.0 } else { 0.0 };
    let of = |(i, x): (usize, &f64)| {
        let d = (x - mean) / root;
        (d * gain(i), (d.abs() + shift) * gain(i).abs())
    };
    x.iter().enumerate().map(of).collect()
}

#[test]
fn norms_match_the_reference() {
    let t = Tensors::of("norms");
    let (x, gate) = (t.f32("x"), t.f32("gate"));
    let z = MatRef::dense(&gate, 9, 48).unwrap();
    let plus_one: Vec<f32> = t.f32("rms_gain_plus_one/weight").iter().map(|w| 1.0 + w).collect();
    let weight = |case: &str| t.f32(&format!("{case}/weight"));
    let cases = [
        ("rms", NormOptions::new(NormKind::Rms, 1e-6).gain(&weight("rms").leak()[..])),
        ("rms_gain_plus_one", NormOptions::new(NormKind::Rms, 1e-6).gain(&plus_one)),
        ("rms_no_gain", NormOptions::new(NormKind::Rms, 1e-6)),
        (
            "layer_norm",
            NormOptions::new(NormKind::Layer, 1e-12)
                .gain(weight("layer_norm").leak())
                .bias(t.f32("layer_norm/bias").leak()),
        ),
        (
            "layer_norm_no_bias",
            NormOptions::new(NormKind::Layer, 1e-5).gain(weight("layer_norm_no_bias").leak()),
        ),
        (
            "norm_then_silu_gate",
            NormOptions::new(NormKind::Rms, 1e-6)
                .gain(weight("norm_then_silu_gate").leak())
                .gate(Activation::Silu, z),
        ),
        (
            "norm_then_sigmoid_gate",
            NormOptions::new(NormKind::Rms, 1e-5)
                .gain(weight("norm_then_sigmoid_gate").leak())
                .gate(Activation::Sigmoid, z),
        ),
        (
            "silu_gate_then_norm",
            NormOptions::new(NormKind::Rms, 1e-5)
                .gain(weight("silu_gate_then_norm").leak())
                .gate_first(Activation::Silu, z),
        ),
        (
            "silu_gate_then_norm_3_groups",
            NormOptions::new(NormKind::Rms, 1e-5)
                .gain(weight("silu_gate_then_norm_3_groups").leak())
                .gate_first(Activation::Silu, z)
                .groups(3),
        ),
        (
            "norm_2_groups_then_silu_gate",
            NormOptions::new(NormKind::Rms, 1e-5)
                .gain(weight("norm_2_groups_then_silu_gate").leak())
                .gate(Activation::Silu, z)
                .groups(2),
        ),
    ];
    for (name, options) in &cases {
        let got = everywhere(options, &x, 48, name);
        let mut worst = 0.0f64;
        for (i, (&got, &want)) in got.iter().zip(&t.f32(&format!("{name}/y"))).enumerate() {
            // Layer norm takes differences: relative to one more than the element.
            let size = f64::from(want.abs()) + if name.starts_with("layer") { 1.0 } else { 0.0 };
            // A gate whose exponential leaves the range is 0.
            let error = ((f64::from(got) - f64::from(want)).abs() - 1e-36).max(0.0) / (size + 1e-38);
            assert!(error < 1.2e-6, "{name}: element {i}: {got:e} for {want:e}");
            worst = worst.max(error);
        }
        eprintln!("{name}: relative error {worst:.1e}");
    }
}

#[test]
fn lengths_match_the_reference() {
    let t = Tensors::of("pooling");
    let x = t.f32("rows");
    for (name, options) in [
        ("l2_sum_eps", NormOptions::new(NormKind::L2, 1e-6)),
        ("l2_max_eps", NormOptions::new(NormKind::Unit, 1e-12)),
    ] {
        let got = everywhere(&options, &x, 40, name);
        for (i, (&got, &want)) in got.iter().zip(&t.f32(name)).enumerate() {
            let error = (f64::from(got) - f64::from(want)).abs();
            assert!(error <= 5e-7 * f64::from(want.abs()), "{name}: element {i}: {got:e} for {want:e}");
        }
    }
}

#[test]
fn norms_of_any_length_agree_with_f64_and_with_their_parts() {
    let mut r = Random::new(20);
    for n in (1..=130).chain([1000]) {
        let (rows, groups) = (3, [1, 2, 5][n % 3]);
        let width = n * groups;
        let scale = [1.0, 1e-3, 1e4][n % 3];
        let x: Vec<f32> = r.vec(rows * width).iter().map(|x| x * scale).collect();
        let (gain, bias, z) = (r.vec(width), r.vec(width), r.vec(rows * width));
        let zm = MatRef::dense(&z, rows, width).unwrap();
        for kind in KINDS {
            let what = format!("{kind:?} of {groups} x {n}");
            let eps = [0.0, 1e-6, 1e-2][n % 3];
            let plain = NormOptions::new(kind, eps).groups(groups);
            let got = everywhere(&plain, &x, width, &what);
            // The groups are rows of their own.
            let alone = everywhere(&NormOptions::new(kind, eps), &x, n, &what);
            assert_same_bits(&got, &alone, &what);
            let ones = vec![1.0; width];
            assert_same_bits(&got, &everywhere(&plain.gain(&ones), &x, width, &what), &what);
            let scaled = everywhere(&plain.gain(&gain), &x, width, &what);
            for row in 0..rows * groups {
                let wide: Vec<f64> = x[row * n..][..n].iter().map(|&x| f64::from(x)).collect();
                let factor = |i: usize| f64::from(gain[row % groups * n + i]);
                let want = oracle(kind, &wide, f64::from(eps), &factor);
                for (i, (want, size)) in want.into_iter().enumerate() {
                    let got = f64::from(scaled[row * n + i]);
                    let units = if kind == NormKind::Layer { 8.0 } else { n as f64 / 32.0 + 6.0 };
                    // One element without eps has no deviation: zeros.
                    let want = if want.is_nan() { 0.0 } else { want };
                    let bound = units * size * 2f64.powi(-24) + 1e-37;
                    assert!((got - want).abs() <= bound || size.is_nan(), "{what}, {i}: {got} for {want}");
                }
            }
            // A gain and a bias of one group serve all.
            let repeated: Vec<f32> = gain[..n].iter().copied().cycle().take(width).collect();
            let shared = everywhere(&plain.gain(&gain[..n]), &x, width, &what);
            assert_same_bits(&shared, &everywhere(&plain.gain(&repeated), &x, width, &what), &what);
            if kind == NormKind::Layer {
                let zeros = vec![0.0; width];
                let with = everywhere(&plain.gain(&gain).bias(&zeros), &x, width, &what);
                assert!(scaled.iter().zip(&with).all(|(a, b)| a == b), "{what}");
                let of_ones = everywhere(&plain.gain(&ones).bias(&bias), &x, width, &what);
                assert_same_bits(&everywhere(&plain.bias(&bias), &x, width, &what), &of_ones, &what);
            }
            // A gate before or after is the operation of its own.
            for activation in [Activation::Silu, Activation::Sigmoid, Activation::Identity] {
                let ctx = context(Isa::Scalar, 1);
                let gated = |x: &[f32]| {
                    let mut y = z.clone();
                    let by = MatRef::dense(x, rows, width).unwrap();
                    activate_mul(&ctx, activation, MatMut::dense(&mut y, rows, width).unwrap(), by).unwrap();
                    y
                };
                let after = everywhere(&plain.gain(&gain).gate(activation, zm), &x, width, &what);
                assert_same_bits(&after, &gated(&scaled), &format!("{what}, gate after"));
                let before = everywhere(&plain.gain(&gain).gate_first(activation, zm), &x, width, &what);
                let want = everywhere(&plain.gain(&gain), &gated(&x), width, &what);
                assert_same_bits(&before, &want, &format!("{what}, gate before"));
            }
        }
        let ctx = Context::serial();
        let xm = MatRef::dense(&x, rows, width).unwrap();
        let mut y = vec![0.0; rows * width];
        rms_norm(&ctx, xm, &gain, 1e-5, MatMut::dense(&mut y, rows, width).unwrap()).unwrap();
        let rms = NormOptions::new(NormKind::Rms, 1e-5).gain(&gain);
        assert_same_bits(&everywhere(&rms, &x, width, "rms"), &y, "rms_norm");
        layer_norm(&ctx, xm, &gain, &bias, 1e-5, MatMut::dense(&mut y, rows, width).unwrap()).unwrap();
        let layer = NormOptions::new(NormKind::Layer, 1e-5).gain(&gain).bias(&bias);
        assert_same_bits(&everywhere(&layer, &x, width, "layer"), &y, "layer_norm");
    }
}

#[test]
fn lengths_reach_the_ends_of_f32() {
    for n in [1, 5, 16, 33, 130] {
        let of = |options: NormOptions<'_>, x: &[f32]| everywhere(&options, x, n, "ends");
        let want = (1.0 / (n as f64).sqrt()) as f32;
        for x in [f32::MAX, 1e38, 2e19, 1.0, 1e-20, 1e-38, f32::from_bits(1)] {
            for kind in [NormKind::L2, NormKind::Unit] {
                let got = of(NormOptions::new(kind, 0.0), &vec![-x; n]);
                assert!(got.iter().all(|y| (y + want).abs() <= 1e-6 * want), "{kind:?} of {x}: {}", got[0]);
            }
        }
        for kind in KINDS {
            for eps in [0.0, 1e-40, 1e-12, f32::MAX] {
                assert_eq!(of(NormOptions::new(kind, eps), &vec![0.0; n]), vec![0.0; n], "{kind:?}, {eps}");
            }
        }
        // Below the floor the row is divided by it.
        for floor in [1e-30, 1e-12, 3.0, 1e30] {
            let mut x = vec![0.0; n];
            x[n / 2] = floor / 8.0;
            let got = of(NormOptions::new(NormKind::Unit, floor), &x);
            assert!((got[n / 2] - 0.125).abs() <= 1e-6, "{floor}: {}", got[n / 2]);
        }
        // One NaN makes all of a row NaN, with a floor too; x / inf is 0, and inf / inf NaN.
        for kind in [NormKind::Rms, NormKind::L2, NormKind::Unit] {
            let mut x = vec![1.0; n];
            x[n / 2] = f32::NAN;
            assert!(of(NormOptions::new(kind, 1e9), &x).iter().all(|y| y.is_nan()), "{kind:?}");
            x[n / 2] = f32::INFINITY;
            let got = of(NormOptions::new(kind, 1e-6), &x);
            assert!((0..n).all(|i| if i == n / 2 { got[i].is_nan() } else { got[i] == 0.0 }), "{kind:?}");
        }
    }
}

#[test]
fn bad_options_are_refused_and_change_nothing() {
    let (ctx, x, mut y) = (Context::serial(), [1.0f32; 12], [SENTINEL; 12]);
    let xm = MatRef::dense(&x, 2, 6).unwrap();
    let mut refuse = |options: NormOptions<'_>| {
        norm(&ctx, &options, xm, MatMut::dense(&mut y, 2, 6).unwrap()).unwrap_err().to_string()
    };
    let rms = NormOptions::new(NormKind::Rms, 1e-6);
    let layer = NormOptions::new(NormKind::Layer, 1e-6);
    assert_eq!(refuse(rms.groups(0)), "x.cols = 6 must be a multiple of groups = 0");
    assert_eq!(refuse(rms.groups(4)), "x.cols = 6 must be a multiple of groups = 4");
    assert_eq!(refuse(rms.gain(&x[..5])), "gain.len = 5 must equal x.cols = 6");
    assert_eq!(refuse(rms.gain(&x[..2]).groups(2)), "gain.len = 2 must equal x.cols = 6");
    assert_eq!(refuse(layer.bias(&x[..7])), "bias.len = 7 must equal x.cols = 6");
    assert_eq!(refuse(rms.bias(&x[..6])), "bias = one of a norm without mean must be left out");
    let narrow = MatRef::dense(&x, 2, 5).unwrap();
    assert_eq!(refuse(rms.gate(Activation::Silu, narrow)), "gate.cols = 5 must equal the output's cols = 6");
    let turned = MatRef::dense(&x, 6, 2).unwrap().t();
    assert!(refuse(rms.gate_first(Activation::Silu, turned)).starts_with("gate = a transposed view"));
    for eps in [-1e-6, f32::NAN, f32::INFINITY] {
        let want = format!("eps = {eps} must be finite and not negative");
        for kind in KINDS {
            assert_eq!(refuse(NormOptions::new(kind, eps)), want);
        }
    }
    let e = norm(&ctx, &rms, turned, MatMut::dense(&mut y, 2, 6).unwrap()).unwrap_err();
    assert!(matches!(e, Error::Option { what: "x", .. }), "{e}");
    let e = norm(&ctx, &rms, xm, MatMut::dense(&mut y, 3, 4).unwrap()).unwrap_err();
    assert!(matches!(e, Error::Shape { what: "x.rows", got: 2, want: 3, .. }), "{e}");
    assert_eq!(y, [SENTINEL; 12]);
}
