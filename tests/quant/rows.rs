//! Activations that are quantised once: the bits of products that quantise them themselves, from f32 and from
//! halves; bad input.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::matmul::Element;
use kvern::quant::import::GroupWise;
use kvern::quant::{
    Compute, PackedWeights, Product, QuantizedRows, WeightFormat, multiply_many, workspace_bytes_many,
};
use kvern::{Activation, Context, Epilogue, Isa, MatMut, MatRef, Workspace, bf16, f16};

fn weights(r: &mut Random, format: WeightFormat, n: usize, k: usize) -> PackedWeights {
    PackedWeights::quantize(format, MatRef::dense(&r.vec(n * k), n, k).unwrap()).unwrap()
}

/// Products of rows as they are, and of the same rows quantised before.
fn compare<T: Element>(
    ctx: &Context,
    list: &[&PackedWeights],
    x: &[T],
    wide: &[f32],
    rows: usize,
    what: &str,
) {
    let k = list[0].k();
    let bias = vec![0.25; list[0].n()];
    let e = Epilogue::default().bias(&bias).activation(Activation::Silu).scaled(0.5, 1.0);
    let bytes = workspace_bytes_many(ctx, rows, Compute::Int8, list).unwrap();
    let mut ws = Workspace::new(bytes).unwrap();
    let outs = |fill: f32| list.iter().map(|w| vec![fill; rows * w.n()]).collect::<Vec<_>>();
    let (mut want, mut got) = (outs(0.5), outs(0.5));
    fn products<'a>(
        list: &[&'a PackedWeights],
        outs: &'a mut [Vec<f32>],
        rows: usize,
        e: &Epilogue<'a>,
    ) -> Vec<Product<'a>> {
        let each = list.iter().zip(outs).enumerate();
        each.map(|(i, (&weights, c))| {
            let c = MatMut::dense(c, rows, weights.n()).unwrap();
            // The first with an epilogue, the second gated, others plain.
            let up = (i == 1).then_some(weights);
            let epilogue = if i == 0 { *e } else { Epilogue::default() };
            Product { weights, up, c, epilogue }
        })
        .collect()
    }
    let a = MatRef::dense(wide, rows, k).unwrap();
    multiply_many(ctx, &mut ws, Compute::Int8, a, &mut products(list, &mut want, rows, &e)).unwrap();
    let mut held = QuantizedRows::new(ctx, rows + 2, k).unwrap();
    held.quantize(ctx, MatRef::dense(x, rows, k).unwrap()).unwrap();
    assert_eq!((held.rows(), held.k()), (rows, k));
    held.multiply_many(ctx, &mut ws, &mut products(list, &mut got, rows, &e)).unwrap();
    for (got, want) in got.iter().zip(&want) {
        assert_same_bits(got, want, what);
    }
}

#[test]
fn rows_that_are_quantised_once_give_the_bits_of_those_that_are_not() {
    let mut r = Random::new(95);
    for (formats, n, k) in [
        (&[WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Q4_0][..], 37, 96),
        (&[WeightFormat::Q4K, WeightFormat::Q6K], 48, 1280),
        (&[WeightFormat::Q8_0; 11], 16, 32),
    ] {
        let owned: Vec<_> = formats.iter().map(|&format| weights(&mut r, format, n, k)).collect();
        let list: Vec<&PackedWeights> = owned.iter().collect();
        for rows in [0, 1, 2, 9, 45] {
            let x = r.vec(rows * k);
            let halves: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
            let brains: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
            let of_halves: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
            let of_brains: Vec<f32> = brains.iter().map(|x| x.to_f32()).collect();
            for_each_isa(|ctx| {
                for threads in [1, 3] {
                    let ctx = context(ctx.isa(), threads);
                    let what = format!("{rows} rows of {k} at {} by {threads}", ctx.isa());
                    compare(&ctx, &list, &x, &x, rows, &what);
                    compare(&ctx, &list, &halves, &of_halves, rows, &format!("{what}, f16"));
                    compare(&ctx, &list, &brains, &of_brains, rows, &format!("{what}, bf16"));
                }
            });
        }
    }
}

