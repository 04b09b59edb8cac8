//! Matrix products with f32, f16 and bf16 weights: plain, transposed, packed, with epilogues.

use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::matmul::{Precision, Weight, matmul};
use kvern::{Activation, Context, Epilogue, Isa, MatMut, MatRef, PackedB, Workspace, bf16, f16};
use std::hint::black_box;

/// One product, ready to run.
pub struct Product {
    ctx: Context,
    ws: Workspace,
    a: Mat,
    b: Mat,
    c: Mat,
    bias: Vec<f32>,
}

impl Product {
    fn plain(mut self) -> Product {
        let e = Epilogue::default();
        matmul(&self.ctx, &mut self.ws, self.a.view(), self.b.view(), self.c.view_mut(), &e).expect("call");
        self
    }
}

/// `(m, k) x (k, n)`.
fn product(isa: Isa, m: usize, n: usize, k: usize) -> Product {
    let (a, b, c) = (Mat::new(m, k, 1), Mat::new(k, n, 2), Mat::new(m, n, 3));
    Product { ctx: context(isa), ws: workspace(), a, b, c, bias: vec![0.5; n] }
}

fn square(isa: Isa, n: usize) -> Product {
    product(isa, n, n, n)
}

#[library_benchmark(setup = square)]
#[bench::scalar_32(Isa::Scalar, 32)]
#[bench::avx2_64(Isa::Avx2, 64)]
#[bench::avx2_128(Isa::Avx2, 128)]
#[bench::avx2_256(Isa::Avx2, 256)]
fn f32_square(p: Product) -> Product {
    black_box(p.plain())
}

#[library_benchmark(setup = square)]
#[bench::scalar_32(Isa::Scalar, 32)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn f32_transposed_a(mut p: Product) -> Product {
    let e = Epilogue::default();
    matmul(&p.ctx, &mut p.ws, p.a.view().t(), p.b.view(), p.c.view_mut(), &e).expect("call");
    p
}

#[library_benchmark(setup = square)]
#[bench::scalar_32(Isa::Scalar, 32)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn f32_transposed_b(mut p: Product) -> Product {
    let e = Epilogue::default();
    matmul(&p.ctx, &mut p.ws, p.a.view(), p.b.view().t(), p.c.view_mut(), &e).expect("call");
    p
}

#[library_benchmark(setup = square)]
#[bench::scalar_32(Isa::Scalar, 32)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn f32_bias_gelu_residual(mut p: Product) -> Product {
    let e = Epilogue::default().scaled(0.5, 1.0).bias(&p.bias).activation(Activation::Gelu);
    matmul(&p.ctx, &mut p.ws, p.a.view(), p.b.view(), p.c.view_mut(), &e).expect("call");
    p
}

/// A product and what is done to its result.
fn with_activation(isa: Isa, activation: Activation, n: usize) -> (Product, Activation) {
    (square(isa, n), activation)
}

#[library_benchmark(setup = with_activation)]
#[bench::scalar_relu_32(Isa::Scalar, Activation::Relu, 32)]
#[bench::scalar_silu_32(Isa::Scalar, Activation::Silu, 32)]
#[bench::avx2_relu_128(Isa::Avx2, Activation::Relu, 128)]
#[bench::avx2_silu_128(Isa::Avx2, Activation::Silu, 128)]
fn f32_activation((mut p, activation): (Product, Activation)) -> Product {
    let e = Epilogue::default().bias(&p.bias).activation(activation);
    matmul(&p.ctx, &mut p.ws, p.a.view(), p.b.view(), p.c.view_mut(), &e).expect("call");
    p
}

fn one_row(isa: Isa, n: usize) -> Product {
    product(isa, 1, n, n)
}

#[library_benchmark(setup = one_row)]
#[bench::scalar_128(Isa::Scalar, 128)]
#[bench::avx2_1024(Isa::Avx2, 1024)]
fn f32_one_row(p: Product) -> Product {
    black_box(p.plain())
}

