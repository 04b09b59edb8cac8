//! Norms with options, operations over tokens and the router in C: the bits of the safe API, and what is
//! refused.

use crate::capi::*;
use crate::statuses::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::matmul::*;
use kvern::capi::norms::*;
use kvern::capi::router::*;
use kvern::capi::tokens::*;
use kvern::ops::*;
use kvern::{Activation, Context, MatMut, MatRef};
use std::ptr::{null, null_mut};

const ROWS: usize = 4;

fn dense(x: &[f32]) -> MatRef<'_> {
    MatRef::dense(x, ROWS, WIDTH).unwrap()
}

#[test]
fn norms_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut r) = (Objects::new(), Context::serial(), Random::new(60));
    let (x, z, part) = (r.vec(ROWS * WIDTH), r.vec(ROWS * WIDTH), r.vec(WIDTH));
    let kinds = [
        (KVERN_NORM_RMS, NormKind::Rms),
        (KVERN_NORM_LAYER, NormKind::Layer),
        (KVERN_NORM_L2, NormKind::L2),
        (KVERN_NORM_UNIT, NormKind::Unit),
    ];
    for (number, kind) in kinds {
        let raw = norm_options(number, 1e-3);
        let gated = kvern_norm_options {
            gain: part.as_ptr(),
            gate: z.as_ptr(),
            gate_row_stride: WIDTH,
            gate_activation: KVERN_ACTIVATION_SILU,
            ..raw
        };
        let first = kvern_norm_options { gate_first: 1, groups: 2, part_len: WIDTH / 2, ..gated };
        let safe = NormOptions::new(kind, 1e-3);
        let gain = safe.gain(&part).gate(Activation::Silu, dense(&z));
        let half = safe.gain(&part[..WIDTH / 2]).groups(2).gate_first(Activation::Silu, dense(&z));
        let mut pairs = vec![(raw, safe), (gated, gain), (first, half)];
        if kind == NormKind::Layer {
            pairs.push((kvern_norm_options { bias: part.as_ptr(), ..raw }, safe.bias(&part)));
        }
        for (raw, safe) in pairs {
            let (mut got, mut want) = (vec![0.0; ROWS * WIDTH], vec![0.0; ROWS * WIDTH]);
            // SAFETY: every pointer is live and of the stated size.
            ok(unsafe { kvern_norm(o.ctx, &raw, ROWS, WIDTH, x.as_ptr(), WIDTH, got.as_mut_ptr(), WIDTH) });
            norm(&ctx, &safe, dense(&x), MatMut::dense(&mut want, ROWS, WIDTH).unwrap()).unwrap();
            assert_same_bits(&got, &want, "kvern_norm");
        }
    }
}

