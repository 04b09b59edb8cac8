//! Running a model: activations, caches and the forward pass.

use anyhow::{Result, ensure};
use kvern::attention::{self, AttentionOptions, KvCache, KvCacheOptions};
use kvern::buffer::AlignedBuf;
use kvern::ops::{self, RopePairs, RopeTable};
use kvern::{Context, MatMut, MatRef, Workspace};

use super::network::Model;
use super::shape::{MAX_VALUES, NORM_EPSILON, ROPE_BASE, Shape};
use super::weights::NormWeights;

/// A sequence in progress. Everything it needs is allocated by [`Session::new`]; [`Session::forward`]
/// allocates nothing.
pub struct Session<'a> {
    ctx: &'a Context,
    model: &'a Model,
    options: AttentionOptions,
    rope: RopeTable,
    caches: Vec<KvCache>,
    ws: Workspace,
    batch: usize,
    x: AlignedBuf<f32>,      // (batch, dim)
    h: AlignedBuf<f32>,      // (batch, dim): norms, then the attention's output
    qkv: AlignedBuf<f32>,    // (batch, 3 dim)
    hidden: AlignedBuf<f32>, // (batch, ffn)
    logits: AlignedBuf<f32>, // (batch, vocabulary)
}

impl<'a> Session<'a> {
    /// An empty sequence; each call of [`Session::forward`] takes at most `batch` tokens.
    ///
    /// # Errors
    /// When the activations are more than [`MAX_VALUES`], or memory cannot be allocated.
    pub fn new(ctx: &'a Context, model: &'a Model, batch: usize) -> Result<Self> {
        let Shape { vocabulary, dim, heads, ffn, layers, context } = *model.shape();
        let width = 5 * dim + ffn + vocabulary;
        ensure!(
            batch.checked_mul(width).is_some_and(|values| values as u64 <= MAX_VALUES),
            "{batch} tokens at once of a model with --dim {dim} and --ffn {ffn} are more than \
             {MAX_VALUES} activations; fewer tokens or a smaller --context are needed"
        );
        let head_size = dim / heads;
        let options = AttentionOptions::new(heads);
        let cache = KvCache::new(KvCacheOptions::new(heads, head_size, context))?;
        let ws = Workspace::new(workspace_bytes(ctx, model, &options, &cache, batch)?)?;
        let buffer = |width: usize| AlignedBuf::zeroed(batch * width);
        Ok(Self {
            ctx,
            model,
            options,
            rope: RopeTable::new(head_size, context, ROPE_BASE)?,
            caches: vec![cache; layers],
            ws,
            batch,
            x: buffer(dim)?,
            h: buffer(dim)?,
            qkv: buffer(3 * dim)?,
            hidden: buffer(ffn)?,
            logits: buffer(vocabulary)?,
        })
    }

