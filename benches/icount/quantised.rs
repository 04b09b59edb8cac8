//! Quantised weights: both formats, both ways to compute, conversions, and dequantising before multiplying.

use crate::formats::blocks;
use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::matmul::matmul;
use kvern::quant::{Compute, PackedWeights, WeightFormat, dequantize, quantize};
use kvern::{Context, Epilogue, Isa, MatRef, Workspace};
use std::hint::black_box;

/// One product with n = k, ready to run.
pub struct Product {
    ctx: Context,
    ws: Workspace,
    a: Mat,
    weights: PackedWeights,
    format: WeightFormat,
    compute: Compute,
    blocks: Vec<u8>,
    wide: Mat,
    c: Mat,
}

fn product(isa: Isa, format: WeightFormat, compute: Compute, m: usize, n: usize) -> Product {
    let w = Mat::new(n, n, 7);
    let mut blocks = vec![0; format.bytes(n, n).expect("shape")];
    quantize(format, w.as_slice(), &mut blocks).expect("shape");
    Product {
        ctx: context(isa),
        ws: workspace(),
        a: Mat::new(m, n, 1),
        weights: PackedWeights::from_blocks(format, n, n, &blocks).expect("shape"),
        format,
        compute,
        blocks,
        wide: Mat::zeros(n, n),
        c: Mat::zeros(m, n),
    }
}

impl Product {
    fn run(mut self) -> Product {
        let e = Epilogue::default();
        let (a, c) = (self.a.view(), self.c.view_mut());
        self.weights.multiply(&self.ctx, &mut self.ws, self.compute, a, c, &e).expect("call");
        self
    }

    /// The product without a fused kernel: dequantise to f32, then multiply.
    fn dequantise_then_multiply(mut self) -> Product {
        dequantize(self.format, &self.blocks, self.wide.as_mut_slice()).expect("shape");
        let e = Epilogue::default();
        let b = self.wide.view().t();
        matmul(&self.ctx, &mut self.ws, self.a.view(), b, self.c.view_mut(), &e).expect("call");
        self
    }
}

fn q4_int8(isa: Isa, m: usize, n: usize) -> Product {
    product(isa, WeightFormat::Q4_0, Compute::Int8, m, n)
}

fn q8_int8(isa: Isa, m: usize, n: usize) -> Product {
    product(isa, WeightFormat::Q8_0, Compute::Int8, m, n)
}

fn q4_f32(isa: Isa, m: usize, n: usize) -> Product {
    product(isa, WeightFormat::Q4_0, Compute::F32, m, n)
}

fn q8_f32(isa: Isa, m: usize, n: usize) -> Product {
    product(isa, WeightFormat::Q8_0, Compute::F32, m, n)
}

#[library_benchmark(setup = q4_int8)]
#[bench::scalar_1x256(Isa::Scalar, 1, 256)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
#[bench::avx2_8x1024(Isa::Avx2, 8, 1024)]
fn q4_0_int8(p: Product) -> Product {
    black_box(p.run())
}

#[library_benchmark(setup = q8_int8)]
#[bench::scalar_1x256(Isa::Scalar, 1, 256)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
#[bench::avx2_8x1024(Isa::Avx2, 8, 1024)]
fn q8_0_int8(p: Product) -> Product {
    black_box(p.run())
}

#[library_benchmark(setup = q4_f32)]
#[bench::scalar_1x256(Isa::Scalar, 1, 256)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
#[bench::avx2_8x1024(Isa::Avx2, 8, 1024)]
fn q4_0_exact(p: Product) -> Product {
    black_box(p.run())
}

#[library_benchmark(setup = q8_f32)]
#[bench::scalar_1x256(Isa::Scalar, 1, 256)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
#[bench::avx2_8x1024(Isa::Avx2, 8, 1024)]
fn q8_0_exact(p: Product) -> Product {
    black_box(p.run())
}

#[library_benchmark(setup = q4_int8)]
#[bench::scalar_1x256(Isa::Scalar, 1, 256)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
fn q4_0_dequantise_multiply(p: Product) -> Product {
    black_box(p.dequantise_then_multiply())
}

#[library_benchmark(setup = q8_int8)]
#[bench::scalar_1x256(Isa::Scalar, 1, 256)]
#[bench::avx2_1x1024(Isa::Avx2, 1, 1024)]
fn q8_0_dequantise_multiply(p: Product) -> Product {
    black_box(p.dequantise_then_multiply())
}

