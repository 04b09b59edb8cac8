//! The calls: validation, workspace, and the choice between items of queries and a split over keys.

use super::bias::Bias;
use super::item::Item;
use super::plain::Plain;
use super::shape::Shape;
use super::source::{Source, Streams};
use super::split;
use super::visible::Visible;
use super::{AttentionOptions, CHUNK, KvCache};
use crate::buffer::Workspace;
use crate::context::Context;
use crate::error::{Error, Result, at_least, equal, product, text};
use crate::fp_mode;
use crate::ops::check_softcap;
use crate::parallel::Executor;
use crate::tiles::{Grid, for_each_tile_pair};
use crate::view::{MatMut, MatRef};

/// Multiply-adds below which a call stays on the calling thread: about 5 us of work.
const SERIAL_MACS: usize = 256 * 1024;

/// What a call writes.
#[derive(Debug)]
pub struct Outputs<'a> {
    out: MatMut<'a>,         // (q_len, heads * value_dim)
    lse: Option<MatMut<'a>>, // (q_len, heads)
}

impl<'a> Outputs<'a> {
    /// The attended values, (q_len, heads * value_dim).
    pub fn new(out: MatMut<'a>) -> Outputs<'a> {
        Outputs { out, lse: None }
    }

    /// Asks for the natural logarithm of each softmax's denominator as well, (q_len, heads): what merges
    /// results over disjoint keys, and what a backward pass needs. -inf for a row that sees no key.
    pub fn lse(mut self, lse: MatMut<'a>) -> Outputs<'a> {
        self.lse = Some(lse);
        self
    }
}

/// Sequences of a cache: what a call reads keys and values from. Row `s * n + i` of queries and outputs is query i
/// of sequence `sequences[s]`, where n is q.rows divided by their number (1 when decoding).
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    cache: &'a KvCache,
    sequences: &'a [usize],
}

impl<'a> Sequences<'a> {
    /// Some sequences of a cache, in any order.
    pub fn new(cache: &'a KvCache, sequences: &'a [usize]) -> Sequences<'a> {
        Sequences { cache, sequences }
    }
}

/// Sequence 0.
impl<'a> From<&'a KvCache> for Sequences<'a> {
    fn from(cache: &'a KvCache) -> Sequences<'a> {
        Sequences { cache, sequences: &[0] }
    }
}

/// Bytes of workspace that [`attend`] and [`attend_with`] need for up to `q_len` queries of each sequence,
/// whatever the cache holds by then.
///
/// **Errors**: `Shape` for heads that are no multiple of kv_heads, `Overflow`.
pub fn workspace_bytes(
    ctx: &Context,
    options: &AttentionOptions,
    cache: &KvCache,
    q_len: usize,
) -> Result<usize> {
    bytes(ctx, options, &Source::Cache(cache, 0), q_len)
}

/// Bytes of workspace that [`attend_plain`] needs for up to `q_len` queries over up to as many keys as `kv` has.
///
/// **Errors**: as [`workspace_bytes`].
pub fn plain_workspace_bytes(
    ctx: &Context,
    options: &AttentionOptions,
    kv: &Plain<'_>,
    q_len: usize,
) -> Result<usize> {
    bytes(ctx, options, &Source::Plain(*kv), q_len)
}

fn bytes(ctx: &Context, options: &AttentionOptions, source: &Source<'_>, q_len: usize) -> Result<usize> {
    let lanes = ctx.workers();
    let sequences = source.most_sequences();
    let shape = Shape::new(options, source, q_len, sequences, lanes)?;
    let all = product("workspace bytes", &[shape.lane_bytes(ctx.kernels().mr())?, lanes])?;
    let split = shape.most_split_bytes(source.most_keys() / CHUNK + 2, sequences, lanes)?;
    all.checked_add(split).ok_or(Error::Overflow { what: "workspace bytes" })
}

/// Attention of the cache's last `q_len` tokens over the cache: append their keys and values first.
///
/// **Formula**: `out[i][h] = softmax(scale * q[i][h] . K[h / group]^T) V[h / group]` over the keys that query i
/// sees: positions up to its own (causal), the last `window` of them. **Shapes**: `q`, `out`:
/// (q_len, heads * head_dim), plain. **Numerics**: chunks of [`CHUNK`] keys at fixed positions, each with FMA
/// chains over head_dim and over keys, its own maximum, `exp2`, and merged in ascending order; a masked key
/// contributes nothing, not even NaN; a row that sees no key is zeros. **Errors**: `Shape`, `Option`,
/// `Workspace`; nothing is changed then. **Panics**: never. **Cost**: `4 * head_dim` flops for each visible
/// (query head, key); keys and values are read once for each 384 query rows; allocates nothing.
/// **Source**: FlashAttention (Dao et al. 2022) with per-chunk maxima; tiles of the f32 product.
pub fn attend(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    q: MatRef<'_>,
    cache: &KvCache,
    out: MatMut<'_>,
) -> Result<()> {
    attend_with(ctx, ws, options, &Bias::default(), q, cache, Outputs::new(out))
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
    let kv = Sequences::new(cache, sequences);
    attend_with(ctx, ws, options, &Bias::default(), q, kv, Outputs::new(out))
}

