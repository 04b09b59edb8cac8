//! Latent attention (one token, and a prompt, absorbed), products of heads in one call and one by one,
//! attention over sequences of different lengths and over padded ones, convolutions.

use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::attention::{
    AttentionOptions, Bias, KvCache, KvCacheOptions, KvType, Outputs, Plain, Ragged, attend, attend_ragged,
};
use kvern::matmul::{Patches, Window};
use kvern::quant::{Compute, HeadStrides, PackedWeights, WeightFormat, multiply_heads};
use kvern::{Context, Epilogue, Isa, MatMut, MatRef, PackedB, Workspace};

const KEY: usize = 576;
const LATENT: usize = 512;

/// A latent cache of f16 with some keys, and queries of the last tokens.
pub struct Latent {
    ctx: Context,
    ws: Workspace,
    options: AttentionOptions,
    cache: KvCache,
    q: Mat,
    out: Mat,
}

fn latent_cache(isa: Isa, heads: usize, queries: usize, keys: usize) -> Latent {
    let made = KvCacheOptions::new(1, KEY, keys).types(KvType::F16, KvType::F16).latent(LATENT);
    let mut cache = KvCache::new(made).expect("memory");
    let none = MatRef::dense(&[], keys, 0).expect("shape");
    cache.append(Mat::new(keys, KEY, 1).view(), none).expect("room");
    Latent {
        ctx: context(isa),
        ws: workspace(),
        options: AttentionOptions::new(heads),
        cache,
        q: Mat::new(queries, heads * KEY, 2),
        out: Mat::zeros(queries, heads * LATENT),
    }
}

#[library_benchmark(setup = latent_cache)]
#[bench::scalar_2_of_1x64(Isa::Scalar, 2, 1, 64)]
#[bench::avx2_128_of_1x512(Isa::Avx2, 128, 1, 512)]
#[bench::avx2_16_of_8x512(Isa::Avx2, 16, 8, 512)]
fn latent(mut l: Latent) -> Latent {
    let out = l.out.view_mut();
    attend(&l.ctx, &mut l.ws, &l.options, l.q.view(), &l.cache, out).expect("call");
    l
}

/// Heads of 128 features of a latent of 512, as DeepSeek's.
pub struct Heads {
    ctx: Context,
    ws: Workspace,
    weights: Vec<PackedWeights>,
    a: Mat,
    c: Mat,
}

fn heads_of(isa: Isa, heads: usize, rows: usize) -> Heads {
    let weights = |seed: u32| {
        PackedWeights::quantize(WeightFormat::Q8_0, Mat::new(LATENT, 128, seed).view()).expect("shape")
    };
    Heads {
        ctx: context(isa),
        ws: workspace(),
        weights: (0..heads as u32).map(weights).collect(),
        a: Mat::new(rows, heads * 128, 3),
        c: Mat::zeros(rows, heads * LATENT),
    }
}

#[library_benchmark(setup = heads_of)]
#[bench::scalar_2x1(Isa::Scalar, 2, 1)]
#[bench::avx2_16x1(Isa::Avx2, 16, 1)]
#[bench::avx2_16x64(Isa::Avx2, 16, 64)]
fn heads(mut h: Heads) -> Heads {
    let weights: [&PackedWeights; 16] = std::array::from_fn(|i| &h.weights[i % h.weights.len()]);
    let weights = &weights[..h.weights.len()];
    let (strides, a, c) = (HeadStrides { a: 128, c: LATENT }, h.a.view(), h.c.view_mut());
    multiply_heads(&h.ctx, &mut h.ws, Compute::Int8, weights, strides, a, c).expect("call");
    h
}

#[library_benchmark(setup = heads_of)]
#[bench::avx2_16x1(Isa::Avx2, 16, 1)]
#[bench::avx2_16x64(Isa::Avx2, 16, 64)]
fn heads_one_by_one(mut h: Heads) -> Heads {
    let (rows, plain) = (h.a.view().rows(), Epilogue::default());
    let a_cols = h.weights.len() * 128;
    for (i, w) in h.weights.iter().enumerate() {
        let a = MatRef::new(&h.a.as_slice()[i * 128..], rows, 128, a_cols).expect("shape");
        let c = MatMut::dense(&mut h.c.as_mut_slice()[i * rows * LATENT..][..rows * LATENT], rows, LATENT);
        w.multiply(&h.ctx, &mut h.ws, Compute::Int8, a, c.expect("shape"), &plain).expect("call");
    }
    h
}