/// Floats and blocks of one format. Conversions take no context: they are the same at every tier.
pub struct Conversion {
    format: WeightFormat,
    n: usize,
    floats: Mat,
    blocks: Vec<u8>,
    packed: PackedWeights,
}

fn conversion(format: WeightFormat, n: usize) -> Conversion {
    let (floats, blocks) = (Mat::new(n, n, 5), blocks(format, n));
    let packed = PackedWeights::from_blocks(format, n, n, &blocks).expect("shape");
    Conversion { format, n, floats, blocks, packed }
}

#[library_benchmark(setup = conversion)]
#[bench::any_q4_0_256(WeightFormat::Q4_0, 256)]
#[bench::any_q8_0_256(WeightFormat::Q8_0, 256)]
fn quantise(mut x: Conversion) -> Conversion {
    quantize(x.format, x.floats.as_slice(), &mut x.blocks).expect("shape");
    x
}

// A part of the rows: the formats that look for their scales take 300 to 1200 instructions a weight.
#[library_benchmark(setup = conversion)]
#[bench::any_q4_1_256(WeightFormat::Q4_1, 256)]
#[bench::any_q5_0_256(WeightFormat::Q5_0, 256)]
#[bench::any_q5_1_256(WeightFormat::Q5_1, 256)]
#[bench::any_q2_k_256(WeightFormat::Q2K, 256)]
#[bench::any_q3_k_256(WeightFormat::Q3K, 256)]
#[bench::any_q4_k_256(WeightFormat::Q4K, 256)]
#[bench::any_q5_k_256(WeightFormat::Q5K, 256)]
#[bench::any_q6_k_256(WeightFormat::Q6K, 256)]
#[bench::any_iq4_nl_256(WeightFormat::Iq4Nl, 256)]
#[bench::any_iq4_xs_256(WeightFormat::Iq4Xs, 256)]
#[bench::any_mxfp4_256(WeightFormat::Mxfp4, 256)]
#[bench::any_nvfp4_256(WeightFormat::Nvfp4, 256)]
#[bench::any_tq1_0_256(WeightFormat::Tq1_0, 256)]
#[bench::any_q1_0_256(WeightFormat::Q1_0, 256)]
fn quantise_16_rows(mut x: Conversion) -> Conversion {
    let (floats, bytes) = (16 * x.n, x.format.bytes(16, x.n).expect("shape"));
    quantize(x.format, &x.floats.as_slice()[..floats], &mut x.blocks[..bytes]).expect("shape");
    x
}

#[library_benchmark(setup = conversion)]
#[bench::any_q4_0_1024(WeightFormat::Q4_0, 1024)]
#[bench::any_q8_0_1024(WeightFormat::Q8_0, 1024)]
#[bench::any_q4_1_512(WeightFormat::Q4_1, 512)]
#[bench::any_q5_0_512(WeightFormat::Q5_0, 512)]
#[bench::any_q5_1_512(WeightFormat::Q5_1, 512)]
#[bench::any_q2_k_512(WeightFormat::Q2K, 512)]
#[bench::any_q3_k_512(WeightFormat::Q3K, 512)]
#[bench::any_q4_k_512(WeightFormat::Q4K, 512)]
#[bench::any_q5_k_512(WeightFormat::Q5K, 512)]
#[bench::any_q6_k_512(WeightFormat::Q6K, 512)]
#[bench::any_iq4_nl_512(WeightFormat::Iq4Nl, 512)]
#[bench::any_iq4_xs_512(WeightFormat::Iq4Xs, 512)]
#[bench::any_mxfp4_512(WeightFormat::Mxfp4, 512)]
#[bench::any_iq2_xs_512(WeightFormat::Iq2Xs, 512)]
#[bench::any_iq3_s_512(WeightFormat::Iq3S, 512)]
#[bench::any_iq1_m_512(WeightFormat::Iq1M, 512)]
#[bench::any_nvfp4_512(WeightFormat::Nvfp4, 512)]
#[bench::any_tq1_0_512(WeightFormat::Tq1_0, 512)]
#[bench::any_q1_0_512(WeightFormat::Q1_0, 512)]
fn dequantise(mut x: Conversion) -> Conversion {
    dequantize(x.format, &x.blocks, x.floats.as_mut_slice()).expect("shape");
    x
}

