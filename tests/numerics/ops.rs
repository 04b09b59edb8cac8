//! Row operations: equal bits at every tier and thread count, f64 oracles, corners, bad input.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::*;
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::{Activation, Context, Isa, MatMut, MatRef};

/// Runs `op` on a copy of `x` (rows of `n`) at every tier and thread count, checks that the bits agree, and
/// returns the scalar result.
fn everywhere(x: &[f32], n: usize, what: &str, op: impl Fn(&Context, MatMut<'_>)) -> Vec<f32> {
    let run = |ctx: &Context| {
        let mut y = x.to_vec();
        op(ctx, MatMut::dense(&mut y, x.len() / n, n).unwrap());
        y
    };
    let want = run(&context(Isa::Scalar, 1));
    for_each_isa(|ctx| {
        for threads in [1, 2, 3] {
            let got = run(&context(ctx.isa(), threads));
            assert_same_bits(&got, &want, &format!("{what} at {}, {threads} threads", ctx.isa()));
        }
    });
    want
}

fn close(got: &[f32], want: impl Iterator<Item = f64>, relative: f64, absolute: f64, what: &str) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*g) - w).abs();
        assert!(error <= relative * w.abs() + absolute, "{what} element {i}: {g} against {w}");
    }
}

#[test]
fn activations_follow_their_formulas_over_the_whole_range() {
    // Every exponent, both signs, and the corners where exp over- and underflows.
    let mut x: Vec<f32> = (0..256u32).flat_map(|e| [f32::from_bits(e << 23 | 0x31_4159); 1]).collect();
    x.retain(|x| x.is_finite());
    x.extend((-2000..2000).map(|i| i as f32 * 0.05));
    x.extend([0.0, 88.7, 88.722_83, 88.723, 87.3, 87.4, 126.0, 127.6, 128.0, 1e4]);
    let x: Vec<f32> = x.iter().flat_map(|&x| [x, -x]).collect();
    let run = |a| everywhere(&x, x.len(), &format!("{a:?}"), |ctx, m| activate(ctx, a, m));
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gelu = |x: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
        0.5 * x * (1.0 + inner.tanh())
    };
    close(&run(Activation::Relu), x.iter().map(|&x| f64::from(x.max(0.0))), 0.0, 0.0, "relu");
    close(&run(Activation::Silu), x.iter().map(|&x| silu(f64::from(x))), 4e-7, 1e-36, "silu");
    close(&run(Activation::Gelu), x.iter().map(|&x| gelu(f64::from(x))), 4e-6, 2e-7, "gelu");
    assert_same_bits(&run(Activation::Identity), &x, "identity");
}

#[test]
fn infinities_and_nan_spread_as_ieee_says() {
    let x = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let silu = everywhere(&x, 3, "silu", |ctx, m| activate(ctx, Activation::Silu, m));
    assert_eq!(silu[0], f32::INFINITY);
    assert!(silu[1].is_nan() && silu[2].is_nan());
    let relu = everywhere(&x, 3, "relu", |ctx, m| activate(ctx, Activation::Relu, m));
    assert_eq!(relu[..2], [f32::INFINITY, 0.0]);
    assert!(relu[2].is_nan());
}

#[test]
fn softmax_rows_sum_to_one_at_every_length() {
    let mut r = Random::new(1);
    for n in 1..=130 {
        let x: Vec<f32> = r.vec(3 * n).iter().map(|x| 30.0 * x).collect();
        let got = everywhere(&x, n, "softmax", softmax);
        for (x, got) in x.chunks_exact(n).zip(got.chunks_exact(n)) {
            let max = x.iter().copied().fold(f32::MIN, f32::max);
            let e: Vec<f64> = x.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).collect();
            let sum: f64 = e.iter().sum();
            close(got, e.iter().map(|e| e / sum), 6e-6, 1e-37, "softmax");
        }
    }
    let low = everywhere(&[f32::NEG_INFINITY; 20], 20, "softmax", softmax);
    assert_eq!(low, [0.0; 20]);
    let nan = everywhere(&[1.0, f32::NAN, 2.0], 3, "softmax", softmax);
    assert!(nan.iter().all(|x| x.is_nan()));
}

