//! The fused loops: for each block of queries, chunks of keys in ascending order; for each chunk, strips
//! of query rows through scores, softmax, values and merge.
//!
//! The query heads of a kv head are rows of the same tiles, so keys and values are read once for the whole
//! group. A strip of scores is 6 x 256 and never leaves L1.

use super::{AttentionOptions, CHUNK, KvCache};
use crate::buffer::{Arena, Workspace};
use crate::context::Context;
use crate::error::{Error, Result, at_least, equal, product};
use crate::kernels::{Elements, KernelSet, LANES, Operand, Panel};
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
    head_dim: usize,
    /// Tokens of a work item.
    tile_tokens: usize,
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
        Ok(Shape { q_len, group, head_dim: cache.options().head_dim, tile_tokens })
    }

    /// Elements of scratch of a lane: queries, outputs, (m, l) of each row, scores, chunk outputs.
    fn scratch(&self, mr: usize) -> Result<[usize; 5]> {
        let rows = product("query rows", &[self.tile_tokens, self.group])?;
        let wide = product("query rows", &[rows, self.head_dim])?;
        Ok([wide, wide, 2 * rows, mr * CHUNK, mr * self.head_dim])
    }

    fn lane_bytes(&self, mr: usize) -> Result<usize> {
        self.scratch(mr)?.into_iter().try_fold(0, |sum, len| Ok(sum + Arena::bytes_for::<f32>(len)?))
    }
}

/// Bytes of workspace that [`attend`] needs for `q_len` queries.
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
    let shape = Shape::new(options, cache, q.rows())?;
    let width = product("heads * head_dim", &[options.heads, shape.head_dim])?;
    equal("q.cols", q.cols(), "must equal heads * head_dim =", width)?;
    equal("out.cols", out.cols(), "must equal heads * head_dim =", width)?;
    equal("out.rows", out.rows(), "must equal q.rows =", q.rows())?;
    if out.rows() > 1 {
        at_least("out.row_stride", out.row_stride(), out.cols())?;
    }
    if q.is_transposed() {
        let (got, allowed) = ("a transposed view".into(), "plain: one token a row");
        return Err(Error::Option { what: "q", got, allowed });
    }
    let seen = Visible::new(options, cache, shape.q_len)?;

    let kernels = ctx.kernels();
    let lane_bytes = shape.lane_bytes(kernels.mr())?;
    let macs = [options.heads, shape.q_len, cache.len(), 2 * shape.head_dim];
    let serial = macs.into_iter().fold(1usize, usize::saturating_mul) < SERIAL_MACS;
    let executor = if serial { &Executor::Serial } else { ctx.executor() };
    let scratch = ws.arena(product("workspace bytes", &[lane_bytes, executor.lanes()])?)?.rest();
    let scale = options.scale.unwrap_or(1.0 / (shape.head_dim as f32).sqrt());
    let factor = scale * std::f32::consts::LOG2_E; // scores live in the exp2 domain
    let item = Item { kernels, shape, seen, q, cache, factor };
    let grid = Grid { tile_rows: shape.tile_tokens, tile_cols: shape.group * shape.head_dim };
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
}

impl Visible {
    fn new(options: &AttentionOptions, cache: &KvCache, q_len: usize) -> Result<Visible> {
        let len = cache.len();
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
        if q_len > 0 && oldest < cache.start() {
            let want = (cache.options().capacity + 1).saturating_sub(window);
            let relation = "must be at most capacity - window + 1 =";
            return Err(Error::Shape { what: "q.rows", got: q_len, relation, want });
        }
        Ok(Visible { first, len, window, causal: options.causal })
    }

    /// Keys that query `i` sees, as absolute positions.
    fn keys(&self, i: usize) -> Range<usize> {
        if !self.causal {
            return 0..self.len;
        }
        let end = self.first + i + 1;
        end.saturating_sub(self.window)..end
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
    shape: Shape,
    seen: Visible,
    q: MatRef<'a>,
    cache: &'a KvCache,
    factor: f32,
}

/// Scratch of a lane, named. Rows are (token, head of the group).
struct Lane<'a> {
    q: &'a mut [f32],      // (rows, head_dim), scaled
    o: &'a mut [f32],      // (rows, head_dim)
    state: &'a mut [f32],  // (rows, 2): m, l
    scores: &'a mut [f32], // (mr, CHUNK)
    chunk: &'a mut [f32],  // (mr, head_dim)
}

