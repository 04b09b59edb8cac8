//! The calls: validation, workspace, and the choice between items of queries and a split over keys.

use super::bias::{Bias, BiasShape};
use super::cache::KvCache;
use super::cached::Sequences;
use super::call::Call;
use super::key_values::KeyValues;
use super::options::{AttentionOptions, CHUNK};
use super::plain::Plain;
use super::queries::Queries;
use super::ragged::Ragged;
use super::shape::{Shape, Work};
use super::split;
use super::visible::Visible;
use crate::buffer::Workspace;
use crate::context::Context;
use crate::error::{Error, Result, equal, product, text};
use crate::fp_mode;
use crate::parallel::Executor;
use crate::tiles::{Grid, for_each_tile_pair};
use crate::view::{MatMut, MatRef};

/// Multiply-adds below which a call stays on the calling thread: they take a few times what entering a
/// parallel region takes (docs/TUNING.md, `SERIAL_MACS`).
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

/// Bytes of workspace that [`attend`] and [`attend_with`] need for up to `q_len` queries of each sequence,
/// whatever the cache holds by then.
///
/// - **Errors**: `Shape` for heads that are no multiple of kv_heads, `Overflow`.
pub fn workspace_bytes(
    ctx: &Context,
    options: &AttentionOptions,
    cache: &KvCache,
    q_len: usize,
) -> Result<usize> {
    let made = cache.options();
    bytes(
        ctx,
        options,
        &Sequences::from(cache),
        Most { keys: made.capacity, sequences: made.sequences },
        q_len,
    )
}

/// Bytes of workspace that [`attend_plain`] needs for up to `q_len` queries over up to as many keys as `kv`
/// has.
///
/// - **Errors**: as [`workspace_bytes`].
pub fn plain_workspace_bytes(
    ctx: &Context,
    options: &AttentionOptions,
    kv: &Plain<'_>,
    q_len: usize,
) -> Result<usize> {
    bytes(ctx, options, kv, Most { keys: kv.len(), sequences: 1 }, q_len)
}

/// The most that calls with a workspace are about.
struct Most {
    keys: usize,
    sequences: usize,
}

fn bytes(
    ctx: &Context,
    options: &AttentionOptions,
    kv: &dyn KeyValues,
    most: Most,
    q_len: usize,
) -> Result<usize> {
    let workers = ctx.executor().workers();
    let shape = Shape::new(options, kv, Work { q_len, sequences: most.sequences, workers })?;
    let scratch = shape.scratch(ctx.kernels().mr())?.bytes()?;
    let all = product("workspace bytes", &[scratch, workers])?;
    let split = shape.most_split_bytes(most.keys / CHUNK + 2, most.sequences, workers)?;
    all.checked_add(split).ok_or(Error::Overflow { what: "workspace bytes" })
}

/// Attention of the cache's last `q_len` tokens over the cache: append their keys and values first.
///
/// - **Formula**: `out[i][h] = softmax(scale * q[i][h] . K[h / group]^T) V[h / group]` over the keys that
///   query i sees: positions up to its own (causal), the last `window` of them.
/// - **Shapes**: `q`, `out`: (q_len, heads * head_dim), plain.
/// - **Numerics**: chunks of [`CHUNK`] keys at fixed positions, each with FMA chains over head_dim and over
///   keys, its own maximum, `exp2`, and merged in ascending order; a masked key contributes nothing, not even
///   NaN; a row that sees no key is zeros.
/// - **Errors**: `Shape`, `Option`, `Workspace`; nothing is changed then.
/// - **Panics**: never.
/// - **Cost**: `4 * head_dim` flops for each visible (query head, key); keys and values are read once for
///   each 384 query rows; allocates nothing.
/// - **Source**: FlashAttention (Dao et al. 2022) with per-chunk maxima; tiles of the f32 product.
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
/// - **Numerics**: each row has the bits that it has alone.
/// - **Errors**: as [`attend`]; also `Shape` when q.rows is no multiple of the number of sequences, `Option`
///   for a sequence that is not there.
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

/// [`attend_batch`] with everything that may enter the scores, and the log-sum-exp where an output takes
/// it. `kv` is a cache (its sequence 0) or [`Sequences`] of one.
///
/// - **Formula**: `s = scale * q . k`, then `softcap * tanh(s / softcap)`, then ALiBi, then the additive
///   mask, then the boolean ones; sinks enter the softmax as one more score before all keys.
/// - **Numerics**: scores live in the exp2 domain: the query is multiplied by `fl(scale * log2 e)` (with a
///   cap `fl(scale / softcap)`, and the tanh by `fl(softcap * log2 e)`), ALiBi and mask are one FMA each with
///   `fl(slope * log2 e)` and `log2 e`. A learned sink starts the row at `m = fl(logit * log2 e), l = 1, o =
///   0`, before the first chunk is merged. `lse = (m + log2 l) * ln 2` in f64 by `libm`, rounded once.
///   Otherwise as [`attend`]: a row has the same bits in any batch and on any number of threads.
/// - **Errors**: as [`attend`], and `Shape` for a mask, slopes or logits of another shape, or for pinned
///   sinks that a wrapped cache has forgotten; `Option` for a factor of those above that is not finite.
/// - **Cost**: one more pass over the scores where something changes them; a mask that hides all of a chunk
///   from 6 rows saves its products.
/// - **Stack**: at most 16 KiB of the calling thread and of each worker; a thread of 32 KiB, which also holds
///   thread-local storage, is enough.
pub fn attend_with<'a>(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    kv: impl Into<Sequences<'a>>,
    outputs: Outputs<'_>,
) -> Result<()> {
    run(ctx, ws, options, bias, q, &kv.into(), outputs)
}