#[test]
fn norms_follow_their_formulas_at_every_length() {
    let mut r = Random::new(2);
    for n in (1..=130).chain([512, 4096]) {
        let rows = 2;
        let (x, gain, bias) = (r.vec(rows * n), r.vec(n), r.vec(n));
        let xm = MatRef::dense(&x, rows, n).unwrap();
        let ln = everywhere(&vec![f32::NAN; rows * n], n, "layer norm", |ctx, y| {
            layer_norm(ctx, xm, &gain, &bias, 1e-5, y).unwrap();
        });
        let rms = everywhere(&vec![f32::NAN; rows * n], n, "rms norm", |ctx, y| {
            rms_norm(ctx, xm, &gain, 1e-5, y).unwrap();
        });
        for (i, x) in x.chunks_exact(n).enumerate() {
            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let mean = x.iter().sum::<f64>() / n as f64;
            let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
            let square = x.iter().map(|x| x * x).sum::<f64>() / n as f64;
            let want =
                (0..n).map(|j| (x[j] - mean) / (var + 1e-5).sqrt() * f64::from(gain[j]) + f64::from(bias[j]));
            close(&ln[i * n..(i + 1) * n], want, 1e-5, 1e-4, "layer norm");
            let want = (0..n).map(|j| x[j] / (square + 1e-5).sqrt() * f64::from(gain[j]));
            close(&rms[i * n..(i + 1) * n], want, 2e-6, 1e-7, "rms norm");
        }
    }
}

#[test]
fn sums_and_gates() {
    let mut r = Random::new(3);
    for n in [1, 16, 33, 5000] {
        let (x, z) = (r.vec(20 * n), r.vec(20 * n));
        let zm = MatRef::dense(&z, 20, n).unwrap();
        let sum = everywhere(&x, n, "add", |ctx, m| add(ctx, m, zm).unwrap());
        assert!((0..x.len()).all(|i| sum[i] == x[i] + z[i]));
        let gate = everywhere(&x, n, "gate", |ctx, m| silu_mul(ctx, m, zm).unwrap());
        let want = x.iter().zip(&z).map(|(&x, &z)| {
            let x = f64::from(x);
            x / (1.0 + (-x).exp()) * f64::from(z)
        });
        close(&gate, want, 5e-7, 1e-37, "gate");
    }
}

#[test]
fn rope_rotates_pairs_by_the_angle_of_the_position() {
    let mut r = Random::new(4);
    for (dim, rotary) in [(32, 32), (64, 24), (8, 2), (128, 128)] {
        let table = RopeTable::new(rotary, 40, 10000.0).unwrap();
        assert_eq!((table.positions(), table.rotary_dim()), (40, rotary));
        let (tokens, heads) = (5, 3);
        let x = r.vec(tokens * heads * dim);
        for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
            let got = everywhere(&x, heads * dim, "rope", |ctx, m| {
                rope(ctx, &table, pairs, dim, 35, m).unwrap();
            });
            let want = (0..x.len()).map(|i| {
                let (head, j) = (i / dim * dim, i % dim);
                if j >= rotary {
                    return f64::from(x[i]);
                }
                let (pair, first, other) = match pairs {
                    RopePairs::Halves => (j % (rotary / 2), j < rotary / 2, (j + rotary / 2) % rotary),
                    _ => (j / 2, j % 2 == 0, j ^ 1),
                };
                let angle =
                    (35 + i / (heads * dim)) as f64 * 10000f64.powf(-2.0 * pair as f64 / rotary as f64);
                let (me, it) = (f64::from(x[i]), f64::from(x[head + other]));
                if first { me * angle.cos() - it * angle.sin() } else { it * angle.sin() + me * angle.cos() }
            });
            close(&got, want, 1e-6, 3e-7, "rope");
        }
    }
}

#[test]
fn embedding_rows_come_from_either_table() {
    let mut r = Random::new(5);
    let table = r.vec(37 * 64);
    let t = MatRef::dense(&table, 37, 64).unwrap();
    let ids = [0, 36, 5, 5];
    let got = everywhere(&[0.0; 4 * 64], 64, "embedding", |ctx, m| embedding(ctx, t, &ids, m).unwrap());
    for (row, id) in got.chunks_exact(64).zip(ids) {
        assert_eq!(Some(row), t.row(id as usize));
    }
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
        let q = PackedWeights::quantize(format, t).unwrap();
        let got = everywhere(&[0.0; 4 * 64], 64, "embedding", |ctx, m| {
            embedding_quantized(ctx, &q, &ids, m).unwrap();
        });
        for (row, id) in got.chunks_exact(64).zip(ids) {
            let mut want = [0.0; 64];
            q.dequantize_row(id as usize, &mut want).unwrap();
            assert_eq!(row, want);
        }
    }
}

