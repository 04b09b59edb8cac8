//! One transformer block from public operations: the last token of a text, by recomputing the prefix and
//! from the cache.

use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, attend};
use kvern::ops::{RopePairs, RopeTable, rms_norm, rope};
use kvern::{Activation, Context, Epilogue, Isa, MatMut, MatRef, PackedB, Result, Workspace};
use std::hint::black_box;

const HEADS: usize = 4;
const DIM: usize = 16;
const WIDTH: usize = HEADS * DIM;
const HIDDEN: usize = 4 * WIDTH;
const EPS: f32 = 1e-5;

/// Weights of the block.
struct Weights {
    gain: Vec<f32>,
    qkv: [PackedB; 3],
    out: PackedB,
    up: PackedB,
    down: PackedB,
    rope: RopeTable,
}

/// The block, its cache, and room for the activations of a whole text.
pub struct Block {
    ctx: Context,
    ws: Workspace,
    weights: Weights,
    cache: KvCache,
    x: Mat,
    normed: Mat,
    qkv: [Mat; 3],
    mixed: Mat,
    hidden: Mat,
    /// Tokens that the measured call computes.
    computing: usize,
}

fn block(isa: Isa, tokens: usize, computing: usize) -> Block {
    let ctx = context(isa);
    let pack = |k, n, seed| PackedB::pack(&ctx, Mat::new(k, n, seed).view()).expect("memory");
    let weights = Weights {
        gain: vec![1.0; WIDTH],
        qkv: [pack(WIDTH, WIDTH, 1), pack(WIDTH, WIDTH, 2), pack(WIDTH, WIDTH, 3)],
        out: pack(WIDTH, WIDTH, 4),
        up: pack(WIDTH, HIDDEN, 5),
        down: pack(HIDDEN, WIDTH, 6),
        rope: RopeTable::new(DIM, tokens, 10000.0).expect("memory"),
    };
    let mut block = Block {
        ctx,
        ws: workspace(),
        weights,
        cache: KvCache::new(KvCacheOptions::new(HEADS, DIM, tokens)).expect("memory"),
        x: Mat::new(tokens, WIDTH, 9),
        normed: Mat::zeros(tokens, WIDTH),
        qkv: [(); 3].map(|()| Mat::zeros(tokens, WIDTH)),
        mixed: Mat::zeros(tokens, WIDTH),
        hidden: Mat::zeros(tokens, HIDDEN),
        computing,
    };
    if computing < tokens {
        block.forward(tokens - computing).expect("call");
    }
    block
}

impl Block {
    /// The next `tokens` tokens through the block.
    fn forward(&mut self, tokens: usize) -> Result<()> {
        let Block { ctx, ws, weights, cache, x, normed, qkv, mixed, hidden, .. } = self;
        let (plain, first) = (Epilogue::default(), cache.len());
        let rows = &mut x.as_mut_slice()[first * WIDTH..(first + tokens) * WIDTH];
        rms_norm(ctx, MatRef::dense(rows, tokens, WIDTH)?, &weights.gain, EPS, normed.first_mut(tokens))?;
        for (weights, out) in weights.qkv.iter().zip(qkv.iter_mut()) {
            weights.multiply(ctx, ws, normed.first(tokens), out.first_mut(tokens), &plain)?;
        }
        let [q, k, v] = qkv;
        rope(ctx, &weights.rope, RopePairs::Halves, DIM, first, q.first_mut(tokens))?;
        rope(ctx, &weights.rope, RopePairs::Halves, DIM, first, k.first_mut(tokens))?;
        cache.append(k.first(tokens), v.first(tokens))?;
        let heads = AttentionOptions::new(HEADS);
        attend(ctx, ws, &heads, q.first(tokens), cache, mixed.first_mut(tokens))?;
        let residual = Epilogue::default().scaled(1.0, 1.0);
        let gelu = Epilogue::default().activation(Activation::Gelu);
        weights.out.multiply(ctx, ws, mixed.first(tokens), MatMut::dense(rows, tokens, WIDTH)?, &residual)?;
        rms_norm(ctx, MatRef::dense(rows, tokens, WIDTH)?, &weights.gain, EPS, normed.first_mut(tokens))?;
        weights.up.multiply(ctx, ws, normed.first(tokens), hidden.first_mut(tokens), &gelu)?;
        weights.down.multiply(ctx, ws, hidden.first(tokens), MatMut::dense(rows, tokens, WIDTH)?, &residual)
    }

    fn run(mut self) -> Block {
        self.forward(self.computing).expect("call");
        self
    }
}

fn whole_text(isa: Isa, tokens: usize) -> Block {
    block(isa, tokens, tokens)
}

// The last token without a cache: everything before it is computed again.
#[library_benchmark(setup = whole_text)]
#[bench::avx2_16(Isa::Avx2, 16)]
#[bench::avx2_32(Isa::Avx2, 32)]
#[bench::avx2_64(Isa::Avx2, 64)]
#[bench::avx2_128(Isa::Avx2, 128)]
#[bench::avx2_256(Isa::Avx2, 256)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn last_token_recomputed(b: Block) -> Block {
    black_box(b.run())
}

fn cached_text(isa: Isa, tokens: usize) -> Block {
    block(isa, tokens, 1)
}

// The last token with the keys and values of everything before it in the cache.
#[library_benchmark(setup = cached_text)]
#[bench::avx2_16(Isa::Avx2, 16)]
#[bench::avx2_32(Isa::Avx2, 32)]
#[bench::avx2_64(Isa::Avx2, 64)]
#[bench::avx2_128(Isa::Avx2, 128)]
#[bench::avx2_256(Isa::Avx2, 256)]
#[bench::avx2_512(Isa::Avx2, 512)]
fn last_token_cached(b: Block) -> Block {
    black_box(b.run())
}

library_benchmark_group!(name = block_group; benchmarks = last_token_recomputed, last_token_cached);