/// A batch of an encoder of 4 heads of 32: sequences of 17 tokens more or less.
pub struct Batch {
    ctx: Context,
    ws: Workspace,
    starts: Vec<usize>,
    rows: Mat,
    out: Mat,
}

fn batch(isa: Isa, sequences: usize) -> Batch {
    let mut starts = vec![0];
    (0..sequences).for_each(|s| starts.push(starts[s] + 8 + s * 7 % 19));
    let rows = starts[sequences];
    let (rows, out) = (Mat::new(rows, 128, 5), Mat::zeros(rows, 128));
    Batch { ctx: context(isa), ws: workspace(), starts, rows, out }
}

const ENCODER_HEADS: usize = 4;

#[library_benchmark(setup = batch)]
#[bench::scalar_2(Isa::Scalar, 2)]
#[bench::avx2_16(Isa::Avx2, 16)]
fn ragged(b: Batch) -> Batch {
    attend_batch(b)
}

fn attend_batch(mut b: Batch) -> Batch {
    let options = AttentionOptions::new(ENCODER_HEADS).causal(false);
    let kv = Plain::new(b.rows.view(), b.rows.view(), ENCODER_HEADS).expect("shape");
    let kv = Ragged::new(kv, &b.starts, &b.starts).expect("starts");
    let (none, out) = (Bias::default(), Outputs::new(b.out.view_mut()));
    attend_ragged(&b.ctx, &mut b.ws, &options, &none, b.rows.view(), &kv, out).expect("call");
    b
}

/// The same batch with each sequence as long as the longest.
fn padded_batch(isa: Isa, sequences: usize) -> Batch {
    let made = batch(isa, sequences);
    let longest = made.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    let starts: Vec<usize> = (0..=sequences).map(|s| s * longest).collect();
    let rows = starts[sequences];
    Batch { starts, rows: Mat::new(rows, 128, 5), out: Mat::zeros(rows, 128), ..made }
}

#[library_benchmark(setup = padded_batch)]
#[bench::avx2_16(Isa::Avx2, 16)]
fn padded(b: Batch) -> Batch {
    attend_batch(b)
}

/// An image or a sequence, and the weights of a convolution.
pub struct Convolution {
    ctx: Context,
    ws: Workspace,
    x: Mat,
    size: (usize, usize),
    window: Window,
    b: PackedB,
    c: Mat,
}

fn convolution(isa: Isa, size: (usize, usize), channels: usize, window: Window) -> Convolution {
    let ctx = context(isa);
    let x = Mat::new(size.0 * size.1, channels, 7);
    let (n, k) = (64, window.kernel.0 * window.kernel.1 * channels);
    let rows = Patches::new(x.view(), size, window).expect("shape").rows();
    let b = PackedB::pack(&ctx, Mat::new(k, n, 8).view()).expect("memory");
    Convolution { ctx, ws: workspace(), x, size, window, b, c: Mat::zeros(rows, n) }
}

/// Three neighbours of a line of 80 numbers a place.
fn audio(isa: Isa, len: usize) -> Convolution {
    convolution(isa, (1, len), 80, Window { kernel: (1, 3), stride: (1, 1), padding: (0, 1) })
}

/// Patches of 16 x 16 pixels of three colours.
fn image(isa: Isa, side: usize) -> Convolution {
    convolution(isa, (side, side), 3, Window { kernel: (16, 16), stride: (16, 16), padding: (0, 0) })
}

fn convolve(mut c: Convolution) -> Convolution {
    let patches = Patches::new(c.x.view(), c.size, c.window).expect("shape");
    let out = c.c.view_mut();
    c.b.convolve(&c.ctx, &mut c.ws, &patches, out, &Epilogue::default()).expect("call");
    c
}

#[library_benchmark(setup = audio)]
#[bench::scalar_20(Isa::Scalar, 20)]
#[bench::avx2_500(Isa::Avx2, 500)]
fn convolution_of_lines(c: Convolution) -> Convolution {
    convolve(c)
}

#[library_benchmark(setup = image)]
#[bench::avx2_128(Isa::Avx2, 128)]
fn convolution_of_images(c: Convolution) -> Convolution {
    convolve(c)
}

library_benchmark_group!(
    name = encoders_group;
    benchmarks =
        latent,
        heads,
        heads_one_by_one,
        ragged,
        padded,
        convolution_of_lines,
        convolution_of_images
);