#[test]
fn operations_over_tokens_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut r) = (Objects::new(), Context::serial(), Random::new(61));
    let (x, taps, bias) = (r.vec(ROWS * WIDTH), r.vec(3 * WIDTH), r.vec(WIDTH));
    let (starts, seen) = ([0, 1, ROWS], [1u8, 0, 1, 1]);
    let flags = seen.map(|seen| seen == 1);
    for (bytes, flags) in [(null(), None), (seen.as_ptr(), Some(&flags[..]))] {
        let (mut got, mut want) = (vec![0.0; 2 * WIDTH], vec![0.0; 2 * WIDTH]);
        let (from, to) = (x.as_ptr(), got.as_mut_ptr());
        // SAFETY: every pointer is live and of the stated size.
        ok(unsafe { kvern_mean_pool(o.ctx, 2, starts.as_ptr(), ROWS, WIDTH, from, WIDTH, bytes, to, WIDTH) });
        mean_pool(&ctx, dense(&x), &starts, flags, MatMut::dense(&mut want, 2, WIDTH).unwrap()).unwrap();
        assert_same_bits(&got, &want, "kvern_mean_pool");
    }
    for (number, along) in [(KVERN_ALONG_ROW, Along::Row), (KVERN_ALONG_COLUMN, Along::Column)] {
        let (mut got, mut want) = (x.clone(), x.clone());
        // SAFETY: as above.
        ok(unsafe { kvern_cumulative_sum(o.ctx, number, ROWS, WIDTH, got.as_mut_ptr(), WIDTH) });
        cumulative_sum(&ctx, along, MatMut::dense(&mut want, ROWS, WIDTH).unwrap());
        assert_same_bits(&got, &want, "kvern_cumulative_sum");
    }
    for with in [false, true] {
        let (mut got, mut want) = (vec![0.0; ROWS * WIDTH], vec![0.0; ROWS * WIDTH]);
        let (mut state, mut safe_state) = (vec![0.5; 2 * WIDTH], vec![0.5; 2 * WIDTH]);
        let (w, b, s) = (taps.as_ptr(), if with { bias.as_ptr() } else { null() }, state.as_mut_ptr());
        let (from, to, act) = (x.as_ptr(), got.as_mut_ptr(), KVERN_ACTIVATION_SILU);
        // SAFETY: as above.
        ok(unsafe { kvern_causal_conv(o.ctx, 3, WIDTH, w, WIDTH, b, act, s, ROWS, from, WIDTH, to, WIDTH) });
        let options = ConvOptions::new(MatRef::dense(&taps, 3, WIDTH).unwrap()).activation(Activation::Silu);
        let options = if with { options.bias(&bias) } else { options };
        let y = MatMut::dense(&mut want, ROWS, WIDTH).unwrap();
        causal_conv(&ctx, &options, dense(&x), &mut safe_state, y).unwrap();
        assert_same_bits(&got, &want, "kvern_causal_conv");
        assert_same_bits(&state, &safe_state, "the state");
    }
}

#[test]
fn choices_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut r) = (Objects::new(), Context::serial(), Random::new(62));
    let (x, bias, scales) = (r.vec(ROWS * WIDTH), r.vec(WIDTH), r.vec(WIDTH));
    let len = 3 * ROWS;
    let (mut places, mut values) = (vec![0u32; len], vec![0.0; len]);
    let (mut safe_places, mut safe_values) = (vec![0u32; len], vec![0.0; len]);
    let (p, v) = (places.as_mut_ptr(), values.as_mut_ptr());
    // SAFETY: every pointer is live and of the stated size.
    ok(unsafe { kvern_top_k(o.ctx, ROWS, WIDTH, 3, x.as_ptr(), WIDTH, p, v) });
    top_k(&ctx, dense(&x), 3, &mut safe_places, &mut safe_values).unwrap();
    assert_eq!((&places, &values), (&safe_places, &safe_values));
    let scores = [
        (KVERN_ROUTER_SOFTMAX, RouterScore::Softmax),
        (KVERN_ROUTER_SOFTMAX_OF_CHOSEN, RouterScore::SoftmaxOfChosen),
        (KVERN_ROUTER_SIGMOID, RouterScore::Sigmoid),
        (KVERN_ROUTER_SIGMOID_OF_CHOSEN, RouterScore::SigmoidOfChosen),
    ];
    let groupings = [(KVERN_GROUP_BEST_TWO, GroupScore::BestTwo), (KVERN_GROUP_BEST, GroupScore::Best)];
    for (number, score) in scores {
        for (group_score, by) in groupings {
            let plain = router_options(3, number);
            let full = kvern_router_options {
                bias: bias.as_ptr(),
                expert_scale: scales.as_ptr(),
                groups: 4,
                kept_groups: 2,
                group_score,
                renormalize: 1,
                renormalize_eps: 1e-6,
                scale: 2.5,
                ..plain
            };
            let safe = RouterOptions::new(3, score);
            let safe_full = safe.bias(&bias).expert_scale(&scales).groups(4, 2, by);
            let safe_full = safe_full.renormalize(1e-6).scale(2.5);
            for (raw, safe) in [(plain, safe), (full, safe_full)] {
                let (mut a, mut b) = (x.clone(), x.clone());
                // SAFETY: as above.
                ok(unsafe { kvern_route(o.ctx, &raw, ROWS, WIDTH, a.as_mut_ptr(), p, v) });
                route(&ctx, &safe, WIDTH, &mut b, &mut safe_places, &mut safe_values).unwrap();
                assert_eq!(places, safe_places);
                assert_same_bits(&values, &safe_values, "kvern_route");
                assert_same_bits(&a, &b, "scores");
            }
        }
    }
}