impl Item<'_> {
    /// One work item: some tokens, the heads of one kv head.
    fn run(&self, arena: Arena<'_>, origin: Origin, mut out: MatMut<'_>) {
        let (dim, group) = (self.shape.head_dim, self.shape.group);
        let (tokens, head) = (out.rows(), origin.col / (group * dim));
        let rows = tokens * group;
        let mut lane = self.lane(arena);
        for t in 0..tokens {
            let q = &self.q.from(origin.row + t, origin.col)[..group * dim];
            self.kernels.scale(q, self.factor, &mut lane.q[t * group * dim..(t + 1) * group * dim]);
        }
        lane.o[..rows * dim].fill(0.0);
        for state in lane.state.chunks_exact_mut(2) {
            state.copy_from_slice(&[f32::NEG_INFINITY, 0.0]);
        }
        // Only chunks that some query of the block can see; both ends grow with the position.
        let keys = self.seen.keys(origin.row).start..self.seen.keys(origin.row + tokens - 1).end;
        let mr = self.kernels.mr();
        let strip = rows.div_ceil(rows.div_ceil(mr));
        for chunk in keys.start / CHUNK..keys.end.div_ceil(CHUNK) {
            for row in (0..rows).step_by(strip) {
                self.strip(&mut lane, head, chunk, origin.row, row..rows.min(row + strip));
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

    /// One strip of at most mr rows against one chunk.
    fn strip(&self, lane: &mut Lane<'_>, head: usize, chunk: usize, token0: usize, rows: Range<usize>) {
        let dim = self.shape.head_dim;
        let visible = |row: usize| within_chunk(&self.seen.keys(token0 + row / self.shape.group), chunk);
        // Ranges grow with the row, so the first row starts first and the last one ends last.
        let union = visible(rows.start).start..visible(rows.end - 1).end;
        let common = visible(rows.end - 1).start..visible(rows.start).end;
        if union.is_empty() {
            return;
        }
        let mr = rows.len();
        self.scores(lane, head, chunk, &rows, union);

        let Lane { o, state, scores, chunk: sums, .. } = lane;
        sums[..mr * dim].fill(0.0);
        let mut parts = [(f32::NEG_INFINITY, 0.0); 16];
        for (i, part) in parts[..mr].iter_mut().enumerate() {
            let keys = visible(rows.start + i);
            if !keys.is_empty() {
                let scores = &mut scores[i * CHUNK..(i + 1) * CHUNK];
                *part = self.kernels.chunk_softmax(scores, keys.start, keys.end);
            }
        }
        // Keys in ascending order for each row: those before the common range, the common range as one
        // tile, those after it. A key that a row does not see is not touched for it, so that nothing
        // stored there, not even NaN, can reach the row.
        if common.is_empty() {
            for i in 0..mr {
                self.values(head, chunk, visible(rows.start + i), i..i + 1, scores, sums);
            }
        } else {
            for i in 0..mr {
                let keys = visible(rows.start + i);
                self.values(head, chunk, keys.start..common.start, i..i + 1, scores, sums);
            }
            self.values(head, chunk, common.clone(), 0..mr, scores, sums);
            for i in 0..mr {
                let keys = visible(rows.start + i);
                self.values(head, chunk, common.end..keys.end, i..i + 1, scores, sums);
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

    /// `scores[i][key] = q[i] . k[key]` for the tiles of 16 keys that cover `keys`.
    fn scores(
        &self,
        lane: &mut Lane<'_>,
        head: usize,
        chunk: usize,
        rows: &Range<usize>,
        keys: Range<usize>,
    ) {
        let (dim, mr) = (self.shape.head_dim, rows.len());
        let all_keys = self.cache.key_chunk(head, chunk);
        let q = Operand { data: &lane.q[rows.start * dim..], row_stride: dim, k_stride: 1 };
        let Ok(mut scores) = MatMut::dense(lane.scores, mr, CHUNK) else { return };
        let width = self.kernels.nv(mr) * LANES;
        let (first, end) = (keys.start / LANES * LANES, keys.end.next_multiple_of(LANES));
        for key in (first..end).step_by(width) {
            let k = Panel {
                data: Elements::F32(&all_keys[key * dim..]),
                k_stride: LANES,
                vec_stride: dim * LANES,
            };
            self.kernels.gemm(dim, q, k, scores.tile(0, key, mr, width.min(end - key)), false);
        }
    }

    /// `sums[i] += p[i][keys] V[keys]` for the rows `i` of the strip.
    fn values(
        &self,
        head: usize,
        chunk: usize,
        keys: Range<usize>,
        rows: Range<usize>,
        scores: &[f32],
        sums: &mut [f32],
    ) {
        if keys.is_empty() {
            return;
        }
        let (dim, stride) = (self.shape.head_dim, self.cache.value_stride());
        let values = &self.cache.value_chunk(head, chunk)[keys.start * stride..];
        let data = &scores[rows.start * CHUNK + keys.start..];
        let p = Operand { data, row_stride: CHUNK, k_stride: 1 };
        let mr = rows.len();
        let Ok(mut sums) = MatMut::dense(&mut sums[rows.start * dim..], mr, dim) else { return };
        let width = self.kernels.nv(mr) * LANES;
        for d in (0..dim).step_by(width) {
            let v = Panel { data: Elements::F32(&values[d..]), k_stride: stride, vec_stride: LANES };
            self.kernels.gemm(keys.len(), p, v, sums.tile(0, d, mr, width), true);
        }
    }

    fn lane<'s>(&self, mut arena: Arena<'s>) -> Lane<'s> {
        let sizes = self.shape.scratch(self.kernels.mr()).unwrap_or_default();
        let [q, o, state, scores, chunk] = sizes.map(|len| {
            let part = arena.take::<f32>(len);
            debug_assert!(part.is_ok(), "the lane was sized by the same numbers");
            part.unwrap_or_default()
        });
        Lane { q, o, state, scores, chunk }
    }
}
