//! Pooling, cumulative sums and causal convolution: against values that were computed elsewhere, against
//! their definitions at every length, tier and cut; bad input.

use crate::support::safetensors::Tensors;
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::{Along, ConvOptions, NormKind, NormOptions, causal_conv, cumulative_sum, mean_pool, norm};
use kvern::{Activation, Context, Isa, MatMut, MatRef};

const SENTINEL: f32 = 1.25e30;

/// `f` fills rows of n, which have gaps, at every tier on 1 and 3 threads; the bits of the scalar tier.
fn everywhere(rows: usize, n: usize, what: &str, f: &dyn Fn(&Context, MatMut<'_>)) -> Vec<f32> {
    let run = |ctx: &Context| {
        let mut y = vec![SENTINEL; rows * (n + 3)];
        f(ctx, MatMut::new(&mut y, rows, n, n + 3).unwrap());
        y
    };
    let want = run(&context(Isa::Scalar, 1));
    for_each_isa(|ctx| {
        for threads in [1, 3] {
            assert_same_bits(&run(&context(ctx.isa(), threads)), &want, &format!("{what} at {}", ctx.isa()));
        }
    });
    assert!((0..want.len()).all(|i| (i % (n + 3) >= n) == (want[i] == SENTINEL)), "{what}: gaps");
    want.chunks_exact(n + 3).flat_map(|row| row[..n].to_vec()).collect()
}

fn near(got: &[f32], want: &[f32], relative: f64, absolute: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - f64::from(want)).abs();
        let bound = relative * f64::from(want.abs()) + absolute;
        assert!(error <= bound, "{what}: element {i}: {got:e} for {want:e}");
    }
}

#[test]
fn pooling_matches_the_reference() {
    let t = Tensors::of("pooling");
    let (x, mask) = (t.f32("x"), t.i32("mask"));
    let seen: Vec<bool> = mask.iter().map(|&m| m != 0).collect();
    let (starts, xm) = ([0, 9, 18, 27], MatRef::dense(&x, 27, 40).unwrap());
    let mean = everywhere(3, 40, "mean", &|ctx, y| mean_pool(ctx, xm, &starts, Some(&seen), y).unwrap());
    near(&mean, &t.f32("mean"), 1e-7, 2e-7, "mean");
    let unit = NormOptions::new(NormKind::Unit, 1e-12);
    let unit = everywhere(3, 40, "unit", &|ctx, y| {
        norm(ctx, &unit, MatRef::dense(&mean, 3, 40).unwrap(), y).unwrap();
    });
    near(&unit, &t.f32("mean_normalised"), 1e-7, 2e-7, "normalised");
    // The rows that are seen, without padding, have the same bits.
    let packed: Vec<f32> = (0..27).filter(|&i| seen[i]).flat_map(|i| x[i * 40..][..40].to_vec()).collect();
    let mut starts = vec![0];
    for sequence in 0..3 {
        let count = seen[sequence * 9..][..9].iter().filter(|seen| **seen).count();
        starts.push(starts[sequence] + count);
    }
    let packed = MatRef::dense(&packed, packed.len() / 40, 40).unwrap();
    let dense = everywhere(3, 40, "packed", &|ctx, y| mean_pool(ctx, packed, &starts, None, y).unwrap());
    assert_same_bits(&dense, &mean, "without padding");
}

#[test]
fn pooling_of_any_shape_is_its_definition() {
    let mut r = Random::new(30);
    for n in (1..=130).chain([256, 257, 600]) {
        let starts = [1, 1, 4, 5, 5 + n % 40, 60];
        let x = r.vec(60 * n);
        let seen: Vec<bool> = (0..60).map(|_| r.below(4) > 0).collect();
        let mut poisoned = x.clone();
        for (i, row) in poisoned.chunks_exact_mut(n).enumerate().filter(|(i, _)| !seen[*i]) {
            row.fill([f32::NAN, f32::INFINITY][i % 2]);
        }
        let xm = MatRef::dense(&poisoned, 60, n).unwrap();
        let got = everywhere(5, n, "pool", &|ctx, y| mean_pool(ctx, xm, &starts, Some(&seen), y).unwrap());
        for sequence in 0..5 {
            for j in 0..n {
                let rows = (starts[sequence]..starts[sequence + 1]).filter(|&i| seen[i]);
                let (mut sum, mut count) = (0.0f32, 0);
                rows.for_each(|i| (sum, count) = (sum + x[i * n + j], count + 1));
                let want = if count == 0 { 0.0 } else { sum / count as f32 };
                assert_eq!(got[sequence * n + j].to_bits(), want.to_bits(), "{sequence}, {j} of {n}");
            }
        }
    }
}