#[test]
fn norms_refuse_bad_arguments() {
    let (o, w) = (Objects::new(), WIDTH);
    let (mut outputs, inputs) = (vec![2.0f32; 512], vec![1.0f32; 512]);
    let (y, x) = (outputs.as_mut_ptr(), inputs.as_ptr());
    let rms = norm_options(KVERN_NORM_RMS, 1e-6);
    let odd = x.wrapping_byte_add(1);
    let kind = norm_options(4, 1e-6);
    let eps = norm_options(KVERN_NORM_UNIT, -1.0);
    let groups = kvern_norm_options { groups: 3, ..rms };
    let part = kvern_norm_options { gain: x, part_len: 5, ..rms };
    let bias = kvern_norm_options { bias: x, ..rms };
    let gate = kvern_norm_options { gate: x, gate_row_stride: w, ..rms };
    let act = kvern_norm_options { gate_activation: 11, ..gate };
    let first = kvern_norm_options { gate_first: 2, ..gate };
    let stride = kvern_norm_options { gate_row_stride: w - 1, ..gate };
    let over = kvern_norm_options { gain: y, ..rms };
    let over_gate = kvern_norm_options { gate: y, ..gate };
    let misaligned = kvern_norm_options { gain: odd, ..rms };
    let size = kvern_norm_options { struct_size: 7, ..rms };
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_norm(null(), &rms, 2, w, x, w, y, w);
        NULL_POINTER "options is NULL": kvern_norm(o.ctx, null(), 2, w, x, w, y, w);
        NULL_POINTER "x is NULL": kvern_norm(o.ctx, &rms, 2, w, null(), w, y, w);
        NULL_POINTER "y is NULL": kvern_norm(o.ctx, &rms, 2, w, x, w, null_mut(), w);
        OPTION "options->struct_size = 7": kvern_norm(o.ctx, &size, 2, w, x, w, y, w);
        OPTION "options->kind = 4": kvern_norm(o.ctx, &kind, 2, w, x, w, y, w);
        OPTION "eps = -1 must be finite and not negative": kvern_norm(o.ctx, &eps, 2, w, x, w, y, w);
        SHAPE "x.cols = 16 must be a multiple of groups = 3": kvern_norm(o.ctx, &groups, 2, w, x, w, y, w);
        SHAPE "gain.len = 5 must equal x.cols = 16": kvern_norm(o.ctx, &part, 2, w, x, w, y, w);
        OPTION "bias = one of a norm without mean": kvern_norm(o.ctx, &bias, 2, w, x, w, y, w);
        OPTION "options->gate_activation = 11": kvern_norm(o.ctx, &act, 2, w, x, w, y, w);
        OPTION "options->gate_first = 2": kvern_norm(o.ctx, &first, 2, w, x, w, y, w);
        SHAPE "options->gate_row_stride = 15": kvern_norm(o.ctx, &stride, 2, w, x, w, y, w);
        MISALIGNED "options->gain": kvern_norm(o.ctx, &misaligned, 2, w, x, w, y, w);
        ALIASED "y overlaps x": kvern_norm(o.ctx, &rms, 2, w, y, w, y, w);
        ALIASED "y overlaps options->gain": kvern_norm(o.ctx, &over, 2, w, x, w, y, w);
        ALIASED "y overlaps options->gate": kvern_norm(o.ctx, &over_gate, 2, w, x, w, y, w);
        OVERFLOW "x": kvern_norm(o.ctx, &rms, usize::MAX, w, x, w, y, w);
    }
    assert!(outputs.iter().all(|&y| y == 2.0));
}