    /// Tokens in the caches.
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KvCache::len)
    }

    /// Whether the caches are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Empties the caches; keeps the memory.
    pub fn clear(&mut self) {
        self.caches.iter_mut().for_each(KvCache::clear);
    }

    /// Goes back to the first `len` tokens.
    ///
    /// # Errors
    /// When the caches hold fewer.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        for cache in &mut self.caches {
            cache.truncate(len)?;
        }
        Ok(())
    }

    /// Appends `ids` to the sequence and computes the logits after each of them: (ids.len(), vocabulary), row
    /// after row.
    ///
    /// # Errors
    /// When there are no ids, more than the batch, more than the context has room for, or one is not in the
    /// vocabulary; the sequence is unchanged.
    pub fn forward(&mut self, ids: &[u32]) -> Result<&[f32]> {
        let Shape { vocabulary, dim, ffn, context, .. } = *self.model.shape();
        let (n, first) = (ids.len(), self.len());
        ensure!((1..=self.batch).contains(&n), "{n} tokens in one call; 1 to {} are possible", self.batch);
        ensure!(first + n <= context, "{n} tokens after {first} are more than --context {context}");

        let Self { ctx, model, options, rope, caches, ws, .. } = self;
        let x = &mut self.x.as_mut_slice()[..n * dim];
        let h = &mut self.h.as_mut_slice()[..n * dim];
        let qkv = &mut self.qkv.as_mut_slice()[..n * 3 * dim];
        let hidden = &mut self.hidden.as_mut_slice()[..n * ffn];
        let logits = &mut self.logits.as_mut_slice()[..n * vocabulary];

        model.embedding.rows(ctx, ids, MatMut::dense(x, n, dim)?)?;
        for (block, cache) in model.blocks.iter().zip(caches) {
            norm(ctx, &block.norm1, MatRef::dense(x, n, dim)?, MatMut::dense(h, n, dim)?)?;
            block.qkv.apply(ctx, ws, MatRef::dense(h, n, dim)?, MatMut::dense(qkv, n, 3 * dim)?)?;
            // Queries and keys stand side by side: one call rotates the heads of both.
            let rotated = MatMut::new(qkv, n, 2 * dim, 3 * dim)?;
            ops::rope(ctx, rope, RopePairs::Halves, dim / options.heads, first, rotated)?;
            let [q, k, v] = [0, 1, 2].map(|part| MatRef::new(&qkv[part * dim..], n, dim, 3 * dim));
            cache.append(k?, v?)?;
            attention::attend(ctx, ws, options, q?, cache, MatMut::dense(h, n, dim)?)?;
            block.output.apply(ctx, ws, MatRef::dense(h, n, dim)?, MatMut::dense(x, n, dim)?)?;

            norm(ctx, &block.norm2, MatRef::dense(x, n, dim)?, MatMut::dense(h, n, dim)?)?;
            block.up.apply(ctx, ws, MatRef::dense(h, n, dim)?, MatMut::dense(hidden, n, ffn)?)?;
            block.down.apply(ctx, ws, MatRef::dense(hidden, n, ffn)?, MatMut::dense(x, n, dim)?)?;
        }
        model.head.apply(ctx, ws, MatRef::dense(x, n, dim)?, MatMut::dense(logits, n, vocabulary)?)?;
        Ok(logits)
    }

    /// The context that it computes on.
    pub fn context(&self) -> &'a Context {
        self.ctx
    }

    /// The model that it runs.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Bytes held by the session without the model: caches, workspace, activations, RoPE tables.
    pub fn bytes(&self) -> usize {
        let activations = [&self.x, &self.h, &self.qkv, &self.hidden, &self.logits];
        // A cosine and a sine for each pair of a head's elements.
        let tables = self.rope.positions() * self.rope.rotary_dim() * size_of::<f32>();
        self.caches.iter().map(KvCache::bytes).sum::<usize>()
            + self.ws.bytes()
            + activations.map(AlignedBuf::bytes).iter().sum::<usize>()
            + tables
    }
}

fn norm(ctx: &Context, weights: &NormWeights, x: MatRef<'_>, y: MatMut<'_>) -> Result<()> {
    Ok(ops::layer_norm(ctx, x, &weights.gain, &weights.bias, NORM_EPSILON, y)?)
}

/// Bytes of workspace that suffice for every call with up to `batch` tokens. All blocks have the sizes of the
/// first block. The need is not monotonic in the number of rows, so every number of rows is asked.
fn workspace_bytes(
    ctx: &Context,
    model: &Model,
    options: &AttentionOptions,
    cache: &KvCache,
    batch: usize,
) -> Result<usize> {
    let of_block = model.blocks.iter().take(1).flat_map(|b| [&b.qkv, &b.output, &b.up, &b.down]);
    let linears: Vec<_> = of_block.chain([&model.head]).collect();
    let mut most = 0;
    for rows in 1..=batch {
        most = most.max(attention::workspace_bytes(ctx, options, cache, rows)?);
        for linear in &linears {
            most = most.max(linear.workspace_bytes(ctx, rows)?);
        }
    }
    Ok(most)
}
