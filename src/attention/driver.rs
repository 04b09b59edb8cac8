//! The fused loops: for each block of queries, chunks of keys in ascending order; for each chunk, strips
//! of query rows through scores, softmax, values and merge.
//!
//! The query heads of a kv head are rows of the same tiles, so keys and values are read once for the whole
//! group. A strip of scores is 6 x 256 and never leaves L1.

use super::source::{Chunk, Source};
use super::{AttentionOptions, CHUNK, KvCache};
use crate::buffer::{Arena, Workspace};
use crate::context::Context;
use crate::error::{Error, Result, at_least, equal, product};
use crate::kernels::{KernelSet, Operand};
use crate::parallel::Executor;
use crate::view::{Grid, MatMut, MatRef, Origin, for_each_tile};
use std::ops::Range;

/// Query rows (tokens x heads of a group) of a work item: 16 strips of 6 share each chunk while it is in L2.
const ROWS: usize = 96;

/// Multiply-adds below which a call stays on the calling thread: about 5 us of work.
const SERIAL_MACS: usize = 256 * 1024;

/// Shape of one call, validated.
#[derive(Clone, Copy)]
struct Shape {
    q_len: usize,
    group: usize,
    key_dim: usize,
    value_dim: usize,
    /// Tokens of a work item.
    tile_tokens: usize,
    /// Elements of scratch of a lane that the source asks for.
    panel: usize,
}

impl Shape {
    fn new(options: &AttentionOptions, cache: &KvCache, q_len: usize) -> Result<Shape> {
        let (heads, kv_heads) = (options.heads, cache.options().kv_heads);
        if heads == 0 || !heads.is_multiple_of(kv_heads) {
            let relation = "must be a multiple of kv_heads =";
            return Err(Error::Shape { what: "heads", got: heads, relation, want: kv_heads });
        }
        let group = heads / kv_heads;
        let tile_tokens = (ROWS / group).clamp(1, q_len.max(1));
        let (key_dim, value_dim) = (cache.options().head_dim, cache.options().value_dim);
        let panel = Source::Cache(cache, 0).panel_len(product("query rows", &[tile_tokens, group])?)?;
        Ok(Shape { q_len, group, key_dim, value_dim, tile_tokens, panel })
    }

    /// Elements of scratch of a lane: queries, outputs, (m, l) of each row, scores, chunk outputs, panel.
    fn scratch(&self, mr: usize) -> Result<[usize; 6]> {
        let rows = product("query rows", &[self.tile_tokens, self.group])?;
        let q = product("query rows", &[rows, self.key_dim])?;
        let o = product("query rows", &[rows, self.value_dim])?;
        Ok([q, o, 2 * rows, mr * CHUNK, mr * self.value_dim, self.panel])
    }

    fn lane_bytes(&self, mr: usize) -> Result<usize> {
        self.scratch(mr)?.into_iter().try_fold(0, |sum, len| Ok(sum + Arena::bytes_for::<f32>(len)?))
    }
}

/// Bytes of workspace that [`attend`] needs for `q_len` queries, and [`attend_batch`] for as many a sequence.
///
/// **Errors**: `Shape` for heads that are no multiple of kv_heads, `Overflow`.
pub fn workspace_bytes(
    ctx: &Context,
    options: &AttentionOptions,
    cache: &KvCache,
    q_len: usize,
) -> Result<usize> {
    let lane = Shape::new(options, cache, q_len)?.lane_bytes(ctx.kernels().mr())?;
    product("workspace bytes", &[lane, ctx.lanes()])
}

/// Attention of the cache's last `q_len` tokens over the cache: append their keys and values first.
///
/// **Formula**: `out[i][h] = softmax(scale * q[i][h] . K[h / group]^T) V[h / group]` over the keys that query i
/// sees: positions up to its own (causal), the last `window` of them. **Shapes**: `q`, `out`:
/// (q_len, heads * head_dim), plain. **Numerics**: chunks of [`CHUNK`] keys at fixed positions, each with FMA
/// chains over head_dim and over keys, its own maximum, `exp2`, and merged in ascending order; a masked key
/// contributes nothing, not even NaN; a row that sees no key is zeros. **Errors**: `Shape`, `Option`,
/// `Workspace`; nothing is changed then. **Panics**: never. **Cost**: `4 * head_dim` flops for each visible
/// (query head, key); keys and values are read once for each 96 query rows; allocates nothing.
/// **Source**: FlashAttention (Dao et al. 2022) with per-chunk maxima; tiles of the f32 product.
pub fn attend(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    q: MatRef<'_>,
    cache: &KvCache,
    out: MatMut<'_>,
) -> Result<()> {
    attend_batch(ctx, ws, options, q, cache, &[0], out)
}