#[test]
fn argmax_is_the_first_of_the_greatest() {
    for_each_isa(|ctx| {
        assert_eq!(argmax(ctx, &[]), None);
        assert_eq!(argmax(ctx, &[f32::NAN; 40]), None);
        assert_eq!(argmax(ctx, &[1.0, 3.0, 3.0, 2.0]), Some(1));
        assert_eq!(argmax(ctx, &[f32::NEG_INFINITY; 5]), Some(0));
        let mut x = vec![0.0; 100];
        x[77] = 1.0;
        assert_eq!(argmax(ctx, &x), Some(77));
        x[93] = f32::NAN; // lane 13, after the maximum, which sits in the same lane
        x[3] = f32::NAN;
        assert_eq!(argmax(ctx, &x), Some(77));
    });
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let ctx = Context::serial();
    let d = [1.0f32; 64];
    let mut y = [9.0f32; 64];
    let m = |r, c| MatRef::dense(&d[..r * c], r, c).unwrap();
    macro_rules! out {
        ($r:expr, $c:expr) => {
            MatMut::dense(&mut y[..$r * $c], $r, $c).unwrap()
        };
    }
    let say = |r: kvern::Result<()>| r.unwrap_err().to_string();
    assert_eq!(
        say(layer_norm(&ctx, m(2, 8), &d[..7], &d[..8], 0.0, out!(2, 8))),
        "gain.len = 7 must equal x.cols = 8"
    );
    assert_eq!(
        say(layer_norm(&ctx, m(2, 8), &d[..8], &d[..9], 0.0, out!(2, 8))),
        "bias.len = 9 must equal x.cols = 8"
    );
    assert_eq!(
        say(rms_norm(&ctx, m(2, 8), &d[..8], 0.0, out!(3, 8))),
        "x.rows = 2 must equal the output's rows = 3"
    );
    assert!(say(rms_norm(&ctx, m(8, 2).t(), &d[..8], 0.0, out!(2, 8))).contains("transposed"));
    assert_eq!(say(add(&ctx, out!(2, 8), m(2, 4))), "z.cols = 4 must equal the output's cols = 8");
    let table = RopeTable::new(8, 4, 10000.0).unwrap();
    fn rotate(ctx: &Context, t: &RopeTable, dim: usize, first: usize, x: MatMut<'_>) -> kvern::Result<()> {
        rope(ctx, t, RopePairs::Halves, dim, first, x)
    }
    assert_eq!(
        say(rotate(&ctx, &table, 8, 3, out!(2, 8))),
        "first + x.rows = 5 must be at most the table's positions = 4"
    );
    assert_eq!(say(rotate(&ctx, &table, 6, 0, out!(2, 8))), "x.cols = 8 must be a multiple of head_dim = 6");
    assert_eq!(say(rotate(&ctx, &table, 4, 0, out!(2, 8))), "rotary_dim = 8 must be at most head_dim = 4");
    assert!(rotate(&ctx, &table, 0, 0, out!(2, 8)).is_err());
    assert!(rotate(&ctx, &table, 8, usize::MAX, out!(2, 8)).is_err());
    assert!(RopeTable::new(7, 4, 1e4).unwrap_err().to_string().starts_with("rotary_dim = 7"));
    assert!(RopeTable::new(8, 4, 0.0).unwrap_err().to_string().starts_with("base = 0"));
    assert!(RopeTable::new(8, usize::MAX, 1e4).is_err());
    let ids = [1, 9];
    assert_eq!(say(embedding(&ctx, m(8, 8), &ids, out!(2, 8))), "ids = 9 must be below the table's rows = 8");
    assert_eq!(say(embedding(&ctx, m(8, 8), &ids, out!(3, 8))), "out.rows = 3 must equal ids.len = 2");
    assert!(say(embedding(&ctx, m(8, 8).t(), &[1], out!(1, 8))).contains("transposed"));
    let q = PackedWeights::quantize(WeightFormat::Q8_0, m(2, 32)).unwrap();
    assert!(embedding_quantized(&ctx, &q, &ids, out!(2, 32)).is_err());
    assert_eq!(y, [9.0; 64]);
}
