//! Activations that are quantised once: the bits of products that quantise them themselves, from f32 and from
//! halves; bad input.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::matmul::Element;
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