// Weights as they are stored by most models, (out_features, in_features), multiplied without packing.
#[library_benchmark(setup = one_row)]
#[bench::scalar_128(Isa::Scalar, 128)]
#[bench::avx2_1024(Isa::Avx2, 1024)]
fn f32_one_row_transposed(mut p: Product) -> Product {
    let e = Epilogue::default();
    matmul(&p.ctx, &mut p.ws, p.a.view(), p.b.view().t(), p.c.view_mut(), &e).expect("call");
    p
}

/// One product with packed weights, ready to run.
pub struct Packed {
    ctx: Context,
    ws: Workspace,
    a: Mat,
    b: PackedB,
    c: Mat,
    precision: Precision,
}

impl Packed {
    fn run(mut self) -> Packed {
        let e = Epilogue::default();
        let (a, c) = (self.a.view(), self.c.view_mut());
        self.b.multiply_with(&self.ctx, &mut self.ws, self.precision, a, c, &e).expect("call");
        self
    }
}

fn pack_weights<T: Weight>(isa: Isa, m: usize, n: usize, convert: fn(f32) -> T) -> Packed {
    let Product { ctx, ws, a, b, c, .. } = product(isa, m, n, n);
    let b: Vec<T> = b.as_slice().iter().map(|&x| convert(x)).collect();
    let b = PackedB::pack(&ctx, MatRef::dense(&b, n, n).expect("shape")).expect("memory");
    Packed { ctx, ws, a, b, c, precision: Precision::Exact }
}

fn packed_f32(isa: Isa, m: usize, n: usize) -> Packed {
    pack_weights(isa, m, n, |x| x)
}

fn packed_f16(isa: Isa, m: usize, n: usize) -> Packed {
    pack_weights(isa, m, n, f16::from_f32)
}

fn packed_bf16(isa: Isa, m: usize, n: usize) -> Packed {
    pack_weights(isa, m, n, bf16::from_f32)
}

fn packed_bf16_fast(isa: Isa, m: usize, n: usize) -> Packed {
    Packed { precision: Precision::Fast, ..packed_bf16(isa, m, n) }
}

#[library_benchmark(setup = packed_f32)]
#[bench::scalar_32x32(Isa::Scalar, 32, 32)]
#[bench::scalar_1x128(Isa::Scalar, 1, 128)]
#[bench::avx2_128x128(Isa::Avx2, 128, 128)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
fn f32_packed(p: Packed) -> Packed {
    black_box(p.run())
}

#[library_benchmark(setup = packed_f16)]
#[bench::scalar_32x32(Isa::Scalar, 32, 32)]
#[bench::avx2_128x128(Isa::Avx2, 128, 128)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
fn f16_packed(p: Packed) -> Packed {
    black_box(p.run())
}

#[library_benchmark(setup = packed_bf16)]
#[bench::scalar_32x32(Isa::Scalar, 32, 32)]
#[bench::avx2_128x128(Isa::Avx2, 128, 128)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
fn bf16_packed(p: Packed) -> Packed {
    black_box(p.run())
}

// Without bf16 dot instructions this has to cost what the exact product costs.
#[library_benchmark(setup = packed_bf16_fast)]
#[bench::avx2_128x128(Isa::Avx2, 128, 128)]
fn bf16_packed_fast(p: Packed) -> Packed {
    black_box(p.run())
}

/// A product with packed weights whose result is not f32.
pub struct Narrow {
    packed: Packed,
    c16: Vec<f16>,
    cb16: Vec<bf16>,
}

fn narrow(isa: Isa, m: usize, n: usize) -> Narrow {
    Narrow { packed: packed_f16(isa, m, n), c16: vec![f16::ZERO; m * n], cb16: vec![bf16::ZERO; m * n] }
}

