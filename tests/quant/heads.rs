//! Products of heads: the bits of each head's own product, whatever lies between the heads; workspaces; bad
//! input.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::quant::{
    Compute, HeadStrides, PackedWeights, WeightFormat, heads_workspace_bytes, multiply_heads,
};
use kvern::{Context, Epilogue, Error, Isa, MatMut, MatRef, Workspace};

fn weights(r: &mut Random, format: WeightFormat, n: usize, k: usize) -> PackedWeights {
    let w: Vec<f32> = r.vec(n * k).iter().map(|w| w / 8.0).collect();
    PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap()
}

/// Each head on its own, into columns of which the others keep what they held.
fn one_by_one(
    compute: Compute,
    heads: &[&PackedWeights],
    strides: HeadStrides,
    a: MatRef<'_>,
    c: &mut MatMut<'_>,
) {
    let ctx = Context::serial();
    for (h, w) in heads.iter().enumerate() {
        let bytes = w.workspace_bytes(&ctx, a.rows(), compute).unwrap();
        let mut ws = Workspace::new(bytes).unwrap();
        let x: Vec<f32> =
            (0..a.rows()).flat_map(|i| a.row(i).unwrap()[h * strides.a..][..w.k()].to_vec()).collect();
        let mut y = vec![f32::NAN; a.rows() * w.n()];
        let (x, out) = (MatRef::dense(&x, a.rows(), w.k()), MatMut::dense(&mut y, a.rows(), w.n()));
        w.multiply(&ctx, &mut ws, compute, x.unwrap(), out.unwrap(), &Epilogue::default()).unwrap();
        for (i, y) in y.chunks_exact(w.n()).enumerate() {
            c.row(i)[h * strides.c..][..w.n()].copy_from_slice(y);
        }
    }
}

#[test]
fn each_head_has_the_bits_of_its_own_product() {
    let mut r = Random::new(90);
    let blocks = [WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Q5_1];
    let floats = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16];
    for (round, rows) in [1, 1, 2, 3, 7, 45, 130, 200, 530].into_iter().enumerate() {
        for formats in [&blocks[..], &floats, &[WeightFormat::Q4K]] {
            // DeepSeek's latent of a few heads now and then; tails of columns; a gap behind each head.
            let (count, n, k) = match round % 4 {
                0 => (5, 512, 128),
                1 => (3, 37, 64),
                _ => (7, 48, 96),
            };
            let k = if formats.len() == 1 { 256 } else { k };
            let owned: Vec<_> = (0..count).map(|_| weights(&mut r, r_of(round, formats), n, k)).collect();
            let heads: Vec<&PackedWeights> = owned.iter().collect();
            let gap = round % 3 * 5;
            let strides = HeadStrides { a: k + gap, c: n + gap };
            let (a_cols, c_cols) = (count * strides.a, count * strides.c);
            let x = r.vec(rows * a_cols);
            let a = MatRef::dense(&x, rows, a_cols).unwrap();
            for compute in [Compute::Int8, Compute::F32] {
                let mut want = vec![-7.5; rows * c_cols];
                let mut c = MatMut::dense(&mut want, rows, c_cols).unwrap();
                one_by_one(compute, &heads, strides, a, &mut c);
                for_each_isa(|ctx| {
                    if ctx.isa() == Isa::Scalar && rows > 50 {
                        return; // minutes
                    }
                    for threads in [1, 2, 3, 8] {
                        let ctx = context(ctx.isa(), threads);
                        let bytes = heads_workspace_bytes(&ctx, &heads, rows, compute).unwrap();
                        let mut got = vec![-7.5; rows * c_cols];
                        let mut small = Workspace::new(bytes.saturating_sub(1)).unwrap();
                        let c = MatMut::dense(&mut got, rows, c_cols).unwrap();
                        if bytes > 0 {
                            let e =
                                multiply_heads(&ctx, &mut small, compute, &heads, strides, a, c).unwrap_err();
                            assert!(matches!(e, Error::Workspace { need, .. } if need == bytes), "{e}");
                            assert!(got.iter().all(|&x| x == -7.5));
                        }
                        let mut ws = Workspace::new(bytes).unwrap();
                        let c = MatMut::dense(&mut got, rows, c_cols).unwrap();
                        multiply_heads(&ctx, &mut ws, compute, &heads, strides, a, c).unwrap();
                        let what = format!("{formats:?} {compute:?} {rows} rows at {}", ctx.isa());
                        assert_same_bits(&got, &want, &what);
                    }
                });
            }
        }
    }
}

