//! Quantised weights, format by format: both ways to compute, one row and eight; weights of groups; several
//! products in one call. `quantised.rs` has the two commonest formats in more detail.

use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::quant::import::{Float8, Float8Kind, GroupWise};
use kvern::quant::{Compute, PackedWeights, Product, WeightFormat, multiply_many, quantize};
use kvern::{Activation, Context, Epilogue, Isa, Workspace};
use std::hint::black_box;

/// A product with n = k, ready to run.
pub struct Call {
    ctx: Context,
    ws: Workspace,
    compute: Compute,
    weights: Vec<PackedWeights>,
    a: Mat,
    c: Vec<Mat>,
}

impl Call {
    fn new(isa: Isa, compute: Compute, weights: Vec<PackedWeights>, m: usize) -> Call {
        let n = weights[0].n();
        let c = weights.iter().map(|_| Mat::zeros(m, n)).collect();
        Call { ctx: context(isa), ws: workspace(), compute, weights, a: Mat::new(m, n, 1), c }
    }

    fn run(mut self) -> Call {
        let (a, c, e) = (self.a.view(), self.c[0].view_mut(), Epilogue::default());
        self.weights[0].multiply(&self.ctx, &mut self.ws, self.compute, a, c, &e).expect("call");
        self
    }
}

/// Blocks of a matrix whose rows are all alike: what a format costs does not depend on its weights, and
/// rounding them is slow under Valgrind.
pub fn blocks(format: WeightFormat, n: usize) -> Vec<u8> {
    let row = Mat::new(1, n, 7);
    let mut blocks = vec![0; format.bytes(1, n).expect("shape")];
    quantize(format, row.as_slice(), &mut blocks).expect("shape");
    blocks.repeat(n)
}

fn weights(format: WeightFormat, n: usize) -> PackedWeights {
    PackedWeights::from_blocks(format, n, n, &blocks(format, n)).expect("shape")
}

fn with_int8(isa: Isa, format: WeightFormat, m: usize, n: usize) -> Call {
    Call::new(isa, Compute::Int8, vec![weights(format, n)], m)
}

fn with_f32(isa: Isa, format: WeightFormat, m: usize, n: usize) -> Call {
    Call::new(isa, Compute::F32, vec![weights(format, n)], m)
}

