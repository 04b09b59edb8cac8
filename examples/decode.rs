//! Attention with a KV cache: tokens decoded one at a time have the bits of the whole prompt at once.
//!
//! `cargo run --release --example decode`

use kvern::attention::{self, AttentionOptions, KvCache, KvCacheOptions, attend};
use kvern::ops::{RopePairs, RopeTable, rms_norm, rope};
use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::{Context, Epilogue, MatMut, MatRef, Workspace};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const WIDTH: usize = HEADS * HEAD_DIM;
const KV_WIDTH: usize = KV_HEADS * HEAD_DIM;
const TOKENS: usize = 24;

/// The attention part of a decoder layer: norm, projections, rotation, cache, attention.
struct Layer {
    ctx: Context,
    gain: Vec<f32>,
    q: PackedWeights,
    k: PackedWeights,
    v: PackedWeights,
    table: RopeTable,
}

impl Layer {
    fn new() -> kvern::Result<Layer> {
        let weights = |n: usize, seed: usize| {
            let w: Vec<f32> = (0..n * WIDTH).map(|i| ((i + seed) * 37 % 251) as f32 / 1250.0 - 0.1).collect();
            PackedWeights::quantize(WeightFormat::Q8_0, MatRef::dense(&w, n, WIDTH)?)
        };
        Ok(Layer {
            ctx: Context::serial(),
            gain: vec![1.0; WIDTH],
            q: weights(WIDTH, 1)?,
            k: weights(KV_WIDTH, 2)?,
            v: weights(KV_WIDTH, 3)?,
            table: RopeTable::new(HEAD_DIM, TOKENS, 10000.0)?,
        })
    }

    fn cache(&self) -> kvern::Result<KvCache> {
        KvCache::new(KvCacheOptions::new(KV_HEADS, HEAD_DIM, TOKENS))
    }

    /// The next tokens `x`, (tokens, WIDTH), which are appended to the cache.
    fn run(&self, cache: &mut KvCache, x: &[f32]) -> kvern::Result<Vec<f32>> {
        let (ctx, tokens, first) = (&self.ctx, x.len() / WIDTH, cache.len());
        let options = AttentionOptions::new(HEADS);
        let mut ws = Workspace::new(self.q.workspace_bytes(ctx, tokens, Compute::Int8)?)?;
        ws.reserve(attention::workspace_bytes(ctx, &options, cache, tokens)?)?;

        let mut normed = vec![0.0; x.len()];
        let x = MatRef::dense(x, tokens, WIDTH)?;
        rms_norm(ctx, x, &self.gain, 1e-5, MatMut::dense(&mut normed, tokens, WIDTH)?)?;
        let mut project = |w: &PackedWeights| {
            let mut y = vec![0.0; tokens * w.n()];
            let (a, c) = (MatRef::dense(&normed, tokens, WIDTH)?, MatMut::dense(&mut y, tokens, w.n())?);
            w.multiply(ctx, &mut ws, Compute::Int8, a, c, &Epilogue::default())?;
            kvern::Result::Ok(y)
        };
        let (mut q, mut k, v) = (project(&self.q)?, project(&self.k)?, project(&self.v)?);
        for (heads, width) in [(&mut q, WIDTH), (&mut k, KV_WIDTH)] {
            let heads = MatMut::dense(heads, tokens, width)?;
            rope(ctx, &self.table, RopePairs::Halves, HEAD_DIM, first, heads)?;
        }
        cache.append(MatRef::dense(&k, tokens, KV_WIDTH)?, MatRef::dense(&v, tokens, KV_WIDTH)?)?;
        let (q, mut out) = (MatRef::dense(&q, tokens, WIDTH)?, vec![0.0; tokens * WIDTH]);
        attend(ctx, &mut ws, &options, q, cache, MatMut::dense(&mut out, tokens, WIDTH)?)?;
        Ok(out)
    }
}

pub(crate) fn main() -> kvern::Result<()> {
    let layer = Layer::new()?;
    let x: Vec<f32> = (0..TOKENS * WIDTH).map(|i| (i * 53 % 241) as f32 / 120.0 - 1.0).collect();

    let mut cache = layer.cache()?;
    let prompt = layer.run(&mut cache, &x)?;

    let mut cache = layer.cache()?;
    for (i, token) in x.chunks_exact(WIDTH).enumerate() {
        let out = layer.run(&mut cache, token)?;
        assert_eq!(out, prompt[i * WIDTH..(i + 1) * WIDTH], "token {i}");
    }
    println!(
        "{TOKENS} tokens decoded one at a time have the bits of the prompt; the last one starts {:?}",
        &prompt[prompt.len() - WIDTH..][..3]
    );
    Ok(())
}