/// One of some formats, by turns.
fn r_of(round: usize, formats: &[WeightFormat]) -> WeightFormat {
    formats[round % formats.len()]
}

#[test]
fn formats_of_blocks_may_differ_between_heads() {
    let mut r = Random::new(91);
    let owned: Vec<_> = [WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Mxfp4, WeightFormat::Q4_1]
        .map(|format| match format {
            WeightFormat::Mxfp4 => {
                let blocks: Vec<u8> = (0..40 * 2).flat_map(|i| [120 + (i % 4) as u8; 17]).collect();
                PackedWeights::from_blocks(format, 40, 64, &blocks).unwrap()
            }
            format => weights(&mut r, format, 40, 64),
        })
        .into();
    let heads: Vec<&PackedWeights> = owned.iter().collect();
    for rows in [1, 6, 60] {
        let x = r.vec(rows * 4 * 64);
        let a = MatRef::dense(&x, rows, 4 * 64).unwrap();
        let strides = HeadStrides { a: 64, c: 40 };
        for compute in [Compute::Int8, Compute::F32] {
            let (mut got, mut want) = (vec![f32::NAN; rows * 160], vec![0.0; rows * 160]);
            one_by_one(compute, &heads, strides, a, &mut MatMut::dense(&mut want, rows, 160).unwrap());
            for_each_isa(|ctx| {
                let mut ws =
                    Workspace::new(heads_workspace_bytes(ctx, &heads, rows, compute).unwrap()).unwrap();
                let c = MatMut::dense(&mut got, rows, 160).unwrap();
                multiply_heads(ctx, &mut ws, compute, &heads, strides, a, c).unwrap();
                assert_same_bits(&got, &want, &format!("{rows} rows at {}", ctx.isa()));
            });
        }
    }
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let mut r = Random::new(92);
    let (w, other) =
        (weights(&mut r, WeightFormat::Q8_0, 40, 64), weights(&mut r, WeightFormat::Q8_0, 40, 32));
    let float = weights(&mut r, WeightFormat::F32, 40, 64);
    let ctx = Context::serial();
    let x = vec![1.0; 2 * 200];
    let run = |heads: &[&PackedWeights], strides: (usize, usize), cols: (usize, usize), rows: usize| {
        let mut y = vec![3.0; 2 * 200];
        let mut ws = Workspace::new(1 << 20).unwrap();
        let a = MatRef::dense(&x[..2 * cols.0], 2, cols.0).unwrap();
        let c = MatMut::dense(&mut y[..rows * cols.1], rows, cols.1).unwrap();
        let strides = HeadStrides { a: strides.0, c: strides.1 };
        let e = multiply_heads(&ctx, &mut ws, Compute::Int8, heads, strides, a, c).unwrap_err();
        assert!(y.iter().all(|&y| y == 3.0), "an error changes nothing");
        e.to_string()
    };
    let two = [&w, &w];
    for (e, words) in [
        (run(&[], (64, 40), (128, 80), 2), ["heads = 0", "at least 1"]),
        (run(&[&w, &other], (64, 40), (128, 80), 2), ["weights.k = 32", "first head's = 64"]),
        (run(&[&w, &float], (64, 40), (128, 80), 2), ["floats beside blocks", "in all heads"]),
        (run(&two, (63, 40), (128, 80), 2), ["a's head stride = 63", "64"]),
        (run(&two, (64, 39), (128, 80), 2), ["c's head stride = 39", "40"]),
        (run(&two, (64, 40), (127, 80), 2), ["a.cols = 127", "128"]),
        (run(&two, (64, 40), (128, 79), 2), ["c.cols = 79", "80"]),
        (run(&two, (64, 40), (128, 80), 1), ["c.rows = 1", "a.rows = 2"]),
        (run(&two, (usize::MAX, 40), (128, 80), 2), ["a's head stride", "does not fit the address space"]),
    ] {
        assert!(words.iter().all(|word| e.contains(word)), "{e}");
    }
}