#[test]
fn cumulative_sums_are_their_definition() {
    let mut r = Random::new(31);
    for n in (1..=130).chain([256, 257, 600]) {
        let rows = 1 + n % 37;
        let x = r.vec(rows * n);
        for along in [Along::Row, Along::Column] {
            let got = everywhere(rows, n, "sum", &|ctx, mut y| {
                (0..rows).for_each(|i| y.row(i).copy_from_slice(&x[i * n..][..n]));
                cumulative_sum(ctx, along, y);
            });
            for i in 0..rows {
                for j in 0..n {
                    let before = match along {
                        Along::Row if j > 0 => got[i * n + j - 1],
                        Along::Column if i > 0 => got[(i - 1) * n + j],
                        _ => 0.0,
                    };
                    let want = before + x[i * n + j];
                    assert_eq!(got[i * n + j].to_bits(), want.to_bits(), "{along:?} of {rows} x {n}");
                }
            }
        }
    }
}

/// (taps, channels) of (channels, taps).
fn transposed(x: &[f32], taps: usize) -> Vec<f32> {
    let channels = x.len() / taps;
    (0..x.len()).map(|i| x[i % channels * taps + i / channels]).collect()
}

#[test]
fn convolutions_match_the_reference() {
    let t = Tensors::of("causal_conv1d");
    for case in ["w4_silu", "w4_silu_bias_state", "w4_step", "w3_plain_state", "w3_bias_step", "w2_short"] {
        let of = |name: &str| format!("{case}/{name}");
        let (tokens, channels) = (t.shape(&of("x"))[0], t.shape(&of("x"))[1]);
        let taps = t.shape(&of("weight"))[1];
        let weights = transposed(&t.f32(&of("weight")), taps);
        // Of `taps` columns the oldest is not used.
        let state = if t.has(&of("state")) { t.f32(&of("state")) } else { vec![0.0; taps * channels] };
        let before = transposed(&state, taps)[channels..].to_vec();
        let mut options = ConvOptions::new(MatRef::dense(&weights, taps, channels).unwrap());
        let bias = t.has(&of("bias")).then(|| t.f32(&of("bias")));
        if let Some(bias) = &bias {
            options = options.bias(bias);
        }
        if !case.starts_with("w3") {
            options = options.activation(Activation::Silu);
        }
        let x = t.f32(&of("x"));
        let xm = MatRef::dense(&x, tokens, channels).unwrap();
        let end = transposed(&t.f32(&of("final_state")), taps)[channels..].to_vec();
        let got = everywhere(tokens, channels, case, &|ctx, y| {
            let mut state = before.clone();
            causal_conv(ctx, &options, xm, &mut state, y).unwrap();
            assert_eq!(state, end, "{case}");
        });
        near(&got, &t.f32(&of("y")), 5e-7, 4e-7, case);
    }
}

#[test]
fn convolutions_have_the_same_bits_in_any_chunks() {
    let mut r = Random::new(32);
    for channels in (1..=130).chain([256, 300, 513]) {
        let (taps, tokens) = (2 + channels % 7, 1 + channels % 41);
        let (w, bias) = (r.vec((taps - 1) * (channels + 2) + channels), r.vec(channels));
        let weights = MatRef::new(&w, taps, channels, channels + 2).unwrap();
        let (x, state) = (r.vec(tokens * channels), r.vec((taps - 1) * channels));
        let mut options = ConvOptions::new(weights);
        if channels % 2 == 0 {
            options = options.bias(&bias);
        }
        let whole = everywhere(tokens, channels, "convolution", &|ctx, y| {
            let (x, mut state) = (MatRef::dense(&x, tokens, channels).unwrap(), state.clone());
            causal_conv(ctx, &options, x, &mut state, y).unwrap();
        });
        // Chains of fused multiply-adds, each of which f64 gives to within half an ulp.
        let all: Vec<f32> = state.iter().chain(&x).copied().collect();
        for (i, got) in whole.iter().enumerate() {
            let (token, c) = (i / channels, i % channels);
            let term = |j: usize| (w[j * (channels + 2) + c], all[(token + j) * channels + c]);
            let acc = (0..taps).fold(0.0f32, |acc, j| libm::fmaf(term(j).0, term(j).1, acc));
            let want = if channels % 2 == 0 { acc + bias[c] } else { acc };
            assert_eq!(got.to_bits(), want.to_bits(), "token {token}, channel {c} of {channels}");
        }
        for chunk in [1, 2, 5, tokens] {
            let ctx = context(Isa::detect(), 2);
            let (mut got, mut state) = (vec![SENTINEL; tokens * channels], state.clone());
            for first in (0..tokens).step_by(chunk) {
                let rows = chunk.min(tokens - first);
                let part = first * channels..(first + rows) * channels;
                let x = MatRef::dense(&x[part.clone()], rows, channels).unwrap();
                let y = MatMut::dense(&mut got[part], rows, channels).unwrap();
                causal_conv(&ctx, &options, x, &mut state, y).unwrap();
            }
            assert_same_bits(&got, &whole, &format!("{tokens} tokens in chunks of {chunk}"));
            assert_same_bits(&state, &all[tokens * channels..], "the state");
        }
        let silu = options.activation(Activation::Silu);
        let got = everywhere(tokens, channels, "with SiLU", &|ctx, y| {
            let (x, mut state) = (MatRef::dense(&x, tokens, channels).unwrap(), state.clone());
            causal_conv(ctx, &silu, x, &mut state, y).unwrap();
        });
        let want = everywhere(tokens, channels, "SiLU", &|ctx, mut y| {
            (0..tokens).for_each(|i| y.row(i).copy_from_slice(&whole[i * channels..][..channels]));
            kvern::ops::activate(ctx, Activation::Silu, y);
        });
        assert_same_bits(&got, &want, "SiLU after the sum");
    }
}