#[library_benchmark(setup = conversion)]
#[bench::any_q4_0_512(WeightFormat::Q4_0, 512)]
#[bench::any_q8_0_512(WeightFormat::Q8_0, 512)]
#[bench::any_q4_1_512(WeightFormat::Q4_1, 512)]
#[bench::any_q5_0_512(WeightFormat::Q5_0, 512)]
#[bench::any_q5_1_512(WeightFormat::Q5_1, 512)]
#[bench::any_q2_k_512(WeightFormat::Q2K, 512)]
#[bench::any_q3_k_512(WeightFormat::Q3K, 512)]
#[bench::any_q4_k_512(WeightFormat::Q4K, 512)]
#[bench::any_q5_k_512(WeightFormat::Q5K, 512)]
#[bench::any_q6_k_512(WeightFormat::Q6K, 512)]
#[bench::any_iq4_nl_512(WeightFormat::Iq4Nl, 512)]
#[bench::any_iq4_xs_512(WeightFormat::Iq4Xs, 512)]
#[bench::any_mxfp4_512(WeightFormat::Mxfp4, 512)]
#[bench::any_iq2_xs_512(WeightFormat::Iq2Xs, 512)]
#[bench::any_iq3_s_512(WeightFormat::Iq3S, 512)]
#[bench::any_iq1_m_512(WeightFormat::Iq1M, 512)]
#[bench::any_nvfp4_512(WeightFormat::Nvfp4, 512)]
#[bench::any_tq1_0_512(WeightFormat::Tq1_0, 512)]
#[bench::any_q1_0_512(WeightFormat::Q1_0, 512)]
fn pack_blocks(mut x: Conversion) -> Conversion {
    x.packed = PackedWeights::from_blocks(x.format, x.n, x.n, &x.blocks).expect("shape");
    x
}

#[library_benchmark(setup = conversion)]
#[bench::any_q4_0_256(WeightFormat::Q4_0, 256)]
#[bench::any_q8_0_256(WeightFormat::Q8_0, 256)]
fn quantise_and_pack(mut x: Conversion) -> Conversion {
    let w = MatRef::dense(x.floats.as_slice(), x.n, x.n).expect("shape");
    x.packed = PackedWeights::quantize(x.format, w).expect("memory");
    x
}

#[library_benchmark(setup = conversion)]
#[bench::any_q4_0_512(WeightFormat::Q4_0, 512)]
#[bench::any_q8_0_512(WeightFormat::Q8_0, 512)]
#[bench::any_q4_1_256(WeightFormat::Q4_1, 256)]
#[bench::any_q5_0_256(WeightFormat::Q5_0, 256)]
#[bench::any_q5_1_256(WeightFormat::Q5_1, 256)]
#[bench::any_q2_k_256(WeightFormat::Q2K, 256)]
#[bench::any_q3_k_256(WeightFormat::Q3K, 256)]
#[bench::any_q4_k_256(WeightFormat::Q4K, 256)]
#[bench::any_q5_k_256(WeightFormat::Q5K, 256)]
#[bench::any_q6_k_256(WeightFormat::Q6K, 256)]
#[bench::any_iq4_nl_256(WeightFormat::Iq4Nl, 256)]
#[bench::any_iq4_xs_256(WeightFormat::Iq4Xs, 256)]
#[bench::any_mxfp4_256(WeightFormat::Mxfp4, 256)]
#[bench::any_iq2_xs_256(WeightFormat::Iq2Xs, 256)]
#[bench::any_iq3_s_256(WeightFormat::Iq3S, 256)]
#[bench::any_iq1_m_256(WeightFormat::Iq1M, 256)]
#[bench::any_nvfp4_256(WeightFormat::Nvfp4, 256)]
#[bench::any_tq1_0_256(WeightFormat::Tq1_0, 256)]
#[bench::any_q1_0_256(WeightFormat::Q1_0, 256)]
fn unpack_blocks(mut x: Conversion) -> Conversion {
    x.packed.to_blocks(&mut x.blocks).expect("shape");
    x
}

library_benchmark_group!(
    name = quantised_group;
    benchmarks =
        q4_0_int8, q8_0_int8, q4_0_exact, q8_0_exact, q4_0_dequantise_multiply, q8_0_dequantise_multiply,
        quantise, quantise_16_rows, dequantise, pack_blocks, quantise_and_pack, unpack_blocks
);
