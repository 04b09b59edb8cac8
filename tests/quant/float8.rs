//! Floats of 8 bits: every code, quantisation, products and files against their definition.

use crate::support::{Random, assert_same_bits, context, for_each_isa, map, product, temp};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::quant::import::{Float8, Float8Kind, Mxfp8, quantize_float8, quantize_mxfp8};
use kvern::quant::{
    Compute, Expert, ExpertOptions, PackedWeights, Product, QuantizedRows, WeightFormat,
    experts_workspace_bytes, multiply_experts, multiply_many, workspace_bytes_many,
};
use kvern::{Context, Epilogue, Isa, MatMut, MatRef, Workspace};

const KINDS: [Float8Kind; 2] = [Float8Kind::E4m3, Float8Kind::E5m2];

/// The number of a code from its fields, in f64.
fn value(kind: Float8Kind, code: u8) -> f64 {
    let (mantissa, bias) = if kind == Float8Kind::E4m3 { (3, 7) } else { (2, 15) };
    let (e, m) = (i32::from(code & 0x7f) >> mantissa, f64::from(code & ((1 << mantissa) - 1)));
    let m = m / f64::from(1 << mantissa);
    let magnitude = if e == 0 { m * 2f64.powi(1 - bias) } else { (1.0 + m) * 2f64.powi(e - bias) };
    let top = (1 << (7 - mantissa)) - 1;
    let magnitude = match kind {
        Float8Kind::E4m3 if code & 0x7f == 0x7f => f64::NAN,
        Float8Kind::E5m2 if e == top && m == 0.0 => f64::INFINITY,
        Float8Kind::E5m2 if e == top => f64::NAN,
        _ => magnitude,
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

fn is_weight(kind: Float8Kind, code: u8) -> bool {
    value(kind, code).is_finite()
}

/// Codes that are weights, all of them among the first 256.
fn codes(r: &mut Random, kind: Float8Kind, len: usize) -> Vec<u8> {
    let mut all: Vec<u8> = (0..=255).filter(|&code| is_weight(kind, code)).collect();
    let known = all.len();
    all.extend((known..len).map(|_| all[r.below(known)]).collect::<Vec<_>>());
    all.truncate(len);
    all
}

#[test]
fn every_code_has_its_value_and_every_value_its_code() {
    for kind in KINDS {
        for code in 0..=255u8 {
            let (got, want) = (kind.value(code), value(kind, code));
            assert!(f64::from(got) == want || got.is_nan() && want.is_nan(), "{kind:?} {code:#x}: {got}");
            assert_eq!(got.is_sign_negative(), code >= 0x80);
            if is_weight(kind, code) {
                assert_eq!(kind.code(got), code, "{kind:?} {code:#x}");
            }
        }
        assert_eq!(
            (kind.code(f32::MAX), kind.code(-1e30)),
            (kind.code(kind.largest()), kind.code(-kind.largest()))
        );
        assert_eq!(value(kind, kind.code(kind.largest())), f64::from(kind.largest()));
        assert_eq!(
            (kind.code(0.0), kind.code(-0.0), kind.code(1e-30), kind.code(-1e-30)),
            (0, 0x80, 0, 0x80)
        );
    }
}

/// Rounded to the nearest, ties to even: against a search over all codes.
#[test]
fn rounding_is_to_the_nearest() {
    let mut r = Random::new(81);
    for kind in KINDS {
        let mut points: Vec<f32> =
            (0..4000).map(|_| (r.f32() - 0.5) * 2f32.powi(r.below(24) as i32 - 14)).collect();
        // Halfway between two neighbours, and next to it.
        for code in 0..=255u8 {
            if code & 0x7f != 0x7f && is_weight(kind, code) && is_weight(kind, code + 1) {
                let middle = ((value(kind, code) + value(kind, code + 1)) / 2.0) as f32;
                points.extend([middle, middle.next_up(), middle.next_down()]);
            }
        }
        for x in points {
            let distance = |code: u8| (value(kind, code) - f64::from(x)).abs();
            let candidates =
                (0..=255u8).filter(|&code| is_weight(kind, code) && (code >= 0x80) == x.is_sign_negative());
            let best = candidates.clone().map(distance).fold(f64::INFINITY, f64::min);
            let mut nearest = candidates.filter(|&code| distance(code) == best).collect::<Vec<_>>();
            nearest.sort_by_key(|code| code & 1);
            assert_eq!(kind.code(x), nearest[0], "{kind:?} {x:e}");
        }
    }
}

/// A matrix in all the ways that files have it: `(name, packed, its weights in f32)`.
fn matrices(r: &mut Random, (n, k): (usize, usize)) -> Vec<(String, PackedWeights, Vec<f32>)> {
    let ctx = context(Isa::Scalar, 2);
    let mut all = Vec::new();
    for kind in KINDS {
        let codes = codes(r, kind, n * k);
        for tile in [(n, k), (1, k), (128, 128), (3, 32), (1, 64), (usize::MAX, usize::MAX)] {
            let across = k.div_ceil(tile.1);
            let scales = r.vec(n.div_ceil(tile.0) * across);
            let w = Float8 { n, k, kind, tile, codes: &codes, scales: &scales };
            let packed = PackedWeights::from_float8_on(&ctx, &w).unwrap();
            let wide = (0..n * k)
                .map(|at| kind.value(codes[at]) * scales[at / k / tile.0 * across + at % k / tile.1]);
            all.push((format!("{kind:?} {tile:?}"), packed, wide.collect()));
        }
        let scales: Vec<u8> = (0..n * k / 32).map(|_| 110 + r.below(30) as u8).collect();
        let packed =
            PackedWeights::from_mxfp8_on(&ctx, &Mxfp8 { n, k, kind, codes: &codes, scales: &scales });
        let wide = (0..n * k).map(|at| kind.value(codes[at]) * 2f32.powi(i32::from(scales[at / 32]) - 127));
        all.push((format!("{kind:?} mx"), packed.unwrap(), wide.collect()));
    }
    all
}

/// `A * W^T` of widened weights, by the f32 product.
fn exact(a: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f32> {
    let ctx = Context::serial();
    let mut c = vec![f32::NAN; m * n];
    let mut ws = Workspace::new(matmul_workspace_bytes(&ctx, m, n, k).unwrap()).unwrap();
    let (a, b) = (MatRef::dense(a, m, k).unwrap(), MatRef::dense(w, n, k).unwrap().t());
    matmul(&ctx, &mut ws, a, b, MatMut::dense(&mut c, m, n).unwrap(), &Epilogue::default()).unwrap();
    c
}

#[test]
fn products_have_the_bits_of_widened_weights_whatever_compute_says() {
    let mut r = Random::new(82);
    for (m, n, k) in [(1, 5, 96), (2, 40, 384), (3, 130, 160), (9, 33, 256), (40, 17, 128), (1, 200, 1056)] {
        for (name, w, wide) in matrices(&mut r, (n, k)) {
            assert_eq!((w.n(), w.k(), w.format(), w.takes_int8()), (n, k, None, false));
            let mut row = vec![f32::NAN; k];
            for i in 0..n {
                w.dequantize_row(i, &mut row).unwrap();
                assert_same_bits(&row, &wide[i * k..(i + 1) * k], &name);
            }
            let x = r.vec(m * k);
            let want = exact(&x, &wide, (m, n, k));
            let a = MatRef::dense(&x, m, k).unwrap();
            for_each_isa(|one| {
                for threads in [1, 3] {
                    let ctx = context(one.isa(), threads);
                    for compute in [Compute::Int8, Compute::F32] {
                        let mut c = vec![f32::NAN; m * n];
                        product(&ctx, &w, compute, a, &Epilogue::default(), &mut c);
                        assert_same_bits(&c, &want, &format!("{name} {m}x{n}x{k} at {}", ctx.isa()));
                    }
                }
            });
        }
    }
}

/// Products that share activations, a gate of two kinds of weights, experts: floats of 8 bits beside blocks.
#[test]
fn floats_and_blocks_share_a_call() {
    // One row, tiles of packed weights, and weights that are unpacked or widened first.
    for m in [1, 5, 40, 130] {
        share_a_call(m);
    }
}

fn share_a_call(m: usize) {
    let mut r = Random::new(83);
    let (n, k) = (96, 128);
    let x = r.vec(m * k);
    let a = MatRef::dense(&x, m, k).unwrap();
    let dense = r.vec(n * k);
    let blocks = PackedWeights::quantize(WeightFormat::Q8_0, MatRef::dense(&dense, n, k).unwrap()).unwrap();
    let (_, float, _) = matrices(&mut r, (n, k)).swap_remove(2);
    let (_, down, _) = matrices(&mut r, (k, n)).swap_remove(6);
    for_each_isa(|ctx| {
        for compute in [Compute::Int8, Compute::F32] {
            let one = |w: &PackedWeights| {
                let mut c = vec![f32::NAN; m * n];
                product(ctx, w, compute, a, &Epilogue::default(), &mut c);
                c
            };
            let want = [one(&blocks), one(&float)];
            let gated: Vec<f32> = want[0].iter().zip(&want[1]).map(|(x, y)| x * y).collect();
            let mut c = [(); 4].map(|()| vec![f32::NAN; m * n]);
            let bytes = workspace_bytes_many(ctx, m, compute, &[&blocks, &float]).unwrap();
            let mut ws = Workspace::new(bytes).unwrap();
            let [c0, c1, c2, c3] = &mut c;
            let mut products = [
                Product::new(&blocks, MatMut::dense(c0, m, n).unwrap()),
                Product::new(&float, MatMut::dense(c1, m, n).unwrap()),
                Product::new(&blocks, MatMut::dense(c2, m, n).unwrap()),
                Product::new(&float, MatMut::dense(c3, m, n).unwrap()),
            ];
            products[2].up = Some(&float);
            products[3].up = Some(&blocks);
            multiply_many(ctx, &mut ws, compute, a, &mut products).unwrap();
            for (got, want) in c.iter().zip([&want[0], &want[1], &gated, &gated]) {
                assert_same_bits(got, want, "together");
            }

            // Two experts, of which one mixes formats; every token has both.
            let experts =
                [Expert::new(&float, Some(&blocks), &down), Expert::new(&blocks, Some(&float), &down)];
            let options = ExpertOptions::new(compute, kvern::Activation::Silu);
            let bytes = experts_workspace_bytes(ctx, &options, &experts, m, 2).unwrap();
            let mut ws = Workspace::new(bytes).unwrap();
            let (indices, weights) = ([0u32, 1].repeat(m), [0.5f32, 0.25].repeat(m));
            let mut out = vec![0.0; m * k];
            let to = MatMut::dense(&mut out, m, k).unwrap();
            multiply_experts(ctx, &mut ws, &options, &experts, a, &indices, &weights, to).unwrap();
            let mut sums = vec![0.0; m * k];
            for (expert, by) in experts.iter().zip([0.5, 0.25]) {
                let mut between = vec![f32::NAN; m * n];
                let mut ws = Workspace::new(1 << 24).unwrap();
                let (to, up) = (MatMut::dense(&mut between, m, n).unwrap(), expert.up.unwrap());
                let act = Epilogue::default().activation(kvern::Activation::Silu);
                expert.gate.multiply_gated(ctx, &mut ws, compute, a, up, to, &act).unwrap();
                let mut result = vec![f32::NAN; m * k];
                let between = MatRef::dense(&between, m, n).unwrap();
                product(ctx, expert.down, compute, between, &Epilogue::default(), &mut result);
                sums.iter_mut().zip(&result).for_each(|(s, x)| *s = libm::fmaf(by, *x, *s));
            }
            assert_same_bits(&out, &sums, "experts");
        }
    });
}

#[test]
fn what_is_no_weight_is_refused() {
    let (n, k) = (2, 64);
    let good = vec![0u8; n * k];
    let said =
        |w: &Float8<'_, f32>| PackedWeights::from_float8_on(&Context::serial(), w).unwrap_err().to_string();
    let w = |codes, scales, tile| Float8 { n, k, kind: Float8Kind::E4m3, tile, codes, scales };
    assert_eq!(said(&w(&good, &[1.0], (0, 64))), "tile.0 = 0 must be at least 1");
    assert_eq!(said(&w(&good, &[1.0], (1, 48))), "tile.1 = 48 must be a multiple of 32, or k");
    assert_eq!(said(&w(&good, &[1.0], (1, 0))), "tile.1 = 0 must be a multiple of 32, or k");
    assert_eq!(said(&w(&good[1..], &[1.0], (2, 64))), "codes.len = 127 must equal n * k = 128");
    let scales = "scales.len = 1 must equal ceil(n / tile.0) * ceil(k / tile.1) = 4";
    assert_eq!(said(&w(&good, &[1.0], (1, 32))), scales);
    let odd = Float8 { k: 48, ..w(&good, &[1.0], (2, 64)) };
    assert_eq!(said(&odd), "k = 48 must be a multiple of 32");
    let mut bad = good.clone();
    bad[67] = 0xff;
    assert_eq!(said(&w(&bad, &[1.0], (2, 64))), "code = 0xff at (1, 3) must be a finite number");
    let infinite = Float8 { kind: Float8Kind::E5m2, codes: &[0x7c; 128], ..w(&good, &[1.0], (2, 64)) };
    assert_eq!(said(&infinite), "code = 0x7c at (0, 0) must be a finite number");
    let mx = |codes: &[u8], scales: &[u8]| {
        let w = Mxfp8 { n, k, kind: Float8Kind::E4m3, codes, scales };
        PackedWeights::from_mxfp8_on(&Context::serial(), &w).unwrap_err().to_string()
    };
    assert_eq!(mx(&good, &[0; 3]), "scales.len = 3 must equal n * (k / 32) = 4");
    assert_eq!(mx(&bad, &[0; 4]), "code = 0xff at (1, 3) must be a finite number");

    let nan = [1.0, f32::NAN].repeat(32);
    let row = MatRef::dense(&nan, 1, 64).unwrap();
    let refused = "w = NaN or infinity at (0, 1) must be finite";
    assert_eq!(quantize_float8(Float8Kind::E4m3, (1, 64), row).unwrap_err().to_string(), refused);
    assert_eq!(quantize_mxfp8(Float8Kind::E4m3, row).unwrap_err().to_string(), refused);

    // Rows that were quantised hold no floats.
    let w = PackedWeights::from_float8_on(&Context::serial(), &w(&good, &[1.0], (2, 64))).unwrap();
    let rows = QuantizedRows::new(&Context::serial(), 1, k).unwrap();
    let mut ws = Workspace::new(1 << 20).unwrap();
    let mut c: [f32; 0] = [];
    let c = MatMut::dense(&mut c, 0, n).unwrap();
    let e = rows.multiply(&Context::serial(), &mut ws, &w, c, &Epilogue::default()).unwrap_err();
    assert_eq!(e.to_string(), "weights = floats of 8 bits must be blocks or groups, which take int8");
    assert!(w.to_blocks(&mut []).is_err());
}

/// What is quantised has the largest error that its definition allows, at most.
#[test]
fn quantised_weights_are_near() {
    let mut r = Random::new(84);
    let (n, k) = (40, 320);
    let mut x = r.vec(n * k);
    x[..64].fill(0.0);
    x[320..384].iter_mut().for_each(|x| *x *= 1e-38);
    let w = MatRef::dense(&x, n, k).unwrap();
    for (kind, eps) in [(Float8Kind::E4m3, 1.0 / 16.0), (Float8Kind::E5m2, 1.0 / 8.0)] {
        for tile in [(n, k), (1, k), (16, 128), (1, 32)] {
            let (codes, scales) = quantize_float8(kind, tile, w).unwrap();
            let t = Float8 { n, k, kind, tile, codes: &codes, scales: &scales };
            let p = PackedWeights::from_float8_on(&Context::serial(), &t).unwrap();
            let mut row = vec![0.0; k];
            for i in 0..n {
                p.dequantize_row(i, &mut row).unwrap();
                for j in 0..k {
                    let scale = scales[i / tile.0 * k.div_ceil(tile.1) + j / tile.1];
                    let (got, want) = (f64::from(row[j]), f64::from(x[i * k + j]));
                    // Half of the last place, or half of the least number.
                    let least = value(kind, 1) * f64::from(scale) / 2.0;
                    let bound = (want.abs() * eps).max(least) * 1.000001 + 1e-45;
                    assert!((got - want).abs() <= bound, "{kind:?} {tile:?} ({i}, {j}): {got:e} {want:e}");
                }
            }
        }
        let (codes, scales) = quantize_mxfp8(kind, w).unwrap();
        let p = PackedWeights::from_mxfp8_on(
            &Context::serial(),
            &Mxfp8 { n, k, kind, codes: &codes, scales: &scales },
        );
        let (p, mut row) = (p.unwrap(), vec![0.0; k]);
        for i in 0..n {
            p.dequantize_row(i, &mut row).unwrap();
            for (b, x) in x[i * k..(i + 1) * k].chunks(32).enumerate() {
                let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let scale = 2f64.powi(i32::from(scales[i * k / 32 + b]) - 127);
                assert!(f64::from(largest) <= scale * 2.0 * f64::from(kind.largest()));
                for (got, want) in row[32 * b..32 * b + 32].iter().zip(x) {
                    let (got, want) = (f64::from(*got), f64::from(*want));
                    // Beyond the largest number codes saturate, by less than an eighth of a quarter.
                    let top = scale * f64::from(kind.largest());
                    let bound = (want.abs() * eps).max(value(kind, 1) * scale / 2.0).max(want.abs() - top);
                    assert!((got - want).abs() <= bound * 1.000001 + 1e-45, "{kind:?}: {got:e} {want:e}");
                }
            }
        }
    }
}

#[test]
fn files_hold_them() {
    let mut r = Random::new(85);
    let path = temp("quant-float8");
    for (name, w, wide) in matrices(&mut r, (20, 288)) {
        w.save(&path).unwrap();
        for again in [PackedWeights::load(&path).unwrap(), PackedWeights::from_mapped(&map(&path)).unwrap()] {
            assert_eq!((again.format(), again.takes_int8(), again.bytes()), (None, false, w.bytes()));
            let mut row = [0.0; 288];
            for (i, want) in wide.chunks_exact(288).enumerate() {
                again.dequantize_row(i, &mut row).unwrap();
                assert_same_bits(&row, want, &name);
            }
        }
    }
    std::fs::remove_file(path).unwrap();
}
