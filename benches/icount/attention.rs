//! Attention: prefill, decode, windows, grouped heads; and attention that stores its scores.

use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, attend};
use kvern::matmul::matmul;
use kvern::ops::softmax;
use kvern::{Context, Epilogue, Isa, MatMut, Workspace};
use std::hint::black_box;

/// Elements of a head.
pub const DIM: usize = 64;

/// A cache with `tokens` tokens.
pub fn filled(options: KvCacheOptions, tokens: usize) -> KvCache {
    let width = options.kv_heads * options.head_dim;
    let (k, v) = (Mat::new(tokens, width, 11), Mat::new(tokens, width, 12));
    let mut cache = KvCache::new(options).expect("memory");
    cache.append(k.view(), v.view()).expect("room");
    cache
}

/// Queries, and the caches that they look at one after the other.
pub struct Call {
    ctx: Context,
    ws: Workspace,
    options: AttentionOptions,
    caches: Vec<KvCache>,
    q: Vec<Mat>,
    out: Vec<Mat>,
}

impl Call {
    fn run(mut self) -> Call {
        for ((cache, q), out) in self.caches.iter().zip(&self.q).zip(&mut self.out) {
            attend(&self.ctx, &mut self.ws, &self.options, q.view(), cache, out.view_mut()).expect("call");
        }
        self
    }
}

fn call(isa: Isa, (heads, kv_heads): (usize, usize), queries: usize, window: usize, keys: usize) -> Call {
    let mut options = KvCacheOptions::new(kv_heads, DIM, keys);
    if window > 0 {
        options = options.window(window);
    }
    Call {
        ctx: context(isa),
        ws: workspace(),
        options: AttentionOptions::new(heads),
        caches: vec![filled(options, keys)],
        q: vec![Mat::new(queries, heads * DIM, 13)],
        out: vec![Mat::zeros(queries, heads * DIM)],
    }
}

fn all_of(isa: Isa, heads: usize, tokens: usize) -> Call {
    call(isa, (heads, heads), tokens, 0, tokens)
}

#[library_benchmark(setup = all_of)]
#[bench::scalar_1x48(Isa::Scalar, 1, 48)]
#[bench::avx2_4x256(Isa::Avx2, 4, 256)]
fn prefill(c: Call) -> Call {
    black_box(c.run())
}

fn windowed(isa: Isa, heads: usize, tokens: usize) -> Call {
    call(isa, (heads, heads), tokens, tokens / 4, tokens)
}

#[library_benchmark(setup = windowed)]
#[bench::scalar_1x64(Isa::Scalar, 1, 64)]
#[bench::avx2_4x256(Isa::Avx2, 4, 256)]
fn prefill_window(c: Call) -> Call {
    black_box(c.run())
}

fn last_of(isa: Isa, heads: usize, tokens: usize) -> Call {
    call(isa, (heads, heads), 1, 0, tokens)
}

#[library_benchmark(setup = last_of)]
#[bench::scalar_2x256(Isa::Scalar, 2, 256)]
#[bench::avx2_8x512(Isa::Avx2, 8, 512)]
fn decode(c: Call) -> Call {
    black_box(c.run())
}

fn grouped(isa: Isa, heads: usize, kv_heads: usize, tokens: usize) -> Call {
    call(isa, (heads, kv_heads), 1, 0, tokens)
}

#[library_benchmark(setup = grouped)]
#[bench::scalar_4_of_1x256(Isa::Scalar, 4, 1, 256)]
#[bench::avx2_32_of_8x512(Isa::Avx2, 32, 8, 512)]
fn decode_grouped(c: Call) -> Call {
    black_box(c.run())
}

/// Each query head alone with its own copy of the keys and values: what expanding the heads
/// (`repeat_interleave`) makes of grouped queries.
fn per_head(isa: Isa, heads: usize, tokens: usize) -> Call {
    let one = || filled(KvCacheOptions::new(1, DIM, tokens), tokens);
    Call {
        ctx: context(isa),
        ws: workspace(),
        options: AttentionOptions::new(1),
        caches: (0..heads).map(|_| one()).collect(),
        q: (0..heads).map(|h| Mat::new(1, DIM, 13 + h as u32)).collect(),
        out: (0..heads).map(|_| Mat::zeros(1, DIM)).collect(),
    }
}

#[library_benchmark(setup = per_head)]
#[bench::scalar_4x256(Isa::Scalar, 4, 256)]
#[bench::avx2_32x512(Isa::Avx2, 32, 512)]
fn decode_per_head(c: Call) -> Call {
    black_box(c.run())
}

/// The same attention from separate operations, with the scores of a head in memory.
pub struct Unfused {
    ctx: Context,
    ws: Workspace,
    heads: usize,
    q: Mat,
    k: Mat,
    v: Mat,
    scores: Mat,
    out: Mat,
}

fn unfused_all_of(isa: Isa, heads: usize, tokens: usize) -> Unfused {
    unfused(isa, heads, tokens, tokens)
}

fn unfused_last_of(isa: Isa, heads: usize, tokens: usize) -> Unfused {
    unfused(isa, heads, 1, tokens)
}

fn unfused(isa: Isa, heads: usize, queries: usize, tokens: usize) -> Unfused {
    Unfused {
        ctx: context(isa),
        ws: workspace(),
        heads,
        q: Mat::new(queries, heads * DIM, 13),
        k: Mat::new(tokens, heads * DIM, 11),
        v: Mat::new(tokens, heads * DIM, 12),
        scores: Mat::zeros(queries, tokens),
        out: Mat::zeros(queries, heads * DIM),
    }
}

impl Unfused {
    fn run(mut self) -> Unfused {
        for head in 0..self.heads {
            self.head(head);
        }
        self
    }

    fn head(&mut self, head: usize) {
        let (from, width) = (head * DIM, self.heads * DIM);
        let (queries, tokens) = (self.q.view().rows(), self.k.view().rows());
        let (q, k, v) = (self.q.columns(from, DIM), self.k.columns(from, DIM), self.v.columns(from, DIM));
        let scale = Epilogue::default().scaled(1.0 / (DIM as f32).sqrt(), 0.0);
        matmul(&self.ctx, &mut self.ws, q, k.t(), self.scores.view_mut(), &scale).expect("call");
        for (i, row) in self.scores.as_mut_slice().chunks_exact_mut(tokens).enumerate() {
            row[tokens - queries + i + 1..].fill(f32::NEG_INFINITY);
        }
        softmax(&self.ctx, self.scores.view_mut());
        let out = &mut self.out.as_mut_slice()[from..];
        let out = MatMut::new(out, queries, DIM, width).expect("shape");
        matmul(&self.ctx, &mut self.ws, self.scores.view(), v, out, &Epilogue::default()).expect("call");
    }
}

#[library_benchmark(setup = unfused_all_of)]
#[bench::scalar_1x48(Isa::Scalar, 1, 48)]
#[bench::avx2_4x256(Isa::Avx2, 4, 256)]
fn prefill_unfused(u: Unfused) -> Unfused {
    black_box(u.run())
}

#[library_benchmark(setup = unfused_last_of)]
#[bench::scalar_2x256(Isa::Scalar, 2, 256)]
#[bench::avx2_8x512(Isa::Avx2, 8, 512)]
fn decode_unfused(u: Unfused) -> Unfused {
    black_box(u.run())
}

library_benchmark_group!(
    name = attention_group;
    benchmarks =
        prefill, prefill_window, prefill_unfused, decode, decode_unfused, decode_grouped, decode_per_head
);