/// [`attend`] for several sequences of a cache in one call: row `s * n + i` of `q` and `out` is query i of
/// sequence `sequences[s]`, where n is q.rows divided by the number of sequences (1 when decoding).
///
/// **Numerics**: each row has the bits that it has alone. **Errors**: as [`attend`]; also `Shape` when q.rows is
/// no multiple of the number of sequences, `Option` for a sequence that is not there.
pub fn attend_batch(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    q: MatRef<'_>,
    cache: &KvCache,
    sequences: &[usize],
    out: MatMut<'_>,
) -> Result<()> {
    if !q.rows().is_multiple_of(sequences.len()) {
        let (got, relation) = (q.rows(), "must be a multiple of the number of sequences =");
        return Err(Error::Shape { what: "q.rows", got, relation, want: sequences.len() });
    }
    let shape = Shape::new(options, cache, q.rows() / sequences.len().max(1))?;
    let width = |dim| product("heads * head_dim", &[options.heads, dim]);
    equal("q.cols", q.cols(), "must equal heads * head_dim =", width(shape.key_dim)?)?;
    equal("out.cols", out.cols(), "must equal heads * head_dim =", width(shape.value_dim)?)?;
    equal("out.rows", out.rows(), "must equal q.rows =", q.rows())?;
    if out.rows() > 1 {
        at_least("out.row_stride", out.row_stride(), out.cols())?;
    }
    if q.is_transposed() {
        let (got, allowed) = ("a transposed view".into(), "plain: one token a row");
        return Err(Error::Option { what: "q", got, allowed });
    }
    let mut tokens = 0usize;
    for &sequence in sequences {
        Visible::new(options, cache, sequence, shape.q_len)?;
        tokens = tokens.saturating_add(cache.len_of(sequence));
    }

    let kernels = ctx.kernels();
    let lane_bytes = shape.lane_bytes(kernels.mr())?;
    let macs = [options.heads, shape.q_len, tokens, shape.key_dim + shape.value_dim];
    let serial = macs.into_iter().fold(1usize, usize::saturating_mul) < SERIAL_MACS;
    let executor = if serial { &Executor::Serial } else { ctx.executor() };
    let scratch = ws.arena(product("workspace bytes", &[lane_bytes, executor.lanes()])?)?.rest();
    let scale = options.scale.unwrap_or(1.0 / (shape.key_dim as f32).sqrt());
    let factor = scale * std::f32::consts::LOG2_E; // scores live in the exp2 domain
    let item = Item { kernels, options, shape, q, cache, sequences, factor };
    let grid = Grid { tile_rows: shape.tile_tokens, tile_cols: shape.group * shape.value_dim };
    for_each_tile(executor, out, grid, scratch, lane_bytes, &|arena, origin, out| {
        item.run(arena, origin, out)
    });
    Ok(())
}

/// Which keys a query sees.
#[derive(Clone, Copy)]
struct Visible {
    /// Absolute position of query 0.
    first: usize,
    len: usize,
    window: usize,
    causal: bool,
    /// First tokens that every query sees besides its window.
    sinks: usize,
}

impl Visible {
    fn new(options: &AttentionOptions, cache: &KvCache, sequence: usize, q_len: usize) -> Result<Visible> {
        cache.sequence(sequence)?;
        let len = cache.len_of(sequence);
        if q_len > len {
            let relation = "must be at most the cache's len =";
            return Err(Error::Shape { what: "q.rows", got: q_len, relation, want: len });
        }
        let first = len - q_len;
        let window = match cache.options().window {
            Some(_) if !options.causal => {
                let (got, allowed) = ("false".into(), "true for a cache with a window");
                return Err(Error::Option { what: "causal", got, allowed });
            }
            Some(window) => window,
            None => usize::MAX,
        };
        // The first query's window must not have been overwritten by the last one's key.
        let oldest = (first + 1).saturating_sub(window);
        if q_len > 0 && oldest < cache.start_of(sequence) {
            let want = (cache.options().sliding() + 1).saturating_sub(window);
            let relation = "must be at most capacity - window + 1 =";
            return Err(Error::Shape { what: "q.rows", got: q_len, relation, want });
        }
        Ok(Visible { first, len, window, causal: options.causal, sinks: cache.options().sinks })
    }

    /// Keys that query `i` sees, as absolute positions.
    fn keys(&self, i: usize) -> Range<usize> {
        if !self.causal {
            return 0..self.len;
        }
        let end = self.first + i + 1;
        end.saturating_sub(self.window)..end
    }