/// [`attend_batch`] with everything that may enter the scores, and the log-sum-exp where it is asked for. `kv`
/// is a cache (its sequence 0) or [`Sequences`] of one.
///
/// **Formula**: `s = scale * q . k`, then `softcap * tanh(s / softcap)`, then ALiBi, then the additive mask, then
/// the boolean ones; sinks enter the softmax as one more score before all keys. **Numerics**: scores live in the
/// exp2 domain: the query is multiplied by `fl(scale * log2 e)` (with a cap `fl(scale / softcap)`, and the
/// tanh by `fl(softcap * log2 e)`), ALiBi and mask are one FMA each with `fl(slope * log2 e)` and `log2 e`. A
/// learned sink starts the row at `m = fl(logit * log2 e), l = 1, o = 0`, before the first chunk is merged.
/// `lse = (m + log2 l) * ln 2` in f64 by `libm`, rounded once. Otherwise as [`attend`]: a row has the same bits in
/// any batch and on any number of threads. **Errors**: as [`attend`], and `Shape` for a mask, slopes or logits
/// of another shape, or for pinned sinks that a wrapped cache has forgotten. **Cost**: one more pass over the
/// scores where something changes them; a mask that hides all of a chunk from 6 rows saves its products.
/// **Stack**: at most 16 KiB of the calling thread and of each worker; a thread of 32 KiB, which also holds
/// thread-local storage, is enough.
pub fn attend_with<'a>(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    kv: impl Into<Sequences<'a>>,
    outputs: Outputs<'_>,
) -> Result<()> {
    let Sequences { cache, sequences } = kv.into();
    call(ctx, ws, options, bias, q, Streams::Cache(cache, sequences), outputs)
}

/// [`attend_with`] over keys and values in the caller's own row-major memory. Query i stands at position
/// `k.rows - q_len + i`; without causality, window and tree there may be more queries than keys.
///
/// **Numerics**: the bits of [`attend_with`] over a cache of f32 that holds the same tokens. **Cost**: each chunk
/// of keys is transposed for each work item, which a cache saves: about a tenth of a prefill, and more
/// than its products in decoding; values are read in place where value_dim is a multiple of 16.
pub fn attend_plain(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    kv: &Plain<'_>,
    outputs: Outputs<'_>,
) -> Result<()> {
    call(ctx, ws, options, bias, q, Streams::Plain(*kv), outputs)
}

fn call(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    streams: Streams<'_>,
    outputs: Outputs<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let sequences = streams.count();
    if !q.rows().is_multiple_of(sequences) {
        let (got, relation) = (q.rows(), "must be a multiple of the number of sequences =");
        return Err(Error::Shape { what: "q.rows", got, relation, want: sequences });
    }
    let q_len = q.rows() / sequences.max(1);
    let shape = Shape::new(options, &streams.source(0), q_len, sequences, ctx.workers())?;
    let Outputs { out, lse } = outputs;
    check(options, &shape, q, &out, lse.as_ref())?;
    bias.check(options.heads, q.rows(), q_len, streams.longest())?;
    let (mut tokens, mut chunks) = (0usize, 0);
    for slot in 0..sequences {
        let source = streams.source(slot);
        let visible = Visible::new(options, &source, q_len, bias.tree.is_some())?;
        tokens = tokens.saturating_add(source.len());
        chunks = chunks.max(visible.chunks(&(0..q_len)).len());
    }

    let kernels = ctx.kernels();
    let lane_bytes = shape.lane_bytes(kernels.mr())?;
    let macs = [options.heads, q_len, tokens, shape.key_dim + shape.value_dim];
    let serial = macs.into_iter().fold(1usize, usize::saturating_mul) < SERIAL_MACS;
    let executor = if serial { Executor::serial() } else { ctx.executor() };
    let lanes = executor.workers();
    let need = product("workspace bytes", &[lane_bytes, lanes])?;
    let item = Item::new(kernels, options, shape, bias, q, streams);
    let lse = match lse {
        Some(lse) => lse,
        None => MatMut::dense(&mut [], 0, 0)?,
    };
    // A workspace that was sized for fewer keys still serves: unsplit, with the same bits.
    let split = shape.split_bytes(chunks, sequences, lanes).filter(|&bytes| ws.bytes() >= need + bytes);
    if let Some(partials) = split {
        return split::run(executor, &item, chunks, ws.arena(need + partials)?, lane_bytes, out, lse);
    }
    let scratch = ws.arena(need)?.rest();
    let grid = Grid { tile_rows: shape.tile_tokens, tile_cols: shape.group * shape.value_dim };
    for_each_tile_pair(executor, out, lse, grid, shape.group, scratch, lane_bytes, &|arena, at, out, lse| {
        item.run(arena, at, out, lse)
    });
    Ok(())
}

/// Checks queries and outputs.
fn check(
    options: &AttentionOptions,
    shape: &Shape,
    q: MatRef<'_>,
    out: &MatMut<'_>,
    lse: Option<&MatMut<'_>>,
) -> Result<()> {
    let width = |dim| product("heads * head_dim", &[options.heads, dim]);
    equal("q.cols", q.cols(), "must equal heads * head_dim =", width(shape.key_dim)?)?;
    equal("out.cols", out.cols(), "must equal heads * head_dim =", width(shape.value_dim)?)?;
    equal("out.rows", out.rows(), "must equal q.rows =", q.rows())?;
    if out.rows() > 1 {
        at_least("out.row_stride", out.row_stride(), out.cols())?;
    }
    if let Some(lse) = lse {
        equal("lse.cols", lse.cols(), "must equal heads =", options.heads)?;
        equal("lse.rows", lse.rows(), "must equal q.rows =", q.rows())?;
        if lse.rows() > 1 {
            at_least("lse.row_stride", lse.row_stride(), lse.cols())?;
        }
    }
    if q.is_transposed() {
        let (got, allowed) = (text("a transposed view"), "plain: one token a row");
        return Err(Error::Option { what: "q", got, allowed });
    }
    check_softcap(options.softcap)
}