#[test]
fn rows_and_weights_that_do_not_fit_are_refused() {
    let mut r = Random::new(96);
    let ctx = context(Isa::detect(), 1);
    assert_eq!(QuantizedRows::new(&ctx, 4, 33).unwrap_err().to_string(), "k = 33 must be a multiple of 32");
    let mut held = QuantizedRows::new(&ctx, 2, 64).unwrap();
    let x = r.vec(3 * 64);
    let of = |rows: usize, cols: usize| MatRef::dense(&x[..rows * cols], rows, cols).unwrap();
    held.quantize(&ctx, of(2, 64)).unwrap();
    let e = held.quantize(&ctx, of(3, 64)).unwrap_err().to_string();
    assert_eq!(e, "a.rows = 3 must be at most the rows that there is room for = 2");
    assert_eq!(held.quantize(&ctx, of(2, 32)).unwrap_err().to_string(), "a.cols = 32 must equal k = 64");
    assert!(held.quantize(&ctx, of(64, 2).t()).unwrap_err().to_string().contains("transposed"));
    let (good, float) =
        (weights(&mut r, WeightFormat::Q8_0, 5, 64), weights(&mut r, WeightFormat::F16, 5, 64));
    let narrow = weights(&mut r, WeightFormat::Q8_0, 5, 32);
    let mut ws = Workspace::new(1 << 16).unwrap();
    let mut y = [7.0; 15];
    for (w, rows, want) in [
        (&float, 2, "weights = floats must be blocks or groups, which take int8"),
        (&narrow, 2, "a.cols = 64 must equal the weights' k = 32"),
        (&good, 3, "c.rows = 3 must equal a.rows = 2"),
    ] {
        let c = MatMut::dense(&mut y[..rows * 5], rows, 5).unwrap();
        let e = held.multiply(&ctx, &mut ws, w, c, &Epilogue::default()).unwrap_err().to_string();
        assert_eq!(e, want);
    }
    assert_eq!(y, [7.0; 15]);
    let c = MatMut::dense(&mut y[..10], 2, 5).unwrap();
    held.multiply(&ctx, &mut ws, &good, c, &Epilogue::default()).unwrap();
}

/// Weights and activations that other tools quantised to 8 bits, with one scale a row: W8A8.
#[test]
fn rows_of_codes_with_one_scale_equal_their_definition() {
    let mut r = Random::new(97);
    for (m, n, k) in [(1, 5, 32), (2, 40, 96), (7, 33, 352), (40, 70, 1056)] {
        let mut codes = |len: usize| (0..len).map(|_| r.below(255) as i32 - 127).collect::<Vec<_>>();
        let (w, a) = (codes(n * k), codes(m * k));
        let bytes = |codes: &[i32]| codes.iter().map(|&code| code as i8).collect::<Vec<_>>();
        let (scales_w, scales_a) = (r.vec(n), r.vec(m));
        let groups = GroupWise::symmetric((n, k), 8, k, &bytes(&w), &scales_w).unwrap();
        let packed = PackedWeights::from_groups(&groups).unwrap();
        let mut want = Vec::new();
        for i in 0..m {
            for j in 0..n {
                let (mut chain, mut all, mut magnitude) = (0.0f32, 0i64, 0i64);
                for b in 0..k / 32 {
                    let at = |row: usize, x: usize| row * k + 32 * b + x;
                    let dot: i32 = (0..32).map(|x| w[at(j, x)] * a[at(i, x)]).sum();
                    chain = libm::fmaf(dot as f32, scales_w[j] * scales_a[i], chain);
                    all += i64::from(dot);
                    magnitude += i64::from(dot.abs());
                }
                // One sum over all of k in integers differs by the roundings of the chain.
                let scale = f64::from(scales_w[j]) * f64::from(scales_a[i]);
                let bound = scale.abs() * magnitude as f64 * (k / 32 + 2) as f64 * 2f64.powi(-24);
                assert!((f64::from(chain) - scale * all as f64).abs() <= bound);
                want.push(chain);
            }
        }
        for_each_isa(|one| {
            let ctx = context(one.isa(), 2);
            let mut held = QuantizedRows::new(&ctx, m, k).unwrap();
            held.set(&ctx, &bytes(&a), &scales_a).unwrap();
            assert_eq!(held.rows(), m);
            let mut ws = Workspace::new(packed.workspace_bytes(&ctx, m, Compute::Int8).unwrap()).unwrap();
            let mut c = vec![f32::NAN; m * n];
            let out = MatMut::dense(&mut c, m, n).unwrap();
            held.multiply(&ctx, &mut ws, &packed, out, &Epilogue::default()).unwrap();
            assert_same_bits(&c, &want, &format!("{m}x{n}x{k} at {}", ctx.isa()));
        });
    }
    let ctx = Context::serial();
    let mut held = QuantizedRows::new(&ctx, 1, 32).unwrap();
    held.set(&ctx, &[1; 32], &[1.0]).unwrap();
    let mut said = |codes: &[i8], scales: &[f32]| held.set(&ctx, codes, scales).unwrap_err().to_string();
    assert_eq!(said(&[1; 31], &[1.0]), "codes.len = 31 must equal scales.len * k = 32");
    assert_eq!(
        said(&[1; 64], &[1.0; 2]),
        "scales.len = 2 must be at most the rows that there is room for = 1"
    );
    assert_eq!(said(&[-128; 32], &[1.0]), "code = -128 must be -127..=127");
    assert_eq!(held.rows(), 1);
}