/// [`attend_with`] over keys and values in the caller's own row-major memory. Query i stands at position
/// `k.rows - q_len + i`; without causality, window and tree there may be more queries than keys.
///
/// - **Numerics**: the bits of [`attend_with`] over a cache of f32 that holds the same tokens.
/// - **Cost**: each chunk of keys is transposed for each work item, which a cache saves: about a tenth of a
///   prefill, and more than its products in decoding; values are read in place where value_dim is a multiple
///   of 16.
pub fn attend_plain(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    kv: &Plain<'_>,
    outputs: Outputs<'_>,
) -> Result<()> {
    run(ctx, ws, options, bias, q, kv, outputs)
}

/// [`attend_plain`] for sequences of different lengths, one after the other in the rows of queries, keys and
/// values: no row of padding is computed. Query i of a sequence of n queries stands at position `keys - n +
/// i` of its own keys.
///
/// - **Shapes**: `q`: (query_starts.last, heads * key_dim); outputs have as many rows. Masks have a row for
///   each row of `q`; their columns are positions, as many as the longest sequence has keys.
/// - **Workspace**: [`plain_workspace_bytes`] for the most queries of a sequence.
/// - **Numerics**: each row has the bits of [`attend_plain`] over its own sequence alone.
/// - **Errors**: as [`attend_plain`]; also `Shape` for starts that do not end with the rows, `Option` for a
///   tree mask, whose columns are the queries of one sequence.
pub fn attend_ragged(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    kv: &Ragged<'_>,
    outputs: Outputs<'_>,
) -> Result<()> {
    if bias.tree.is_some() {
        let (got, allowed) = (text("one"), "none for sequences of different lengths");
        return Err(Error::Option { what: "tree", got, allowed });
    }
    run(ctx, ws, options, bias, q, kv, outputs)
}

fn run(
    ctx: &Context,
    ws: &mut Workspace,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    kv: &dyn KeyValues,
    outputs: Outputs<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let sequences = kv.sequences();
    let queries = Queries::new(kv, q.rows())?;
    let q_len = queries.most;
    let shape = Shape::new(options, kv, Work { q_len, sequences, workers: ctx.executor().workers() })?;
    let Outputs { out, lse } = outputs;
    check(options, &shape, q, &out, lse.as_ref())?;
    let (mut pairs, mut longest, mut chunks) = (0usize, 0, 0);
    for slot in 0..sequences {
        let extent = kv.extent(slot)?;
        let of_slot = queries.of(slot).len();
        let visible = Visible::new(options, &extent, of_slot, bias.tree.is_some())?;
        pairs = pairs.saturating_add(of_slot.saturating_mul(extent.len));
        longest = longest.max(extent.len);
        chunks = chunks.max(visible.chunks(&(0..of_slot)).len());
    }
    bias.check(BiasShape { heads: options.heads, q_rows: q.rows(), q_len, kv_len: longest })?;

    let kernels = ctx.kernels();
    let worker_bytes = shape.scratch(kernels.mr())?.bytes()?;
    let macs = [options.heads, pairs, shape.key_dim + shape.value_dim];
    let serial = macs.into_iter().fold(1usize, usize::saturating_mul) < SERIAL_MACS;
    let executor = if serial { Executor::serial() } else { ctx.executor() };
    let workers = executor.workers();
    let need = product("workspace bytes", &[worker_bytes, workers])?;
    let call = Call::new(kernels, options, shape, bias, (q, queries), kv);
    let lse = match lse {
        Some(lse) => lse,
        None => MatMut::dense(&mut [], 0, 0)?,
    };
    // A workspace that was sized for fewer keys still serves: unsplit, with the same bits.
    let split = shape
        .split_bytes(chunks, sequences, workers)
        .filter(|&bytes| !queries.are_ragged() && ws.bytes() >= need + bytes);
    if let Some(partials) = split {
        return split::run(executor, &call, chunks, ws.arena(need + partials)?, worker_bytes, out, lse);
    }
    let scratch = ws.arena(need)?.rest();
    let grid = Grid { tile_rows: shape.tile_tokens, tile_cols: shape.group * shape.value_dim };
    for_each_tile_pair(
        executor,
        out,
        lse,
        grid,
        shape.group,
        scratch,
        worker_bytes,
        &|arena, at, out, lse| call.run(arena, at, out, lse),
    );
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
    if let Some(lse) = lse {
        equal("lse.cols", lse.cols(), "must equal heads =", options.heads)?;
        equal("lse.rows", lse.rows(), "must equal q.rows =", q.rows())?;
    }
    q.require_plain("q", "plain: one token a row")?;
    options.check_factors(shape.key_dim)
}