/// A product in every format.
macro_rules! formats {
    ($name:ident, $setup:ident) => {
        #[library_benchmark(setup = $setup)]
        #[bench::scalar_q4_1_1x256(Isa::Scalar, WeightFormat::Q4_1, 1, 256)]
        #[bench::scalar_q5_0_1x256(Isa::Scalar, WeightFormat::Q5_0, 1, 256)]
        #[bench::scalar_q5_1_1x256(Isa::Scalar, WeightFormat::Q5_1, 1, 256)]
        #[bench::scalar_q2_k_1x256(Isa::Scalar, WeightFormat::Q2K, 1, 256)]
        #[bench::scalar_q3_k_1x256(Isa::Scalar, WeightFormat::Q3K, 1, 256)]
        #[bench::scalar_q4_k_1x256(Isa::Scalar, WeightFormat::Q4K, 1, 256)]
        #[bench::scalar_q5_k_1x256(Isa::Scalar, WeightFormat::Q5K, 1, 256)]
        #[bench::scalar_q6_k_1x256(Isa::Scalar, WeightFormat::Q6K, 1, 256)]
        #[bench::scalar_iq4_nl_1x256(Isa::Scalar, WeightFormat::Iq4Nl, 1, 256)]
        #[bench::scalar_iq4_xs_1x256(Isa::Scalar, WeightFormat::Iq4Xs, 1, 256)]
        #[bench::scalar_mxfp4_1x256(Isa::Scalar, WeightFormat::Mxfp4, 1, 256)]
        #[bench::scalar_iq2_xxs_1x256(Isa::Scalar, WeightFormat::Iq2Xxs, 1, 256)]
        #[bench::scalar_iq2_xs_1x256(Isa::Scalar, WeightFormat::Iq2Xs, 1, 256)]
        #[bench::scalar_iq2_s_1x256(Isa::Scalar, WeightFormat::Iq2S, 1, 256)]
        #[bench::scalar_iq3_xxs_1x256(Isa::Scalar, WeightFormat::Iq3Xxs, 1, 256)]
        #[bench::scalar_iq3_s_1x256(Isa::Scalar, WeightFormat::Iq3S, 1, 256)]
        #[bench::scalar_iq1_s_1x256(Isa::Scalar, WeightFormat::Iq1S, 1, 256)]
        #[bench::scalar_iq1_m_1x256(Isa::Scalar, WeightFormat::Iq1M, 1, 256)]
        #[bench::scalar_tq2_0_1x256(Isa::Scalar, WeightFormat::Tq2_0, 1, 256)]
        #[bench::scalar_nvfp4_1x256(Isa::Scalar, WeightFormat::Nvfp4, 1, 256)]
        #[bench::scalar_q1_0_1x256(Isa::Scalar, WeightFormat::Q1_0, 1, 256)]
        #[bench::scalar_q2_0_1x256(Isa::Scalar, WeightFormat::Q2_0, 1, 256)]
        #[bench::avx2_q4_1_1x1024(Isa::Avx2, WeightFormat::Q4_1, 1, 1024)]
        #[bench::avx2_q5_0_1x1024(Isa::Avx2, WeightFormat::Q5_0, 1, 1024)]
        #[bench::avx2_q5_1_1x1024(Isa::Avx2, WeightFormat::Q5_1, 1, 1024)]
        #[bench::avx2_q2_k_1x1024(Isa::Avx2, WeightFormat::Q2K, 1, 1024)]
        #[bench::avx2_q3_k_1x1024(Isa::Avx2, WeightFormat::Q3K, 1, 1024)]
        #[bench::avx2_q4_k_1x1024(Isa::Avx2, WeightFormat::Q4K, 1, 1024)]
        #[bench::avx2_q5_k_1x1024(Isa::Avx2, WeightFormat::Q5K, 1, 1024)]
        #[bench::avx2_q6_k_1x1024(Isa::Avx2, WeightFormat::Q6K, 1, 1024)]
        #[bench::avx2_iq4_nl_1x1024(Isa::Avx2, WeightFormat::Iq4Nl, 1, 1024)]
        #[bench::avx2_iq4_xs_1x1024(Isa::Avx2, WeightFormat::Iq4Xs, 1, 1024)]
        #[bench::avx2_mxfp4_1x1024(Isa::Avx2, WeightFormat::Mxfp4, 1, 1024)]
        #[bench::avx2_iq2_xxs_1x1024(Isa::Avx2, WeightFormat::Iq2Xxs, 1, 1024)]
        #[bench::avx2_iq2_xs_1x1024(Isa::Avx2, WeightFormat::Iq2Xs, 1, 1024)]
        #[bench::avx2_iq2_s_1x1024(Isa::Avx2, WeightFormat::Iq2S, 1, 1024)]
        #[bench::avx2_iq3_xxs_1x1024(Isa::Avx2, WeightFormat::Iq3Xxs, 1, 1024)]
        #[bench::avx2_iq3_s_1x1024(Isa::Avx2, WeightFormat::Iq3S, 1, 1024)]
        #[bench::avx2_iq1_s_1x1024(Isa::Avx2, WeightFormat::Iq1S, 1, 1024)]
        #[bench::avx2_iq1_m_1x1024(Isa::Avx2, WeightFormat::Iq1M, 1, 1024)]
        #[bench::avx2_tq2_0_1x1024(Isa::Avx2, WeightFormat::Tq2_0, 1, 1024)]
        #[bench::avx2_nvfp4_1x1024(Isa::Avx2, WeightFormat::Nvfp4, 1, 1024)]
        #[bench::avx2_q1_0_1x1024(Isa::Avx2, WeightFormat::Q1_0, 1, 1024)]
        #[bench::avx2_q2_0_1x1024(Isa::Avx2, WeightFormat::Q2_0, 1, 1024)]
        #[bench::avx2_q4_1_8x1024(Isa::Avx2, WeightFormat::Q4_1, 8, 1024)]
        #[bench::avx2_q5_0_8x1024(Isa::Avx2, WeightFormat::Q5_0, 8, 1024)]
        #[bench::avx2_q5_1_8x1024(Isa::Avx2, WeightFormat::Q5_1, 8, 1024)]
        #[bench::avx2_q2_k_8x1024(Isa::Avx2, WeightFormat::Q2K, 8, 1024)]
        #[bench::avx2_q3_k_8x1024(Isa::Avx2, WeightFormat::Q3K, 8, 1024)]
        #[bench::avx2_q4_k_8x1024(Isa::Avx2, WeightFormat::Q4K, 8, 1024)]
        #[bench::avx2_q5_k_8x1024(Isa::Avx2, WeightFormat::Q5K, 8, 1024)]
        #[bench::avx2_q6_k_8x1024(Isa::Avx2, WeightFormat::Q6K, 8, 1024)]
        #[bench::avx2_iq4_nl_8x1024(Isa::Avx2, WeightFormat::Iq4Nl, 8, 1024)]
        #[bench::avx2_iq4_xs_8x1024(Isa::Avx2, WeightFormat::Iq4Xs, 8, 1024)]
        #[bench::avx2_mxfp4_8x1024(Isa::Avx2, WeightFormat::Mxfp4, 8, 1024)]
        #[bench::avx2_iq2_xxs_8x1024(Isa::Avx2, WeightFormat::Iq2Xxs, 8, 1024)]
        #[bench::avx2_iq2_xs_8x1024(Isa::Avx2, WeightFormat::Iq2Xs, 8, 1024)]
        #[bench::avx2_iq2_s_8x1024(Isa::Avx2, WeightFormat::Iq2S, 8, 1024)]
        #[bench::avx2_iq3_xxs_8x1024(Isa::Avx2, WeightFormat::Iq3Xxs, 8, 1024)]
        #[bench::avx2_iq3_s_8x1024(Isa::Avx2, WeightFormat::Iq3S, 8, 1024)]
        #[bench::avx2_iq1_s_8x1024(Isa::Avx2, WeightFormat::Iq1S, 8, 1024)]
        #[bench::avx2_iq1_m_8x1024(Isa::Avx2, WeightFormat::Iq1M, 8, 1024)]
        #[bench::avx2_tq2_0_8x1024(Isa::Avx2, WeightFormat::Tq2_0, 8, 1024)]
        #[bench::avx2_nvfp4_8x1024(Isa::Avx2, WeightFormat::Nvfp4, 8, 1024)]
        #[bench::avx2_q1_0_8x1024(Isa::Avx2, WeightFormat::Q1_0, 8, 1024)]
        #[bench::avx2_q2_0_8x1024(Isa::Avx2, WeightFormat::Q2_0, 8, 1024)]
        fn $name(c: Call) -> Call {
            black_box(c.run())
        }
    };
}

