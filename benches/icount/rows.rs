//! The row operations: norms, activations, softmax, RoPE, embeddings, argmax.

use crate::inputs::{Mat, context};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::ops::{self, RopePairs, RopeScaling, RopeTable, SoftmaxOptions};
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::{Activation, Context, Isa};
use std::hint::black_box;

/// Elements of a row.
const COLS: usize = 512;

/// Operands of every row operation.
pub struct Rows {
    ctx: Context,
    x: Mat,
    z: Mat,
    y: Mat,
    gain: Vec<f32>,
    bias: Vec<f32>,
}

fn rows(isa: Isa, n: usize) -> Rows {
    let (x, z, y) = (Mat::new(n, COLS, 1), Mat::new(n, COLS, 2), Mat::zeros(n, COLS));
    Rows { ctx: context(isa), x, z, y, gain: vec![1.5; COLS], bias: vec![0.5; COLS] }
}

#[library_benchmark(setup = rows)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn layer_norm(mut r: Rows) -> Rows {
    ops::layer_norm(&r.ctx, r.x.view(), &r.gain, &r.bias, 1e-5, r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn rms_norm(mut r: Rows) -> Rows {
    ops::rms_norm(&r.ctx, r.x.view(), &r.gain, 1e-5, r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn softmax(mut r: Rows) -> Rows {
    ops::softmax(&r.ctx, r.x.view_mut());
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn softmax_masked(mut r: Rows) -> Rows {
    let options = SoftmaxOptions::default().scale(0.125).mask(r.z.view());
    ops::softmax_with(&r.ctx, &options, r.x.view(), r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn softmax_capped(mut r: Rows) -> Rows {
    let options = SoftmaxOptions::default().softcap(30.0);
    ops::softmax_with(&r.ctx, &options, r.x.view(), r.y.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn relu(mut r: Rows) -> Rows {
    ops::activate(&r.ctx, Activation::Relu, r.x.view_mut());
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn gelu(mut r: Rows) -> Rows {
    ops::activate(&r.ctx, Activation::Gelu, r.x.view_mut());
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn silu(mut r: Rows) -> Rows {
    ops::activate(&r.ctx, Activation::Silu, r.x.view_mut());
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_16(Isa::Scalar, 16)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn silu_mul(mut r: Rows) -> Rows {
    ops::silu_mul(&r.ctx, r.x.view_mut(), r.z.view()).expect("call");
    r
}

fn activated(isa: Isa, n: usize, activation: Activation) -> (Rows, Activation) {
    (rows(isa, n), activation)
}

#[library_benchmark(setup = activated)]
#[bench::avx2_gelu_erf_128(Isa::Avx2, 128, Activation::GeluErf)]
#[bench::avx2_gelu_quick_128(Isa::Avx2, 128, Activation::GeluQuick)]
#[bench::avx2_relu_squared_128(Isa::Avx2, 128, Activation::ReluSquared)]
#[bench::avx2_sigmoid_128(Isa::Avx2, 128, Activation::Sigmoid)]
#[bench::avx2_tanh_128(Isa::Avx2, 128, Activation::Tanh)]
#[bench::avx2_softplus_128(Isa::Avx2, 128, Activation::Softplus)]
#[bench::avx2_exp_128(Isa::Avx2, 128, Activation::Exp)]
#[bench::scalar_gelu_erf_16(Isa::Scalar, 16, Activation::GeluErf)]
fn activation((mut r, activation): (Rows, Activation)) -> Rows {
    ops::activate(&r.ctx, activation, r.x.view_mut());
    r
}

#[library_benchmark(setup = rows)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn swiglu_oai(mut r: Rows) -> Rows {
    ops::swiglu_oai(&r.ctx, 1.702, 7.0, r.x.view_mut(), r.z.view()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn add_scaled(mut r: Rows) -> Rows {
    ops::add_scaled(&r.ctx, r.x.view_mut(), 0.22, r.z.view()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn scale(mut r: Rows) -> Rows {
    ops::scale(&r.ctx, r.x.view_mut(), 12.0);
    r
}

#[library_benchmark(setup = rows)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn softcap(mut r: Rows) -> Rows {
    ops::softcap(&r.ctx, 30.0, r.x.view_mut()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn add(mut r: Rows) -> Rows {
    ops::add(&r.ctx, r.x.view_mut(), r.z.view()).expect("call");
    r
}

#[library_benchmark(setup = rows)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn argmax(r: Rows) -> (Rows, Option<usize>) {
    let found = ops::argmax(&r.ctx, r.x.as_slice());
    (r, found)
}

/// Rows to rotate, in heads of 64.
pub struct Rotation {
    rows: Rows,
    table: RopeTable,
    pairs: RopePairs,
}

fn halves(isa: Isa, n: usize) -> Rotation {
    rotation(isa, n, RopePairs::Halves)
}

fn interleaved(isa: Isa, n: usize) -> Rotation {
    rotation(isa, n, RopePairs::Interleaved)
}

fn rotation(isa: Isa, n: usize, pairs: RopePairs) -> Rotation {
    Rotation { rows: rows(isa, n), table: RopeTable::new(64, n, 10000.0).expect("memory"), pairs }
}

impl Rotation {
    fn run(mut self) -> Rotation {
        let Rows { ctx, x, .. } = &mut self.rows;
        ops::rope(ctx, &self.table, self.pairs, 64, 0, x.view_mut()).expect("call");
        self
    }
}

#[library_benchmark(setup = halves)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn rope_halves(r: Rotation) -> Rotation {
    black_box(r.run())
}

#[library_benchmark(setup = interleaved)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn rope_interleaved(r: Rotation) -> Rotation {
    black_box(r.run())
}

fn partial(isa: Isa, n: usize) -> Rotation {
    Rotation { table: RopeTable::new(32, n, 10000.0).expect("memory"), ..halves(isa, n) }
}

// Half of each head.
#[library_benchmark(setup = partial)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn rope_partial(r: Rotation) -> Rotation {
    black_box(r.run())
}

/// Rows to rotate at positions of their own.
pub struct At {
    rotation: Rotation,
    positions: Vec<usize>,
}

fn at(isa: Isa, n: usize) -> At {
    At { rotation: halves(isa, n), positions: (0..n).rev().collect() }
}

#[library_benchmark(setup = at)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn rope_at(mut a: At) -> At {
    let Rotation { rows: Rows { ctx, x, .. }, table, pairs } = &mut a.rotation;
    ops::rope_at(ctx, table, *pairs, 64, &a.positions, x.view_mut()).expect("call");
    a
}

#[library_benchmark]
#[bench::any_plain(RopeScaling::None)]
#[bench::any_yarn(RopeScaling::yarn(4.0, 4096))]
#[bench::any_llama3(RopeScaling::llama3(8.0, 8192))]
fn rope_table(scaling: RopeScaling) -> RopeTable {
    RopeTable::scaled(64, 64, 10000.0, &scaling).expect("memory")
}

/// A table, plain and quantised, and the rows to fetch.
pub struct Lookup {
    rows: Rows,
    quantised: PackedWeights,
    ids: Vec<u32>,
}

fn lookup(isa: Isa, n: usize) -> Lookup {
    let rows = rows(isa, n);
    let quantised = PackedWeights::quantize(WeightFormat::Q4_0, rows.x.view()).expect("memory");
    Lookup { rows, quantised, ids: (0..n as u32).rev().collect() }
}

#[library_benchmark(setup = lookup)]
#[bench::scalar_512(Isa::Scalar, 512)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn embedding(mut l: Lookup) -> Lookup {
    ops::embedding(&l.rows.ctx, l.rows.x.view(), &l.ids, l.rows.y.view_mut()).expect("call");
    l
}

#[library_benchmark(setup = lookup)]
#[bench::scalar_64(Isa::Scalar, 64)]
#[bench::avx2_64(Isa::Avx2, 64)]
fn embedding_quantized(mut l: Lookup) -> Lookup {
    ops::embedding_quantized(&l.rows.ctx, &l.quantised, &l.ids, l.rows.y.view_mut()).expect("call");
    l
}

library_benchmark_group!(
    name = rows_group;
    benchmarks =
        layer_norm, rms_norm, softmax, relu, gelu, silu, silu_mul, activation, swiglu_oai, add, add_scaled,
        scale, softcap, argmax, rope_halves, rope_interleaved, rope_partial, rope_at, rope_table,
        softmax_masked, softmax_capped, embedding,
        embedding_quantized
);
