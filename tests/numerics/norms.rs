//! Norms of awkward rows against f64: large means, outliers, equal elements, the ends of f32, any eps.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::{layer_norm, rms_norm};
use kvern::{Isa, MatMut, MatRef};

/// What the outputs hold before a call.
const SENTINEL: f32 = 1.25e30;

const LENGTHS: [usize; 14] = [1, 2, 3, 15, 16, 17, 40, 127, 128, 129, 144, 768, 1000, 8192];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Norm {
    Layer,
    Rms,
}

/// One row at every tier (rows on 1 and 3 threads, apart and in place would be the same code); returns the
/// bits.
fn norm(kind: Norm, x: &[f32], gain: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let n = x.len();
    let run = |isa| {
        let mut y = vec![SENTINEL; n];
        let (x, out) = (MatRef::dense(x, 1, n).unwrap(), MatMut::dense(&mut y, 1, n).unwrap());
        match kind {
            Norm::Layer => layer_norm(&context(isa, 1), x, gain, bias, eps, out).unwrap(),
            Norm::Rms => rms_norm(&context(isa, 1), x, gain, eps, out).unwrap(),
        }
        y
    };
    let want = run(Isa::Scalar);
    for_each_isa(|ctx| {
        assert_same_bits(&run(ctx.isa()), &want, &format!("{kind:?} of {n} at {}", ctx.isa()))
    });
    want
}

/// The formula in f64, which has room for the square of any f32. The mean is taken of differences from
/// `x[0]`, which are exact where a plain sum in f64 would round. Each element with the sum of the sizes of
/// its terms.
fn oracle(kind: Norm, x: &[f32], gain: &[f32], bias: &[f32], eps: f32) -> Vec<(f64, f64)> {
    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let n = x.len() as f64;
    let mean = match kind {
        Norm::Layer => wide[0] + wide.iter().map(|x| x - wide[0]).sum::<f64>() / n,
        Norm::Rms => 0.0,
    };
    let square = wide.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n + f64::from(eps);
    // A row without deviation and without eps has no direction: zeros.
    let inv = if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() };
    let element = |i: usize| {
        let (gain, bias) = (f64::from(gain[i]), if kind == Norm::Layer { f64::from(bias[i]) } else { 0.0 });
        let (x, size) = ((wide[i] - mean) * inv, (wide[i] - mean).abs() * inv);
        (x * gain + bias, (size + if kind == Norm::Layer { 1.0 } else { 0.0 }) * gain.abs() + bias.abs())
    };
    (0..x.len()).map(element).collect()
}

/// The greatest error, in units of 2^-24 of the sizes of the terms; the least f32 is always allowed.
fn error(got: &[f32], want: &[(f64, f64)]) -> f64 {
    let error = |(&got, &(want, size)): (&f32, &(f64, f64))| {
        assert!(got.is_finite(), "{got} for {want}");
        let least = 2f64.powi(-149);
        ((f64::from(got) - want).abs() - least).max(0.0) / (size * 2f64.powi(-24) + 1e-300)
    };
    got.iter().zip(want).map(error).fold(0.0, f64::max)
}

/// Rows that have broken norms: a name and how element i of n comes about.
fn row(kind: usize, n: usize, r: &mut Random) -> (&'static str, Vec<f32>) {
    let power = |r: &mut Random, from: f64, to: f64| {
        10f64.powf(from + (to - from) * (f64::from(r.f32()) * 0.5 + 0.5)) as f32
    };
    let normal = |r: &mut Random| r.f32() + r.f32() + r.f32();
    let sign = |r: &mut Random| if r.next() & 1 << 40 == 0 { 1.0 } else { -1.0 };
    let vec = |r: &mut Random, f: &dyn Fn(usize, &mut Random) -> f32| (0..n).map(|i| f(i, r)).collect();
    match kind {
        0 => ("around zero", vec(r, &|_, r| normal(r))),
        1 => {
            let mean = power(r, -6.0, 7.0) * sign(r);
            let spread = mean * power(r, -7.0, 0.0);
            ("around a mean", vec(r, &|_, r| mean + spread * normal(r)))
        }
        2 | 3 => {
            let at = if kind == 2 { 0 } else { r.below(n) };
            let outlier = power(r, 0.0, 8.0) * sign(r);
            ("an outlier", vec(r, &|i, r| if i == at { outlier } else { 0.1 + 1e-3 * normal(r) }))
        }
        4 => {
            let x = power(r, -8.0, 8.0) * sign(r);
            ("equal but one", vec(r, &|i, _| if i == n / 3 { x * 1.001 } else { x }))
        }
        5 => {
            let x = power(r, -8.0, 8.0);
            ("neighbours", vec(r, &|_, r| f32::from_bits(x.to_bits() + (r.next() >> 60) as u32 % 2)))
        }
        6 => {
            let (x, shift) = (power(r, -4.0, 4.0), power(r, -4.0, 4.0));
            ("two values", vec(r, &|i, _| if i % 2 == 0 { x + shift } else { shift - x }))
        }
        7 => ("a ramp", vec(r, &|i, _| 10000.0 + i as f32 / 1000.0)),
        8 => ("exponents", vec(r, &|_, r| power(r, -40.0, 37.0) * sign(r))),
        _ => {
            let size = power(r, -45.0, 38.2);
            ("of one size", vec(r, &|_, r| size * r.f32()))
        }
    }
}

#[test]
fn layer_norm_keeps_a_large_mean_apart() {
    let n = 768;
    let (gain, bias) = (vec![1.0; n], vec![0.5f32; n]);
    for eps in [1e-12, 1e-5, 0.0] {
        // A row of equal elements is the bias.
        assert_eq!(norm(Norm::Layer, &vec![1000.1; n], &gain, &bias, eps), bias);
        let ramp: Vec<f32> = (0..n).map(|i| 10000.0 + i as f32 / 1000.0).collect();
        let got = norm(Norm::Layer, &ramp, &gain, &bias, eps);
        assert!(error(&got, &oracle(Norm::Layer, &ramp, &gain, &bias, eps)) < 8.0);
    }
}