formats!(int8, with_int8);
formats!(exact, with_f32);

/// Weights of groups of 128.
fn groups(n: usize, bits: u32) -> GroupWise {
    let codes: Vec<u8> = (0..n * n).map(|i| (i * 7 % (1 << bits)) as u8).collect();
    let (scales, zeros) = (vec![0.01f32; n * n / 128], vec![7; n * n / 128]);
    GroupWise::with_zeros((n, n), bits, 128, &codes, &scales, &zeros).expect("shape")
}

fn group_call(isa: Isa, compute: Compute, bits: u32, m: usize, n: usize) -> Call {
    let ctx = context(isa);
    Call::new(isa, compute, vec![PackedWeights::from_groups_on(&ctx, &groups(n, bits)).expect("shape")], m)
}

#[library_benchmark(setup = group_call)]
#[bench::scalar_int8_4bit_1x256(Isa::Scalar, Compute::Int8, 4, 1, 256)]
#[bench::scalar_int8_8bit_1x256(Isa::Scalar, Compute::Int8, 8, 1, 256)]
#[bench::scalar_exact_4bit_1x256(Isa::Scalar, Compute::F32, 4, 1, 256)]
#[bench::avx2_int8_4bit_1x1024(Isa::Avx2, Compute::Int8, 4, 1, 1024)]
#[bench::avx2_int8_4bit_8x1024(Isa::Avx2, Compute::Int8, 4, 8, 1024)]
#[bench::avx2_int8_8bit_8x1024(Isa::Avx2, Compute::Int8, 8, 8, 1024)]
#[bench::avx2_exact_4bit_8x1024(Isa::Avx2, Compute::F32, 4, 8, 1024)]
fn group_wise(c: Call) -> Call {
    black_box(c.run())
}

/// Weights with minimums in groups of 64, all of whose numbers f16 holds.
fn affine_call(isa: Isa, bits: u32, m: usize, n: usize) -> Call {
    let codes: Vec<u8> = (0..n * n).map(|i| (i * 7 % (1 << bits)) as u8).collect();
    let (scales, minimums) = (vec![0.0625f32; n * n / 64], vec![-0.5f32; n * n / 64]);
    let w = GroupWise::affine((n, n), bits, 64, &codes, &scales, &minimums).expect("shape");
    let packed = PackedWeights::from_groups_on(&context(isa), &w).expect("shape");
    Call::new(isa, Compute::Int8, vec![packed], m)
}

#[library_benchmark(setup = affine_call)]
#[bench::scalar_4bit_1x256(Isa::Scalar, 4, 1, 256)]
#[bench::avx2_2bit_1x1024(Isa::Avx2, 2, 1, 1024)]
#[bench::avx2_4bit_1x1024(Isa::Avx2, 4, 1, 1024)]
#[bench::avx2_6bit_1x1024(Isa::Avx2, 6, 1, 1024)]
#[bench::avx2_8bit_1x1024(Isa::Avx2, 8, 1, 1024)]
#[bench::avx2_4bit_8x1024(Isa::Avx2, 4, 8, 1024)]
fn affine(c: Call) -> Call {
    black_box(c.run())
}

