//! The row operations, on a ragged width and on enough rows for several threads.

use super::{Cases, numbers};
use kvern::ops::{self, Along, ConvOptions, GroupScore, NormKind, NormOptions, RopePairs, RopeTable};
use kvern::ops::{RouterOptions, RouterScore, TimeStepOptions};
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::recurrent::{DeltaTokens, RecurrentState, ScanTokens, StateOptions, delta_rule, selective_scan};
use kvern::{Activation, MatMut, MatRef};

pub fn cases(cases: &mut Cases<'_>) {
    for (rows, cols) in [(5, 96), (700, 96), (3, 515)] {
        shapes(cases, rows, cols);
    }
    rotations(cases);
    axes(cases);
    lookups(cases);
    norms(cases);
    tokens(cases);
    routers(cases);
    recurrences(cases);
}

fn shapes(cases: &mut Cases<'_>, rows: usize, cols: usize) {
    let ctx = cases.ctx;
    let (x, z) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
    let (gain, bias) = (numbers(cols, 3), numbers(cols, 4));
    let dense = |x| MatRef::dense(x, rows, cols).unwrap();
    let mut y = vec![0.0; rows * cols];
    let out = MatMut::dense(&mut y, rows, cols).unwrap();
    ops::layer_norm(ctx, dense(&x), &gain, &bias, 1e-5, out).unwrap();
    cases.take(format!("layer_norm {rows}x{cols}"), &y);
    ops::rms_norm(ctx, dense(&x), &gain, 1e-5, MatMut::dense(&mut y, rows, cols).unwrap()).unwrap();
    cases.take(format!("rms_norm {rows}x{cols}"), &y);
    for (name, f) in [("relu", Activation::Relu), ("gelu", Activation::Gelu), ("silu", Activation::Silu)] {
        let mut y = x.clone();
        ops::activate(ctx, f, MatMut::dense(&mut y, rows, cols).unwrap());
        cases.take(format!("{name} {rows}x{cols}"), &y);
    }
    let mut y = x.clone();
    ops::silu_mul(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
    cases.take(format!("silu_mul {rows}x{cols}"), &y);
    let mut y = x.clone();
    ops::add(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
    cases.take(format!("add {rows}x{cols}"), &y);
    for activation in Activation::ALL {
        let mut y = x.clone();
        ops::activate_mul(ctx, activation, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
        cases.take(format!("activate_mul {activation:?} {rows}x{cols}"), &y);
    }
    let mut y = x.clone();
    ops::swiglu_oai(ctx, 1.702, 7.0, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
    cases.take(format!("swiglu_oai {rows}x{cols}"), &y);
    ops::add_scaled(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), 0.3, dense(&z)).unwrap();
    cases.take(format!("add_scaled {rows}x{cols}"), &y);
    ops::scale(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), 0.7);
    cases.take(format!("scale {rows}x{cols}"), &y);
    ops::softcap(ctx, 0.9, MatMut::dense(&mut y, rows, cols).unwrap()).unwrap();
    cases.take(format!("softcap {rows}x{cols}"), &y);
    let mut y = x.clone();
    ops::softmax(ctx, MatMut::dense(&mut y, rows, cols).unwrap());
    cases.take(format!("softmax {rows}x{cols}"), &y);
    let found = ops::argmax(ctx, &y).unwrap() as u64;
    cases.take_bytes(format!("argmax {rows}x{cols}"), &found.to_le_bytes());
}

fn rotations(cases: &mut Cases<'_>) {
    let (rows, cols, dim) = (300, 256, 64);
    for rotary in [64, 24] {
        let table = RopeTable::new(rotary, 400, 10000.0).unwrap();
        for (name, pairs) in [("halves", RopePairs::Halves), ("interleaved", RopePairs::Interleaved)] {
            let mut x = numbers(rows * cols, 5);
            let view = MatMut::dense(&mut x, rows, cols).unwrap();
            ops::rope(cases.ctx, &table, pairs, dim, 77, view).unwrap();
            cases.take(format!("rope {name} {rotary} of {dim}"), &x);
        }
    }
}

fn axes(cases: &mut Cases<'_>) {
    let (rows, cols, dim, sections) = (300, 256, 64, [8, 12, 12]);
    let table = RopeTable::with_factors(&[1.5; 32], 400, 1e6, 1.1).unwrap();
    let positions: Vec<usize> = (0..3 * rows).map(|i| i * i % 400).collect();
    for (name, interleaved) in [("sections", false), ("interleaved sections", true)] {
        let (mut x, mut axes) = (numbers(rows * cols, 5), vec![0; 32]);
        ops::rope_sections(&sections, interleaved, &mut axes).unwrap();
        let view = MatMut::dense(&mut x, rows, cols).unwrap();
        ops::rope_axes(cases.ctx, &table, RopePairs::Halves, dim, &axes, &positions, view).unwrap();
        cases.take(format!("rope of {name}"), &x);
    }
}

fn lookups(cases: &mut Cases<'_>) {
    let (vocabulary, cols) = (50, 160);
    let table = numbers(vocabulary * cols, 6);
    let table = MatRef::dense(&table, vocabulary, cols).unwrap();
    let ids: Vec<u32> = (0..600).map(|i| i * 7 % 50).collect();
    let mut out = vec![0.0; ids.len() * cols];
    let view = MatMut::dense(&mut out, ids.len(), cols).unwrap();
    ops::embedding(cases.ctx, table, &ids, view).unwrap();
    cases.take("embedding", &out);
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
        let packed = PackedWeights::quantize(format, table).unwrap();
        let view = MatMut::dense(&mut out, ids.len(), cols).unwrap();
        ops::embedding_quantized(cases.ctx, &packed, &ids, view).unwrap();
        cases.take(format!("embedding_quantized {}", format.name()), &out);
    }
}

fn norms(cases: &mut Cases<'_>) {
    let (rows, cols) = (300, 258);
    let (x, z, gain) = (numbers(rows * cols, 7), numbers(rows * cols, 8), numbers(cols, 9));
    let dense = |x| MatRef::dense(x, rows, cols).unwrap();
    for kind in [NormKind::Rms, NormKind::Layer, NormKind::L2, NormKind::Unit] {
        let plain = NormOptions::new(kind, 1e-5);
        let gated = plain.gain(&gain).gate(Activation::Silu, dense(&z));
        let gate_first = plain.gain(&gain[..129]).groups(2).gate_first(Activation::Sigmoid, dense(&z));
        for (name, options) in [("plain", plain), ("gated", gated), ("gate first", gate_first)] {
            let mut y = vec![0.0; rows * cols];
            let out = MatMut::dense(&mut y, rows, cols).unwrap();
            ops::norm(cases.ctx, &options, dense(&x), out).unwrap();
            cases.take(format!("norm {kind:?} {name}"), &y);
        }
    }
}

fn tokens(cases: &mut Cases<'_>) {
    let (rows, cols) = (300, 515);
    let x = numbers(rows * cols, 10);
    let mut y = vec![0.0; 3 * cols];
    let seen: Vec<bool> = (0..rows).map(|i| i % 5 != 2).collect();
    let out = MatMut::dense(&mut y, 3, cols).unwrap();
    let dense = MatRef::dense(&x, rows, cols).unwrap();
    ops::mean_pool(cases.ctx, dense, &[0, 100, 101, 300], Some(&seen), out).unwrap();
    cases.take("mean_pool", &y);
    for along in [Along::Row, Along::Column] {
        let mut y = x.clone();
        ops::cumulative_sum(cases.ctx, along, MatMut::dense(&mut y, rows, cols).unwrap());
        cases.take(format!("cumulative_sum {along:?}"), &y);
    }
    for taps in [2, 4, 8] {
        let (weights, bias) = (numbers(taps * cols, 11), numbers(cols, 12));
        let (mut state, mut y) = (numbers((taps - 1) * cols, 13), vec![0.0; rows * cols]);
        let options = ConvOptions::new(MatRef::dense(&weights, taps, cols).unwrap()).bias(&bias);
        let options = options.activation(Activation::Silu);
        let out = MatMut::dense(&mut y, rows, cols).unwrap();
        ops::causal_conv(cases.ctx, &options, dense, &mut state, out).unwrap();
        y.extend(state);
        cases.take(format!("causal_conv {taps}"), &y);
    }
}

fn routers(cases: &mut Cases<'_>) {
    let (tokens, experts, chosen) = (600, 128, 8);
    let (logits, bias) = (numbers(tokens * experts, 14), numbers(experts, 15));
    let (mut indices, mut weights) = (vec![0; tokens * chosen], vec![0.0; tokens * chosen]);
    let dense = MatRef::dense(&logits, tokens, experts).unwrap();
    ops::top_k(cases.ctx, dense, chosen, &mut indices, &mut weights).unwrap();
    cases.take("top_k", &weights);
    cases.take_bytes("top_k places", &indices.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>());
    for score in [
        RouterScore::Softmax,
        RouterScore::SoftmaxOfChosen,
        RouterScore::Sigmoid,
        RouterScore::SigmoidOfChosen,
    ] {
        let plain = RouterOptions::new(chosen, score).renormalize(1e-20);
        let grouped = plain.bias(&bias).groups(8, 4, GroupScore::BestTwo).scale(2.5);
        for (name, options) in [("plain", plain), ("grouped", grouped)] {
            let mut logits = logits.clone();
            ops::route(cases.ctx, &options, experts, &mut logits, &mut indices, &mut weights).unwrap();
            logits.extend(&weights);
            cases.take(format!("route {score:?} {name}"), &logits);
            let places: Vec<u8> = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
            cases.take_bytes(format!("route {score:?} {name} places"), &places);
        }
    }
}

fn recurrences(cases: &mut Cases<'_>) {
    let ctx = cases.ctx;
    for (heads, keys, values, tokens) in [(4, 16, 24, 9), (4, 128, 128, 5)] {
        let (rows, n) = (2 * tokens, heads * values);
        let size = |x: Vec<f32>, by: f32| -> Vec<f32> { x.iter().map(|x| x * by).collect() };
        let (q, k) = (size(numbers(rows * 2 * keys, 1), 0.1), size(numbers(rows * 2 * keys, 2), 0.03));
        let (v, beta) = (numbers(rows * n, 3), size(numbers(rows * heads, 4), 0.2));
        let negative = |x: Vec<f32>| -> Vec<f32> { x.iter().map(|x| -x.abs()).collect() };
        let (decay, each) = (negative(numbers(rows * heads, 5)), negative(numbers(rows * heads * keys, 6)));
        let m = |x| MatRef::dense(x, rows, <[f32]>::len(x) / rows).unwrap();
        let shape = format!("{heads} x {keys} x {values} x {tokens}");
        for (name, decay) in [("", &decay), (" of each key element", &each)] {
            let mut state = RecurrentState::new(StateOptions::new(heads, keys, values).sequences(3)).unwrap();
            let tokens =
                DeltaTokens { q: m(&q), k: m(&k), v: m(&v), decay: m(decay), beta: m(&beta), scale: 0.25 };
            let mut y = vec![0.0; (rows * n).max(keys * values)];
            let out = MatMut::dense(&mut y[..rows * n], rows, n).unwrap();
            delta_rule(ctx, &mut state, &[2, 0], &tokens, out).unwrap();
            cases.take(format!("delta rule, decay{name} {shape}"), &y[..rows * n]);
            state.read(2, heads - 1, &mut y[..keys * values]).unwrap();
            cases.take(format!("delta rule, state{name} {shape}"), &y[..keys * values]);
        }
        let mut state = RecurrentState::new(StateOptions::new(heads, keys, values)).unwrap();
        let (mut dt, mut y) = (vec![0.0; rows * heads], vec![0.0; rows * n]);
        let options = TimeStepOptions::default().bias(&decay[..heads]).limits(0.01, 3.0);
        ops::time_step(ctx, &options, m(&beta), MatMut::dense(&mut dt, rows, heads).unwrap()).unwrap();
        cases.take(format!("time_step {rows}x{heads}"), &dt);
        let (a, d) = (&decay[..heads], &beta[..heads]);
        let tokens = ScanTokens { x: m(&v), dt: m(&dt), b: m(&k), c: m(&q), a, d };
        selective_scan(ctx, &mut state, &[0], &tokens, MatMut::dense(&mut y, rows, n).unwrap()).unwrap();
        cases.take(format!("selective_scan {shape}"), &y);
    }
}