#[test]
fn equal_elements_of_any_size_give_the_bias() {
    let mut r = Random::new(11);
    for n in LENGTHS {
        let (gain, bias) = (r.vec(n), r.vec(n));
        let sizes =
            [0.0, f32::from_bits(1), 1e-39, 3.3e-25, 1e-3, 1.1, 1000.1, 16_777_213.0, 2e19, 1.1e38, f32::MAX];
        for x in sizes {
            for eps in [0.0, 1e-40, 1e-12, 1e-5] {
                assert_eq!(
                    norm(Norm::Layer, &vec![-x; n], &gain, &bias, eps),
                    bias,
                    "{n} times {x}, eps {eps}"
                );
            }
        }
    }
}

#[test]
fn awkward_rows_agree_with_f64() {
    let mut r = Random::new(12);
    let mut worst = [0.0f64; 2];
    for round in 0..600 {
        let n = LENGTHS[round % LENGTHS.len()];
        let (name, x) = row(round % 10, n, &mut r);
        let eps = [0.0, 1e-12, 1e-6, 1e-5, 1.0, 1e-40][r.below(6)];
        let gain = r.vec(n);
        let bias: Vec<f32> = r.vec(n).iter().map(|b| b * [0.0, 1e-3, 1.0][round % 3]).collect();
        for (i, kind) in [Norm::Layer, Norm::Rms].into_iter().enumerate() {
            let got = norm(kind, &x, &gain, &bias, eps);
            let e = error(&got, &oracle(kind, &x, &gain, &bias, eps));
            worst[i] = worst[i].max(e);
            // Layer norm compensates its sums; a lane of rms norm rounds n / 16 times, by half an ulp at
            // most, and the root halves that.
            let most = if kind == Norm::Layer { 8.0 } else { 6.0 + n as f64 / 32.0 };
            assert!(e <= most, "{kind:?} of {n} elements, {name}, eps {eps}: {e} units of 2^-24");
        }
    }
    eprintln!("worst errors in units of 2^-24: layer norm {}, rms norm {}", worst[0], worst[1]);
}

#[test]
fn norms_reach_the_ends_of_f32() {
    let mut r = Random::new(13);
    for n in [1, 5, 16, 33, 768] {
        let (gain, bias) = (r.vec(n), r.vec(n));
        // Whole mantissas of 24 bits would lose some as subnormals: 8 bits and a range of 2^8 stay exact.
        let x: Vec<f32> = (0..n).map(|_| ((r.below(511) as f32) - 255.0) / 256.0).collect();
        for kind in [Norm::Layer, Norm::Rms] {
            for eps in [0.0f32, 2f32.powi(-17)] {
                let want = norm(kind, &x, &gain, &bias, eps);
                for power in (-141..=127).step_by(9).chain([-141, -63, -64, 62, 63, 64, 127]) {
                    let times = |x: f32, p: i32| (f64::from(x) * 2f64.powi(p)) as f32;
                    let scaled: Vec<f32> = x.iter().map(|&x| times(x, power)).collect();
                    let eps_scaled = times(eps, 2 * power);
                    if eps_scaled.is_infinite()
                        || f64::from(eps_scaled) != f64::from(eps) * 2f64.powi(2 * power)
                    {
                        continue;
                    }
                    let got = norm(kind, &scaled, &gain, &bias, eps_scaled);
                    assert_same_bits(&got, &want, &format!("{kind:?} of {n} times 2^{power}, eps {eps}"));
                }
            }
        }
    }
    for x in [2e19f32, 1e38, f32::MAX, 1e-25, 1e-40, f32::from_bits(1)] {
        for n in [1, 7, 64, 1000] {
            let got = norm(Norm::Rms, &vec![x; n], &vec![3.0; n], &[], 0.0);
            assert!(got.iter().all(|y| (y - 3.0).abs() <= 1e-5), "{x} times {n}: {}", got[0]);
            let mut signs = vec![x; n];
            signs.iter_mut().step_by(2).for_each(|x| *x = -*x);
            let got = norm(Norm::Layer, &signs, &vec![1.0; n], &vec![0.0; n], 0.0);
            let want = oracle(Norm::Layer, &signs, &vec![1.0; n], &vec![0.0; n], 0.0);
            assert!(error(&got, &want) < 8.0, "{x} times {n} with signs: {}", got[0]);
        }
    }
    assert_eq!(norm(Norm::Rms, &[0.0; 20], &[1.0; 20], &[], 0.0), [0.0; 20]);
}

#[test]
fn infinities_and_nan_fill_a_row_of_layer_norm() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (n, at) in [(1, 0), (20, 0), (20, 19), (300, 140)] {
            for others in [0.0, 1.0, 1e38, 1e-40] {
                let mut x = vec![others; n];
                x[at] = bad;
                let y = norm(Norm::Layer, &x, &vec![1.0; n], &vec![0.0; n], 1e-5);
                assert!(y.iter().all(|y| y.is_nan()), "{bad} at {at} of {n}: {y:?}");
                let y = norm(Norm::Rms, &x, &vec![1.0; n], &[], 1e-5);
                // x / sqrt(inf): 0, and inf / inf is NaN.
                let finite = |y: f32| if bad.is_nan() { y.is_nan() } else { y == 0.0 };
                assert!((0..n).all(|i| if i == at { y[i].is_nan() } else { finite(y[i]) }), "{bad}: {y:?}");
            }
        }
    }
}
