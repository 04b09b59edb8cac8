//! The operations of mixtures of experts and of hybrid decoders: routers, experts in one call and one by one,
//! norms with gates, short convolutions, pooling, sums over tokens.

use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::ops::{self, Along, ConvOptions, GroupScore, NormKind, NormOptions, RouterOptions, RouterScore};
use kvern::quant::{Compute, Expert, ExpertOptions, PackedWeights, WeightFormat, multiply_experts};
use kvern::{Activation, Context, Epilogue, Isa, MatMut, MatRef, Workspace};

const HIDDEN: usize = 512;
const FFN: usize = 256;
const EXPERTS: usize = 16;
const CHOSEN: usize = 4;

/// Experts of MXFP4, and tokens that chose some.
pub struct Mixture {
    ctx: Context,
    ws: Workspace,
    weights: Vec<[PackedWeights; 3]>,
    x: Mat,
    y: Mat,
    row: [Mat; 2],
    indices: Vec<u32>,
    by: Vec<f32>,
}

fn mixture(isa: Isa, tokens: usize) -> Mixture {
    let matrix = |n: usize, k: usize, seed: u32| {
        PackedWeights::quantize(WeightFormat::Mxfp4, Mat::new(n, k, seed).view()).expect("shape")
    };
    let expert =
        |e: usize| [(FFN, HIDDEN), (FFN, HIDDEN), (HIDDEN, FFN)].map(|(n, k)| matrix(n, k, e as u32));
    Mixture {
        ctx: context(isa),
        ws: workspace(),
        weights: (0..EXPERTS).map(expert).collect(),
        x: Mat::new(tokens, HIDDEN, 1),
        y: Mat::zeros(tokens, HIDDEN),
        row: [Mat::zeros(1, FFN), Mat::zeros(1, HIDDEN)],
        indices: (0..tokens * CHOSEN).map(|i| (i * 5 % EXPERTS) as u32).collect(),
        by: vec![0.25; tokens * CHOSEN],
    }
}

#[library_benchmark(setup = mixture)]
#[bench::scalar_1(Isa::Scalar, 1)]
#[bench::avx2_1(Isa::Avx2, 1)]
#[bench::avx2_8(Isa::Avx2, 8)]
#[bench::avx2_64(Isa::Avx2, 64)]
fn experts(mut m: Mixture) -> Mixture {
    let experts: [Expert<'_>; EXPERTS] = std::array::from_fn(|e| {
        let [gate, up, down] = &m.weights[e];
        Expert::new(gate, Some(up), down)
    });
    let options = ExpertOptions::new(Compute::Int8, Activation::Silu);
    let (x, y) = (m.x.view(), m.y.view_mut());
    multiply_experts(&m.ctx, &mut m.ws, &options, &experts, x, &m.indices, &m.by, y).expect("call");
    m
}

// The same as products of one token and one expert each.
#[library_benchmark(setup = mixture)]
#[bench::avx2_8(Isa::Avx2, 8)]
#[bench::avx2_64(Isa::Avx2, 64)]
fn experts_one_by_one(mut m: Mixture) -> Mixture {
    let e = Epilogue::default();
    for pair in 0..m.indices.len() {
        let [gate, up, down] = &m.weights[m.indices[pair] as usize];
        let x = m.x.view().row(pair / CHOSEN).expect("a token");
        let x = MatRef::dense(x, 1, HIDDEN).expect("shape");
        let [h, d] = &mut m.row;
        let silu = e.activation(Activation::Silu);
        gate.multiply_gated(&m.ctx, &mut m.ws, Compute::Int8, x, up, h.view_mut(), &silu).expect("call");
        down.multiply(&m.ctx, &mut m.ws, Compute::Int8, h.view(), d.view_mut(), &e).expect("call");
        let out = &mut m.y.as_mut_slice()[pair / CHOSEN * HIDDEN..][..HIDDEN];
        let out = MatMut::dense(out, 1, HIDDEN).expect("shape");
        ops::add_scaled(&m.ctx, out, m.by[pair], d.view()).expect("call");
    }
    m
}

/// Rows with what the operations over them take.
pub struct Rows {
    ctx: Context,
    x: Mat,
    z: Mat,
    y: Mat,
    taps: Mat,
    state: Vec<f32>,
    part: Vec<f32>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

/// Taps of the convolution.
const TAPS: usize = 4;

fn rows(isa: Isa, n: usize) -> Rows {
    Rows {
        ctx: context(isa),
        x: Mat::new(n, HIDDEN, 1),
        z: Mat::new(n, HIDDEN, 2),
        y: Mat::zeros(n, HIDDEN),
        taps: Mat::new(TAPS, HIDDEN, 3),
        state: vec![0.5; (TAPS - 1) * HIDDEN],
        part: vec![0.5; HIDDEN],
        indices: vec![0; n * 8],
        values: vec![0.0; n * 8],
    }
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn gated_norm(mut r: Rows) -> Rows {
    let options = NormOptions::new(NormKind::Rms, 1e-6).gain(&r.part).gate(Activation::Silu, r.z.view());
    ops::norm(&r.ctx, &options, r.x.view(), r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn unit_norm(mut r: Rows) -> Rows {
    let options = NormOptions::new(NormKind::Unit, 1e-12);
    ops::norm(&r.ctx, &options, r.x.view(), r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn mean_pool(mut r: Rows) -> Rows {
    let n = r.x.view().rows();
    ops::mean_pool(&r.ctx, r.x.view(), &[0, n / 2, n], None, r.y.first_mut(2)).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn cumulative_sum(mut r: Rows) -> Rows {
    ops::cumulative_sum(&r.ctx, Along::Column, r.x.view_mut());
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_1(Isa::Avx2, 1)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn causal_conv(mut r: Rows) -> Rows {
    let options = ConvOptions::new(r.taps.view()).bias(&r.part);
    ops::causal_conv(&r.ctx, &options, r.x.view(), &mut r.state, r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::any_64(Isa::Scalar, 64)]
fn top_k(mut r: Rows) -> Rows {
    ops::top_k(&r.ctx, r.x.view(), 8, &mut r.indices, &mut r.values).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_64(Isa::Avx2, 64)]
fn route(mut r: Rows) -> Rows {
    let options = RouterOptions::new(8, RouterScore::Sigmoid).bias(&r.part).renormalize(1e-20);
    let options = options.groups(8, 4, GroupScore::BestTwo).scale(2.5);
    let (x, indices, values) = (r.x.as_mut_slice(), &mut r.indices, &mut r.values);
    ops::route(&r.ctx, &options, HIDDEN, x, indices, values).expect("call");
    r
}

library_benchmark_group!(
    name = mixtures_group;
    benchmarks =
        experts, experts_one_by_one, gated_norm, unit_norm, mean_pool, cumulative_sum, causal_conv, top_k,
        route
);