#[test]
fn bad_shapes_are_refused_and_change_nothing() {
    let (ctx, x) = (Context::serial(), [1.0f32; 24]);
    let mut y = [SENTINEL; 12];
    let xm = MatRef::dense(&x[..12], 3, 4).unwrap();
    let mut pool = |starts: &[usize], seen: Option<&[bool]>, rows: usize, x: MatRef<'_>| {
        mean_pool(&ctx, x, starts, seen, MatMut::dense(&mut y, rows, 4).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(pool(&[], None, 2, xm), "starts.len = 0 must equal out.rows + 1 = 3");
    assert_eq!(pool(&[0, 3], None, 2, xm), "starts.len = 2 must equal out.rows + 1 = 3");
    assert_eq!(pool(&[0, 2, 1], None, 2, xm), "starts = 2 must be at most the next one = 1");
    assert_eq!(pool(&[0, 2, 4], None, 2, xm), "starts = 4 must be at most x.rows = 3");
    assert_eq!(pool(&[0, 3], Some(&[true; 2]), 1, xm), "seen.len = 2 must equal x.rows = 3");
    let narrow = MatRef::dense(&x, 3, 5).unwrap();
    assert_eq!(pool(&[0, 3], None, 1, narrow), "x.cols = 5 must equal out.cols = 4");
    let turned = MatRef::dense(&x[..12], 4, 3).unwrap().t();
    assert!(pool(&[0, 3], None, 1, turned).starts_with("x = a transposed view"));
    let mut state = [SENTINEL; 12];
    let mut conv = |taps: usize, bias: usize, kept: usize, x: MatRef<'_>| {
        let w = [0.5f32; 36];
        let options = ConvOptions::new(MatRef::dense(&w, taps, 4).unwrap()).bias(&w[..bias]);
        let y = MatMut::dense(&mut y, 3, 4).unwrap();
        causal_conv(&ctx, &options, x, &mut state[..kept], y).unwrap_err().to_string()
    };
    for taps in [0, 1, 9] {
        let want = format!("weights.rows = {taps} must be 2..=8: one row for each tap");
        assert_eq!(conv(taps, 4, 0, xm), want);
    }
    assert_eq!(conv(2, 3, 4, xm), "bias.len = 3 must equal x.cols = 4");
    assert_eq!(conv(4, 4, 11, xm), "state.len = 11 must equal (taps - 1) * channels = 12");
    assert_eq!(conv(3, 4, 8, narrow), "x.cols = 5 must equal the output's cols = 4");
    assert!(conv(3, 4, 8, turned).starts_with("x = a transposed view"));
    let turned = ConvOptions::new(MatRef::dense(&x, 4, 3).unwrap().t());
    let e = causal_conv(&ctx, &turned, xm, &mut state[..8], MatMut::dense(&mut y, 3, 4).unwrap());
    assert!(e.unwrap_err().to_string().starts_with("weights = a transposed view"));
    assert!(y == [SENTINEL; 12] && state == [SENTINEL; 12]);
}