#[test]
fn operations_over_tokens_refuse_bad_arguments() {
    let (o, w) = (Objects::new(), WIDTH);
    let (mut outputs, inputs) = (vec![2.0f32; 512], vec![1.0f32; 512]);
    let (y, x, s) = (outputs.as_mut_ptr(), inputs.as_ptr(), outputs[256..].as_mut_ptr());
    let (good, down, far) = ([0usize, 1, 2], [0usize, 2, 1], [0usize, 1, 9]);
    let (good, down, far) = (good.as_ptr(), down.as_ptr(), far.as_ptr());
    let seen = [1u8, 3];
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_mean_pool(null(), 2, good, 2, w, x, w, null(), y, w);
        NULL_POINTER "starts is NULL": kvern_mean_pool(o.ctx, 2, null(), 2, w, x, w, null(), y, w);
        NULL_POINTER "x is NULL": kvern_mean_pool(o.ctx, 2, good, 2, w, null(), w, null(), y, w);
        NULL_POINTER "out is NULL": kvern_mean_pool(o.ctx, 2, good, 2, w, x, w, null(), null_mut(), w);
        SHAPE "starts = 2 must be at most the next one = 1":
            kvern_mean_pool(o.ctx, 2, down, 2, w, x, w, null(), y, w);
        SHAPE "starts = 9 must be at most x.rows = 2":
            kvern_mean_pool(o.ctx, 2, far, 2, w, x, w, null(), y, w);
        OPTION "seen[1] = 3": kvern_mean_pool(o.ctx, 2, good, 2, w, x, w, seen.as_ptr(), y, w);
        ALIASED "out overlaps x": kvern_mean_pool(o.ctx, 2, good, 2, w, y, w, null(), y, w);
        OVERFLOW "sequences + 1": kvern_mean_pool(o.ctx, usize::MAX, good, 2, w, x, w, null(), y, w);
        NULL_POINTER "ctx is NULL": kvern_cumulative_sum(null(), 0, 2, w, y, w);
        NULL_POINTER "x is NULL": kvern_cumulative_sum(o.ctx, 0, 2, w, null_mut(), w);
        OPTION "along = 2": kvern_cumulative_sum(o.ctx, 2, 2, w, y, w);
        NULL_POINTER "ctx is NULL": kvern_causal_conv(null(), 3, w, x, w, x, 0, s, 2, x, w, y, w);
        NULL_POINTER "weights is NULL": kvern_causal_conv(o.ctx, 3, w, null(), w, x, 0, s, 2, x, w, y, w);
        NULL_POINTER "state is NULL":
            kvern_causal_conv(o.ctx, 3, w, x, w, x, 0, null_mut(), 2, x, w, y, w);
        NULL_POINTER "x is NULL": kvern_causal_conv(o.ctx, 3, w, x, w, x, 0, s, 2, null(), w, y, w);
        NULL_POINTER "y is NULL": kvern_causal_conv(o.ctx, 3, w, x, w, x, 0, s, 2, x, w, null_mut(), w);
        OPTION "weights.rows = 1 must be 2..=8":
            kvern_causal_conv(o.ctx, 1, w, x, w, x, 0, s, 2, x, w, y, w);
        OPTION "weights.rows = 9 must be 2..=8":
            kvern_causal_conv(o.ctx, 9, w, x, w, x, 0, s, 2, x, w, y, w);
        OPTION "activation = 11": kvern_causal_conv(o.ctx, 3, w, x, w, x, 11, s, 2, x, w, y, w);
        ALIASED "state overlaps x": kvern_causal_conv(o.ctx, 3, w, x, w, x, 0, s, 2, s, w, y, w);
        ALIASED "y overlaps state": kvern_causal_conv(o.ctx, 3, w, x, w, x, 0, y, 2, x, w, y, w);
        ALIASED "y overlaps weights": kvern_causal_conv(o.ctx, 3, w, y, w, x, 0, s, 2, x, w, y, w);
        OVERFLOW "weights": kvern_causal_conv(o.ctx, usize::MAX, w, x, w, x, 0, s, 2, x, w, y, w);
    }
    assert!(outputs.iter().all(|&y| y == 2.0));
}