    /// Pinned keys that query `i` sees before [`Visible::keys`].
    fn pinned(&self, i: usize) -> Range<usize> {
        0..self.sinks.min(self.keys(i).start)
    }
}

/// `keys` as seen from the start of a chunk, clipped to it.
fn within_chunk(keys: &Range<usize>, chunk: usize) -> Range<usize> {
    let base = chunk * CHUNK;
    let clip = |p: usize| p.clamp(base, base + CHUNK) - base;
    clip(keys.start)..clip(keys.end)
}

/// What all work items of a call share.
struct Item<'a> {
    kernels: &'static KernelSet,
    options: &'a AttentionOptions,
    shape: Shape,
    q: MatRef<'a>,
    cache: &'a KvCache,
    sequences: &'a [usize],
    factor: f32,
}

/// Queries of one sequence that a lane works on.
struct Block<'a> {
    source: Source<'a>,
    seen: Visible,
    head: usize,
    /// The first query, counted from the first one of the sequence.
    first: usize,
}

/// Scratch of a lane, named. Rows are (token, head of the group).
struct Lane<'a> {
    q: &'a mut [f32],      // (rows, key_dim), scaled
    o: &'a mut [f32],      // (rows, value_dim)
    state: &'a mut [f32],  // (rows, 2): m, l
    scores: &'a mut [f32], // (mr, CHUNK)
    sums: &'a mut [f32],   // (mr, value_dim)
}