#[library_benchmark(setup = narrow)]
#[bench::scalar_32x32(Isa::Scalar, 32, 32)]
#[bench::avx2_128x128(Isa::Avx2, 128, 128)]
fn f16_to_f16(mut x: Narrow) -> Narrow {
    let Packed { ctx, ws, a, b, .. } = &mut x.packed;
    let c = MatMut::dense(&mut x.c16, a.view().rows(), b.n()).expect("shape");
    b.multiply_with(ctx, ws, Precision::Exact, a.view(), c, &Epilogue::default()).expect("call");
    x
}

#[library_benchmark(setup = narrow)]
#[bench::scalar_32x32(Isa::Scalar, 32, 32)]
#[bench::avx2_128x128(Isa::Avx2, 128, 128)]
fn f16_to_bf16(mut x: Narrow) -> Narrow {
    let Packed { ctx, ws, a, b, .. } = &mut x.packed;
    let c = MatMut::dense(&mut x.cb16, a.view().rows(), b.n()).expect("shape");
    b.multiply_with(ctx, ws, Precision::Exact, a.view(), c, &Epilogue::default()).expect("call");
    x
}

/// A gate and its factor.
fn gate(isa: Isa, m: usize, n: usize) -> (Packed, PackedB) {
    (packed_f32(isa, m, n), packed_f32(isa, m, n).b)
}

#[library_benchmark(setup = gate)]
#[bench::scalar_32x32(Isa::Scalar, 32, 32)]
#[bench::avx2_128x128(Isa::Avx2, 128, 128)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
fn f32_gated((mut p, up): (Packed, PackedB)) -> (Packed, PackedB) {
    let e = Epilogue::default().activation(Activation::Silu);
    let c = p.c.view_mut();
    p.b.multiply_gated(&p.ctx, &mut p.ws, p.precision, p.a.view(), &up, c, &e).expect("call");
    (p, up)
}

/// Weights of 16 bits to pack.
pub struct Halves {
    ctx: Context,
    n: usize,
    f16: Vec<f16>,
    bf16: Vec<bf16>,
}

fn halves(isa: Isa, n: usize) -> Halves {
    let w = Mat::new(n, n, 2);
    let f16 = w.as_slice().iter().map(|&x| f16::from_f32(x)).collect();
    Halves { ctx: context(isa), n, f16, bf16: w.as_slice().iter().map(|&x| bf16::from_f32(x)).collect() }
}

#[library_benchmark(setup = halves)]
#[bench::scalar_256(Isa::Scalar, 256)]
#[bench::avx2_256(Isa::Avx2, 256)]
fn pack_f16(h: Halves) -> (Halves, PackedB) {
    let packed = PackedB::pack(&h.ctx, MatRef::dense(&h.f16, h.n, h.n).expect("shape")).expect("memory");
    (h, packed)
}

#[library_benchmark(setup = halves)]
#[bench::scalar_256(Isa::Scalar, 256)]
#[bench::avx2_256(Isa::Avx2, 256)]
fn pack_bf16(h: Halves) -> (Halves, PackedB) {
    let packed = PackedB::pack(&h.ctx, MatRef::dense(&h.bf16, h.n, h.n).expect("shape")).expect("memory");
    (h, packed)
}

#[library_benchmark(setup = square)]
#[bench::scalar_256(Isa::Scalar, 256)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn pack_f32_transposed(p: Product) -> (Product, PackedB) {
    let packed = PackedB::pack(&p.ctx, p.b.view().t()).expect("memory");
    (p, packed)
}

#[library_benchmark(setup = square)]
#[bench::scalar_256(Isa::Scalar, 256)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn pack_f32(p: Product) -> (Product, PackedB) {
    let packed = PackedB::pack(&p.ctx, p.b.view()).expect("memory");
    (p, packed)
}

library_benchmark_group!(
    name = products_group;
    benchmarks =
        f32_square, f32_transposed_a, f32_transposed_b, f32_bias_gelu_residual, f32_one_row,
        f32_one_row_transposed, f32_packed, f16_packed, bf16_packed, bf16_packed_fast, pack_f32,
        f32_activation, f16_to_f16, f16_to_bf16, f32_gated, pack_f16, pack_bf16, pack_f32_transposed
);
