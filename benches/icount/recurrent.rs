//! Recurrent states: one token, as in decoding, and more of them, as in a prompt.

use crate::inputs::{Mat, context};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::recurrent::{DeltaTokens, RecurrentState, ScanTokens, StateOptions, delta_rule, selective_scan};
use kvern::{Context, Isa};

const HEADS: usize = 2;
const DIM: usize = 128;

/// A state, and tokens for it.
pub struct Recurrent {
    ctx: Context,
    state: RecurrentState,
    keys: [Mat; 2],
    values: Mat,
    decay: Mat,
    each: Mat,
    beta: Mat,
    y: Mat,
}

fn recurrent(isa: Isa, tokens: usize) -> Recurrent {
    Recurrent {
        ctx: context(isa),
        state: RecurrentState::new(StateOptions::new(HEADS, DIM, DIM)).expect("memory"),
        keys: [1, 2].map(|seed| Mat::new(tokens, DIM, seed)),
        values: Mat::new(tokens, HEADS * DIM, 3),
        decay: Mat::zeros(tokens, HEADS),
        each: Mat::zeros(tokens, HEADS * DIM),
        beta: Mat::zeros(tokens, HEADS),
        y: Mat::zeros(tokens, HEADS * DIM),
    }
}

fn delta(mut r: Recurrent, of_each: bool) -> Recurrent {
    let decay = if of_each { r.each.view() } else { r.decay.view() };
    let [q, k] = [r.keys[0].view(), r.keys[1].view()];
    let tokens = DeltaTokens { q, k, v: r.values.view(), decay, beta: r.beta.view(), scale: 0.1 };
    delta_rule(&r.ctx, &mut r.state, &[0], &tokens, r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = recurrent)]
#[bench::scalar_2(Isa::Scalar, 2)]
#[bench::avx2_1(Isa::Avx2, 1)]
#[bench::avx2_32(Isa::Avx2, 32)]
fn gated_delta(r: Recurrent) -> Recurrent {
    delta(r, false)
}

#[library_benchmark(setup = recurrent)]
#[bench::scalar_2(Isa::Scalar, 2)]
#[bench::avx2_32(Isa::Avx2, 32)]
fn kimi_delta(r: Recurrent) -> Recurrent {
    delta(r, true)
}

#[library_benchmark(setup = recurrent)]
#[bench::scalar_2(Isa::Scalar, 2)]
#[bench::avx2_1(Isa::Avx2, 1)]
#[bench::avx2_32(Isa::Avx2, 32)]
fn scan(mut r: Recurrent) -> Recurrent {
    let [b, c] = [r.keys[0].view(), r.keys[1].view()];
    let tokens =
        ScanTokens { x: r.values.view(), dt: r.beta.view(), b, c, a: &[-1.0; HEADS], d: &[0.5; HEADS] };
    selective_scan(&r.ctx, &mut r.state, &[0], &tokens, r.y.view_mut()).expect("call");
    r
}

library_benchmark_group!(
    name = recurrent_group;
    benchmarks = gated_delta, kimi_delta, scan
);