impl Item<'_> {
    /// One work item: some tokens, the heads of one kv head. Those of one sequence after the other.
    fn run(&self, arena: Arena<'_>, origin: Origin, mut out: MatMut<'_>) {
        let (head, q_len) = (origin.col / (self.shape.group * self.shape.value_dim), self.shape.q_len);
        let (mut lane, panel) = self.lane(arena);
        let mut done = 0;
        while done < out.rows() {
            let row = origin.row + done;
            let (sequence, first) = (self.sequences[row / q_len], row % q_len);
            let tokens = (q_len - first).min(out.rows() - done);
            let Ok(seen) = Visible::new(self.options, self.cache, sequence, q_len) else { return };
            let block = Block { source: Source::Cache(self.cache, sequence), seen, head, first };
            let (rows, cols) = (out.rows(), out.cols());
            self.block(&mut lane, panel, &block, row, out.tile(done, 0, tokens.min(rows), cols));
            done += tokens;
        }
    }

    /// Queries of one sequence from row `row` of `q` on.
    fn block(
        &self,
        lane: &mut Lane<'_>,
        panel: &mut [f32],
        block: &Block<'_>,
        row: usize,
        mut out: MatMut<'_>,
    ) {
        let (key_dim, dim, group) = (self.shape.key_dim, self.shape.value_dim, self.shape.group);
        let (tokens, head, seen) = (out.rows(), block.head, &block.seen);
        let rows = tokens * group;
        for (t, wide) in lane.q[..rows * key_dim].chunks_exact_mut(group * key_dim).enumerate() {
            let q = self.q.from(row + t, head * group * key_dim);
            self.kernels.scale(&q[..group * key_dim], self.factor, wide);
        }
        lane.o[..rows * dim].fill(0.0);
        for state in lane.state.chunks_exact_mut(2) {
            state.copy_from_slice(&[f32::NEG_INFINITY, 0.0]);
        }
        // Only chunks that some query of the block can see; both ends grow with the position.
        let last = block.first + tokens - 1;
        let (pinned, keys) = (seen.pinned(last), seen.keys(block.first).start..seen.keys(last).end);
        let mr = self.kernels.mr();
        let strip = rows.div_ceil(rows.div_ceil(mr));
        let window = keys.start / CHUNK..keys.end.div_ceil(CHUNK);
        let pages = 0..pinned.end.div_ceil(CHUNK).min(window.start);
        for index in pages.chain(window) {
            // From the first pinned key to the last key of the window, where the chunk has both.
            let (sinks, mut wanted) = (within_chunk(&pinned, index), within_chunk(&keys, index));
            if !sinks.is_empty() {
                wanted = 0..sinks.end.max(if wanted.is_empty() { 0 } else { wanted.end });
            }
            let chunk = block.source.chunk(self.kernels, head, index, wanted, rows, panel);
            for row in (0..rows).step_by(strip) {
                self.strip(lane, block, &chunk, index, row..rows.min(row + strip));
            }
        }
        for t in 0..tokens {
            let out = out.row(t);
            out.copy_from_slice(&lane.o[t * group * dim..(t + 1) * group * dim]);
            for (h, out) in out.chunks_exact_mut(dim).enumerate() {
                self.kernels.divide(out, lane.state[2 * (t * group + h) + 1]);
            }
        }
    }

    /// One strip of at most mr rows against one chunk, the `index`th.
    fn strip(
        &self,
        lane: &mut Lane<'_>,
        block: &Block<'_>,
        chunk: &Chunk<'_>,
        index: usize,
        rows: Range<usize>,
    ) {
        let dim = self.shape.value_dim;
        let query = |row: usize| block.first + row / self.shape.group;
        let visible = |row: usize| within_chunk(&block.seen.keys(query(row)), index);
        // Pinned keys start at 0, and later rows see no fewer of them.
        let pinned = |row: usize| within_chunk(&block.seen.pinned(query(row)), index).end;
        let (pins, all_pins) = (pinned(rows.end - 1), pinned(rows.start));
        // Ranges grow with the row, so the first row starts first and the last one ends last.
        let union = visible(rows.start).start..visible(rows.end - 1).end;
        let common = visible(rows.end - 1).start..visible(rows.start).end;
        if union.is_empty() && pins == 0 {
            return;
        }
        let (mr, key_dim) = (rows.len(), self.shape.key_dim);
        let Lane { q, o, state, scores, sums } = lane;
        let q = Operand { data: &q[rows.start * key_dim..], row_stride: key_dim, k_stride: 1 };
        let mut products = |keys: Range<usize>| {
            if let (false, Ok(tile)) = (keys.is_empty(), MatMut::dense(scores, mr, CHUNK)) {
                chunk.scores(self.kernels, q, keys, tile);
            }
        };
        products(0..pins);
        products(union);

        sums[..mr * dim].fill(0.0);
        let mut parts = [(f32::NEG_INFINITY, 0.0); 16];
        for (i, part) in parts[..mr].iter_mut().enumerate() {
            let (mut keys, pins) = (visible(rows.start + i), pinned(rows.start + i));
            let scores = &mut scores[i * CHUNK..(i + 1) * CHUNK];
            if pins > 0 {
                // Pinned keys and the window as one row; what lies between has no weight.
                let end = if keys.is_empty() { pins } else { keys.end };
                scores[pins..keys.start.clamp(pins, end)].fill(f32::NEG_INFINITY);
                keys = 0..end;
            }
            if !keys.is_empty() {
                *part = self.kernels.chunk_softmax(scores, keys.start, keys.end);
            }
        }
        // `sums[i] += p[i][keys] V[keys]` for the rows `of` of the strip.
        let mut values = |keys: Range<usize>, of: Range<usize>| {
            if keys.is_empty() {
                return;
            }
            let p =
                Operand { data: &scores[of.start * CHUNK + keys.start..], row_stride: CHUNK, k_stride: 1 };
            let Ok(sums) = MatMut::dense(&mut sums[of.start * dim..], of.len(), dim) else { return };
            chunk.values(self.kernels, p, keys, sums);
        };
        // Keys in ascending order for each row: pinned ones, those before the common range, the common range
        // as one tile, those after it. A key that a row does not see is not touched for it, so that nothing
        // stored there, not even NaN, can reach the row.
        values(0..all_pins, 0..mr);
        if pins > all_pins {
            for i in 0..mr {
                values(all_pins..pinned(rows.start + i), i..i + 1);
            }
        }
        if common.is_empty() {
            for i in 0..mr {
                values(visible(rows.start + i), i..i + 1);
            }
        } else {
            for i in 0..mr {
                values(visible(rows.start + i).start..common.start, i..i + 1);
            }
            values(common.clone(), 0..mr);
            for i in 0..mr {
                values(common.end..visible(rows.start + i).end, i..i + 1);
            }
        }
        for (i, part) in parts[..mr].iter().enumerate() {
            let row = rows.start + i;
            let running = (state[2 * row], state[2 * row + 1]);
            let o = &mut o[row * dim..(row + 1) * dim];
            let (m, l) = self.kernels.chunk_merge(running, o, *part, &sums[i * dim..(i + 1) * dim]);
            state[2 * row..2 * row + 2].copy_from_slice(&[m, l]);
        }
    }

    /// The lane's scratch, and the panel of the source.
    fn lane<'s>(&self, mut arena: Arena<'s>) -> (Lane<'s>, &'s mut [f32]) {
        let sizes = self.shape.scratch(self.kernels.mr()).unwrap_or_default();
        let [q, o, state, scores, sums, panel] = sizes.map(|len| {
            let part = arena.take::<f32>(len);
            debug_assert!(part.is_ok(), "the lane was sized by the same numbers");
            part.unwrap_or_default()
        });
        (Lane { q, o, state, scores, sums }, panel)
    }
}