#[test]
fn choices_refuse_bad_arguments() {
    let (o, w) = (Objects::new(), WIDTH);
    let (mut outputs, inputs, mut ids) = (vec![2.0f32; 512], vec![1.0f32; 512], vec![9u32; 64]);
    let (y, x, i) = (outputs.as_mut_ptr(), inputs.as_ptr(), ids.as_mut_ptr());
    let v = y.wrapping_add(256);
    let two = router_options(2, KVERN_ROUTER_SOFTMAX);
    let none = router_options(0, KVERN_ROUTER_SOFTMAX);
    let many = router_options(17, KVERN_ROUTER_SOFTMAX);
    let score = router_options(2, 4);
    let by = kvern_router_options { group_score: 2, ..two };
    let groups = kvern_router_options { groups: 3, ..two };
    let kept = kvern_router_options { groups: 2, kept_groups: 3, ..two };
    let renormalize = kvern_router_options { renormalize: 2, ..two };
    let eps = kvern_router_options { renormalize: 1, renormalize_eps: -1.0, ..two };
    let flags = kvern_router_options { flags: 1, ..two };
    let over = kvern_router_options { bias: y, ..two };
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_top_k(null(), 2, w, 3, x, w, i, v);
        NULL_POINTER "x is NULL": kvern_top_k(o.ctx, 2, w, 3, null(), w, i, v);
        NULL_POINTER "indices is NULL": kvern_top_k(o.ctx, 2, w, 3, x, w, null_mut(), v);
        NULL_POINTER "values is NULL": kvern_top_k(o.ctx, 2, w, 3, x, w, i, null_mut());
        SHAPE "k = 17 must be at most x.cols = 16": kvern_top_k(o.ctx, 2, w, 17, x, w, i, v);
        ALIASED "values overlaps x": kvern_top_k(o.ctx, 2, w, 3, v, w, i, v);
        ALIASED "values overlaps indices": kvern_top_k(o.ctx, 2, w, 3, x, w, v.cast(), v);
        OVERFLOW "rows * k": kvern_top_k(o.ctx, 2, w, usize::MAX, x, w, i, v);
        NULL_POINTER "ctx is NULL": kvern_route(null(), &two, 2, w, y, i, v);
        NULL_POINTER "options is NULL": kvern_route(o.ctx, null(), 2, w, y, i, v);
        NULL_POINTER "logits is NULL": kvern_route(o.ctx, &two, 2, w, null_mut(), i, v);
        NULL_POINTER "indices is NULL": kvern_route(o.ctx, &two, 2, w, y, null_mut(), v);
        NULL_POINTER "weights is NULL": kvern_route(o.ctx, &two, 2, w, y, i, null_mut());
        SHAPE "chosen experts = 0 must be at least 1": kvern_route(o.ctx, &none, 2, w, y, i, v);
        SHAPE "chosen experts = 17": kvern_route(o.ctx, &many, 2, w, y, i, v);
        OPTION "options->score = 4": kvern_route(o.ctx, &score, 2, w, y, i, v);
        OPTION "options->group_score = 2": kvern_route(o.ctx, &by, 2, w, y, i, v);
        OPTION "groups = 3 must be 1..=64 and a divisor": kvern_route(o.ctx, &groups, 2, w, y, i, v);
        OPTION "kept groups = 3": kvern_route(o.ctx, &kept, 2, w, y, i, v);
        OPTION "options->renormalize = 2": kvern_route(o.ctx, &renormalize, 2, w, y, i, v);
        OPTION "renormalize = -1": kvern_route(o.ctx, &eps, 2, w, y, i, v);
        UNSUPPORTED "options->flags = 1": kvern_route(o.ctx, &flags, 2, w, y, i, v);
        ALIASED "logits overlaps options->bias": kvern_route(o.ctx, &over, 2, w, y, i, v);
        ALIASED "weights overlaps logits": kvern_route(o.ctx, &two, 2, w, y, i, y);
        OVERFLOW "tokens * experts": kvern_route(o.ctx, &two, usize::MAX, w, y, i, v);
    }
    assert!(outputs.iter().all(|&y| y == 2.0) && ids.iter().all(|&i| i == 9));
}