/// Floats of 8 bits with a scale for each 128 by 128.
fn float8_call(isa: Isa, kind: Float8Kind, m: usize, n: usize) -> Call {
    let codes: Vec<u8> = (0..n * n).map(|i| (i * 7 % 100) as u8).collect();
    let scales = vec![0.0625f32; (n / 128) * (n / 128)];
    let w = Float8 { n, k: n, kind, tile: (128, 128), codes: &codes, scales: &scales };
    let packed = PackedWeights::from_float8_on(&context(isa), &w).expect("shape");
    Call::new(isa, Compute::Int8, vec![packed], m)
}

#[library_benchmark(setup = float8_call)]
#[bench::scalar_e4m3_1x256(Isa::Scalar, Float8Kind::E4m3, 1, 256)]
#[bench::avx2_e4m3_1x1024(Isa::Avx2, Float8Kind::E4m3, 1, 1024)]
#[bench::avx2_e4m3_8x1024(Isa::Avx2, Float8Kind::E4m3, 8, 1024)]
#[bench::avx2_e5m2_1x1024(Isa::Avx2, Float8Kind::E5m2, 1, 1024)]
fn float8(c: Call) -> Call {
    black_box(c.run())
}

/// Groups to pack.
pub struct ToPack {
    ctx: Context,
    groups: GroupWise,
}

fn to_pack(isa: Isa, bits: u32, n: usize) -> ToPack {
    ToPack { ctx: context(isa), groups: groups(n, bits) }
}

#[library_benchmark(setup = to_pack)]
#[bench::any_4bit_512(Isa::Scalar, 4, 512)]
#[bench::any_8bit_512(Isa::Scalar, 8, 512)]
fn pack_groups(p: ToPack) -> (ToPack, PackedWeights) {
    let packed = PackedWeights::from_groups_on(&p.ctx, &p.groups).expect("shape");
    (p, packed)
}

fn several(isa: Isa, compute: Compute, m: usize, n: usize) -> Call {
    Call::new(isa, compute, (0..3).map(|_| weights(WeightFormat::Q4_0, n)).collect(), m)
}

#[library_benchmark(setup = several)]
#[bench::scalar_int8_1x256(Isa::Scalar, Compute::Int8, 1, 256)]
#[bench::avx2_int8_1x1024(Isa::Avx2, Compute::Int8, 1, 1024)]
#[bench::avx2_exact_1x1024(Isa::Avx2, Compute::F32, 1, 1024)]
fn three_products(mut c: Call) -> Call {
    let [x, y, z] = &mut c.c[..] else { return c };
    let mut products = [
        Product::new(&c.weights[0], x.view_mut()),
        Product::new(&c.weights[1], y.view_mut()),
        Product::new(&c.weights[2], z.view_mut()),
    ];
    multiply_many(&c.ctx, &mut c.ws, c.compute, c.a.view(), &mut products).expect("call");
    c
}

fn gate(isa: Isa, compute: Compute, m: usize, n: usize) -> Call {
    Call::new(isa, compute, (0..2).map(|_| weights(WeightFormat::Q4_0, n)).collect(), m)
}

#[library_benchmark(setup = gate)]
#[bench::scalar_int8_1x256(Isa::Scalar, Compute::Int8, 1, 256)]
#[bench::avx2_int8_8x512(Isa::Avx2, Compute::Int8, 8, 512)]
#[bench::avx2_exact_8x512(Isa::Avx2, Compute::F32, 8, 512)]
fn gated(mut g: Call) -> Call {
    let e = Epilogue::default().activation(Activation::Silu);
    let (up, c) = (&g.weights[1], g.c[0].view_mut());
    g.weights[0].multiply_gated(&g.ctx, &mut g.ws, g.compute, g.a.view(), up, c, &e).expect("call");
    g
}

// Rows of a table as floats, one after the other.
#[library_benchmark(setup = weights)]
#[bench::any_q4_k_256(WeightFormat::Q4K, 256)]
#[bench::any_q8_0_256(WeightFormat::Q8_0, 256)]
fn dequantise_rows(w: PackedWeights) -> (PackedWeights, f32) {
    let mut row = [0.0; 256];
    for i in 0..w.n() {
        w.dequantize_row(i, &mut row).expect("row");
    }
    (w, black_box(row)[0])
}

library_benchmark_group!(
    name = formats_group;
    benchmarks = int8, exact, group_wise, affine, float8, pack_groups, three_products, gated, dequantise_rows
);
