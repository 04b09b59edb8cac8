//! The recurrences against values that were computed elsewhere.

use super::{SENTINEL, matrices};
use crate::support::for_each_isa;
use crate::support::safetensors::Tensors;
use kvern::ops::{NormKind, NormOptions, TimeStepOptions, norm, time_step};
use kvern::recurrent::{DeltaTokens, RecurrentState, ScanTokens, StateOptions, delta_rule, selective_scan};
use kvern::{Context, MatMut, MatRef};

fn near(got: &[f32], want: &[f32], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - f64::from(want)).abs();
        assert!(error <= bound * size, "{what}: element {i}: {got:e} for {want:e}");
    }
}

/// Rows of unit heads.
fn unit(ctx: &Context, x: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let mut y = vec![SENTINEL; x.len()];
    let n = x.len() / rows;
    let options = NormOptions::new(NormKind::L2, 1e-6).groups(heads);
    norm(ctx, &options, MatRef::dense(x, rows, n).unwrap(), MatMut::dense(&mut y, rows, n).unwrap()).unwrap();
    y
}

#[test]
fn delta_rules_match_the_reference() {
    for (file, cases) in [
        ("gated_delta_rule", &["step_state", "short", "plain_heads", "long_state", "extreme"][..]),
        ("kimi_delta_rule", &["short", "long_state"]),
    ] {
        let t = Tensors::of(file);
        for case in cases {
            let name = |x: &str| format!("{case}/{x}");
            let (keys, values) = (t.shape(&name("key")), t.shape(&name("value")));
            let (rows, heads, key_dim, value_dim) = (keys[0], values[1], keys[2], values[2]);
            for_each_isa(|ctx| {
                let mut state = RecurrentState::new(StateOptions::new(heads, key_dim, value_dim)).unwrap();
                if t.has(&name("state")) {
                    let from = t.f32(&name("state"));
                    for (head, x) in from.chunks_exact(key_dim * value_dim).enumerate() {
                        state.write(0, head, x).unwrap();
                    }
                }
                let [q, k] = ["query", "key"].map(|x| unit(ctx, &t.f32(&name(x)), keys[1], rows));
                let [v, decay, beta] = ["value", "g", "beta"].map(|x| t.f32(&name(x)));
                let matrix = |x| MatRef::dense(x, rows, <[f32]>::len(x) / rows).unwrap();
                let tokens = DeltaTokens {
                    q: matrix(&q),
                    k: matrix(&k),
                    v: matrix(&v),
                    decay: matrix(&decay),
                    beta: matrix(&beta),
                    scale: (key_dim as f32).powf(-0.5),
                };
                let mut y = vec![SENTINEL; rows * heads * value_dim];
                let out = MatMut::dense(&mut y, rows, heads * value_dim).unwrap();
                delta_rule(ctx, &mut state, &[0], &tokens, out).unwrap();
                near(&y, &t.f32(&name("y")), 2e-6, &format!("{file}/{case} at {}", ctx.isa()));
                near(
                    &matrices(&state, 0),
                    &t.f32(&name("final_state")),
                    2e-6,
                    &format!("{file}/{case} state"),
                );
                assert_eq!(state.len(), rows);
            });
        }
    }
}

/// `(p, n)` of each head as `(n, p)`.
fn transposed(x: &[f32], p: usize, n: usize) -> Vec<f32> {
    x.chunks_exact(p * n).flat_map(|x| (0..n * p).map(|i| x[i % p * n + i / p])).collect()
}

#[test]
fn selective_scans_match_the_reference() {
    let t = Tensors::of("ssd_scan");
    for case in ["step_state", "short", "dt_limit", "long_state", "extreme"] {
        let name = |x: &str| format!("{case}/{x}");
        let (x_shape, b_shape) = (t.shape(&name("x")), t.shape(&name("B")));
        let (rows, heads, p, n) = (x_shape[0], x_shape[1], x_shape[2], b_shape[2]);
        for_each_isa(|ctx| {
            let mut state = RecurrentState::new(StateOptions::new(heads, n, p)).unwrap();
            if t.has(&name("state")) {
                let from = transposed(&t.f32(&name("state")), p, n);
                for (head, x) in from.chunks_exact(n * p).enumerate() {
                    state.write(0, head, x).unwrap();
                }
            }
            let [x, raw, b, c, a, d, bias] =
                ["x", "dt", "B", "C", "A", "D", "dt_bias"].map(|x| t.f32(&name(x)));
            let matrix = |x| MatRef::dense(x, rows, <[f32]>::len(x) / rows).unwrap();
            let mut dt = vec![SENTINEL; raw.len()];
            let limits = if case == "dt_limit" { (0.125, 0.5) } else { (0.0, f32::INFINITY) };
            let options = TimeStepOptions::default().bias(&bias).limits(limits.0, limits.1);
            time_step(ctx, &options, matrix(&raw), MatMut::dense(&mut dt, rows, heads).unwrap()).unwrap();
            let (x, dt, b, c) = (matrix(&x), matrix(&dt), matrix(&b), matrix(&c));
            let mut y = vec![SENTINEL; rows * heads * p];
            let out = MatMut::dense(&mut y, rows, heads * p).unwrap();
            selective_scan(ctx, &mut state, &[0], &ScanTokens { x, dt, b, c, a: &a, d: &d }, out).unwrap();
            near(&y, &t.f32(&name("y")), 2e-6, &format!("{case} at {}", ctx.isa()));
            let want = transposed(&t.f32(&name("final_state")), p, n);
            near(&matrices(&state, 0), &want, 2e-6, &format!("{case} state"));
        });
    }
}
