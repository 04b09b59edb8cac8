//! Fused attention, over a cache and over plain rows.

use super::args::{
    Array, Options, Span, exclusive, flag, heads_of, nonzero, optional, put, read, shared, span_of,
};
use super::cache::kvern_kv_cache;
use super::context::kvern_context;
use super::dtype::{kvern_precision, precision};
use super::guard;
use super::status::{Checked, kvern_status};
use super::workspace::kvern_workspace;
use crate::attention::{self, AttentionOptions, Bias, Outputs, Plain, Sequences};
use crate::error::{Error, Result, product, text};
use crate::{Context, MatRef, Workspace};

/// What one attention call does. Start from KVERN_ATTENTION_OPTIONS_INIT.
///
/// For query i, query head h and key j, with s = scale * q . k, then softcap * tanh(s / softcap):
/// s - alibi[h] * |position of i - j| + mask[i][j], and -inf where `seen` or `tree` says 0. A key whose mask
/// is -inf or 0 contributes nothing, whatever is stored there. Masks narrow what causality and window leave.
/// Their rows are rows of the queries; their columns are positions: as many as the longest sequence of the
/// call has keys.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_attention_options {
    /// sizeof(kvern_attention_options).
    pub struct_size: usize,
    /// Query heads, a multiple of kv_heads; 0 for as many. Query head h uses key-value head
    /// h / (heads / kv_heads).
    pub heads: usize,
    /// Factor of the scores; 0 for 1 / sqrt(head_dim).
    pub scale: f32,
    /// 0: a query sees keys at its own position and before. 1: all keys; a cache must have no window then.
    pub non_causal: i32,
    /// Soft cap of the scores, positive, at most FLT_MAX / log2 e, with a finite scale / softcap; 0 for none.
    pub softcap: f32,
    /// KVERN_PRECISION_FAST: bf16 dot products on CPUs that have them and over caches. Queries, keys,
    /// probabilities and values are rounded to bf16: a score is off by at most e = 2^-7 * scale * sum |q||k|,
    /// an output by (exp(2 e) - 1 + 2^-7) * max |v|; the bits depend on the instruction set. Meant for
    /// prompts.
    pub precision: kvern_precision,
    /// Keys that a query sees back from its own position, itself included (non_causal: and as many ahead); 0
    /// for all. Of this and the cache's window the smaller one holds.
    pub window: usize,
    /// First tokens of a sequence that every query sees whatever the window: causal queries those of them at
    /// their own position and before, non-causal queries all of them.
    pub sinks: usize,
    /// ALiBi slopes, heads elements: see `kvern_alibi_slopes`; NULL for none.
    pub alibi: *const f32,
    /// A score for each query head, heads elements, that takes part in its softmax without a value; NULL for
    /// none.
    pub sink_logits: *const f32,
    /// Additive mask, f32; NULL for none. Only -inf hides a key: finite numbers weigh. Sums beyond 2.358e38
    /// in magnitude (FLT_MAX / log2 e) count as that, so a row whose keys all have -FLT_MAX is the mean of
    /// their values.
    pub mask: *const f32,
    /// Elements from one row of the mask to the next one.
    pub mask_row_stride: usize,
    /// Boolean mask: bytes 1 for keys that are seen and 0 for others, the gaps between rows included; NULL
    /// for none.
    pub seen: *const u8,
    /// Bytes from one row of `seen` to the next one.
    pub seen_row_stride: usize,
    /// Boolean mask, as `seen`, among the last q_len keys of each sequence, those of the queries themselves:
    /// branches of a tree of drafts. (rows of the queries, q_len); NULL for none.
    pub tree: *const u8,
    /// Bytes from one row of `tree` to the next one.
    pub tree_row_stride: usize,
    /// 0: `mask` has a row for each row of the queries. 1: row h * rows + i is that of head h.
    pub mask_per_head: i32,
    /// As `mask_per_head`, of `seen`.
    pub seen_per_head: i32,
    /// Receives the natural logarithm of each softmax's denominator, (rows of the queries, heads), f32: what
    /// merges results over disjoint keys. -inf for a row that sees no key. NULL: not asked for.
    pub lse: *mut f32,
    /// Elements from one row of `lse` to the next one.
    pub lse_row_stride: usize,
    /// Sequences of the cache to attend over in one call, in any order; NULL for sequence 0.
    pub sequences: *const usize,
    /// How many there are; 0 for sequence 0.
    pub sequences_len: usize,
}

const _: () = assert!(
    size_of::<kvern_attention_options>() == 16 * size_of::<usize>() + 24,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers and raw pointers: every pattern is a value.
unsafe impl Options for kvern_attention_options {}

/// The options of a call over `kv_heads` heads, as C passed them and as the safe API takes them.
///
/// # Safety
/// - `options` is NULL or points to `struct_size` readable bytes.
pub(super) unsafe fn read_options(
    options: *const kvern_attention_options,
    kv_heads: usize,
) -> Checked<(kvern_attention_options, AttentionOptions)> {
    // SAFETY: handed on to the caller.
    let raw = unsafe { read("options", options)? };
    let mut options = AttentionOptions::new(nonzero(raw.heads).unwrap_or(kv_heads));
    options.causal = !flag("options->non_causal", raw.non_causal)?;
    options.scale = nonzero(raw.scale);
    options.softcap = nonzero(raw.softcap);
    options.window = nonzero(raw.window);
    options.sinks = raw.sinks;
    options.precision = precision("options->precision", raw.precision)?;
    Ok((raw, options))
}

/// The checked arrays of the options.
pub(super) struct Arrays {
    alibi: Option<Array<f32>>,       // (heads)
    sink_logits: Option<Array<f32>>, // (heads)
    mask: Option<Array<f32>>,        // (rows or heads * rows, keys)
    seen: Option<Array<u8>>,         // (rows or heads * rows, keys)
    tree: Option<Array<u8>>,         // (rows, q_len)
    lse: Option<Array<f32>>,         // (rows, heads)
}

impl Arrays {
    /// `rows` of queries, `q_len` of them for each sequence, `keys` in the longest.
    pub fn new(
        raw: &kvern_attention_options,
        heads: usize,
        (rows, q_len): (usize, usize),
        keys: usize,
    ) -> Checked<Arrays> {
        let mask_rows = |what, number| -> Checked<usize> {
            let heads = if flag(what, number)? { heads } else { 1 };
            Ok(product("heads * q_len", &[heads, rows])?)
        };
        let (mask, seen) = (
            mask_rows("options->mask_per_head", raw.mask_per_head)?,
            mask_rows("options->seen_per_head", raw.seen_per_head)?,
        );
        Ok(Arrays {
            alibi: optional(raw.alibi, |x| Array::new("options->alibi", x, heads))?,
            sink_logits: optional(raw.sink_logits, |x| Array::new("options->sink_logits", x, heads))?,
            mask: optional(raw.mask, |x| Array::matrix("options->mask", x, mask, keys, raw.mask_row_stride))?,
            seen: optional(raw.seen, |x| Array::matrix("options->seen", x, seen, keys, raw.seen_row_stride))?,
            tree: optional(raw.tree, |x| {
                Array::matrix("options->tree", x, rows, q_len, raw.tree_row_stride)
            })?,
            lse: optional(raw.lse, |x| Array::matrix("options->lse", x, rows, heads, raw.lse_row_stride))?,
        })
    }

    /// The memory that is read.
    fn spans(&self) -> [Span; 5] {
        let Arrays { alibi, sink_logits, mask, seen, tree, .. } = self;
        [span_of(alibi), span_of(sink_logits), span_of(mask), span_of(seen), span_of(tree)]
    }

    /// # Safety
    /// - the memory is readable, initialised and unchanged for `'a`.
    unsafe fn bias<'a>(&self) -> Checked<Bias<'a>> {
        let mut bias = Bias::default();
        // SAFETY: handed on to the caller.
        unsafe {
            bias.alibi = self.alibi.map(|x| x.get());
            bias.sink_logits = self.sink_logits.map(|x| x.get());
            bias.mask = self.mask.map(|x| x.view()).transpose()?;
            bias.seen = self.seen.map(|x| x.flags()).transpose()?;
            bias.tree = self.tree.map(|x| x.flags()).transpose()?;
        }
        Ok(bias)
    }
}

/// What a call over any keys and values has in common.
pub(super) struct Call {
    pub ctx: *const kvern_context,
    pub ws: *mut kvern_workspace,
    pub arrays: Arrays,
    pub q: Array<f32>,   // (rows, heads * key_dim)
    pub out: Array<f32>, // (rows, heads * value_dim)
}

impl Call {
    /// Checks what may not overlap, and attends.
    ///
    /// # Safety
    /// - pointers are NULL or live, and their shapes are true; outputs and `ws` are used by nothing else.
    pub unsafe fn run(
        self,
        others: &[Span],
        attend: impl FnOnce(&Context, &mut Workspace, &Bias<'_>, MatRef<'_>, Outputs<'_>) -> Result<()>,
    ) -> Checked<()> {
        let Call { arrays, q, .. } = &self;
        let apart = |output: Array<f32>| {
            output.apart_from(&[q.span()])?.apart_from(&arrays.spans())?.apart_from(others)
        };
        let out = apart(self.out)?;
        let lse = match arrays.lse {
            Some(lse) => Some(apart(lse)?.apart_from(&[out.span()])?),
            None => None,
        };
        // SAFETY: handed on to the caller.
        unsafe {
            let (ctx, ws) = (shared("ctx", self.ctx)?, exclusive("ws", self.ws)?);
            let bias = arrays.bias()?;
            let mut outputs = Outputs::new(out.view_mut()?);
            if let Some(lse) = lse {
                outputs = outputs.lse(lse.view_mut()?);
            }
            let q = q.view()?;
            Ok(ws.0.change("ws", |ws| attend(&ctx.context, ws, &bias, q, outputs))??)
        }
    }
}

/// `*out` = the bytes of workspace that `kvern_attention` needs for up to q_len queries of each sequence,
/// whatever the cache holds by then. Arrays of the options are not looked at.
///
/// Errors: NULL_POINTER, OPTION, SHAPE (heads no multiple of kv_heads), UNSUPPORTED, OVERFLOW, POISONED.
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_attention_workspace_bytes(
    ctx: *const kvern_context,
    options: *const kvern_attention_options,
    cache: *const kvern_kv_cache,
    q_len: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        let (ctx, cache) = (shared("ctx", ctx)?, shared("cache", cache)?.0.get("cache")?);
        let (_, options) = read_options(options, cache.options().kv_heads)?;
        put("out", out, attention::workspace_bytes(&ctx.context, &options, cache, q_len)?)
    })
}

/// Attention of the last q_len tokens of each sequence over all of it: append their keys and values first.
/// `out[i][h] = softmax(scale * q[i][h] . K^T, masked) V` over the keys that query i sees.
///
/// `q`: (rows, heads * head_dim), `out`: (rows, heads * value_dim), f32, heads side by side, strides in
/// elements, with rows = q_len, or q_len * sequences_len: row s * q_len + i is query i of sequences[s].
/// Outputs must overlap neither each other nor an input. A row has the bits that it has alone. Allocates
/// nothing. Takes at most 16 KiB of stack, of the calling thread and of each worker: threads of 32 KiB are
/// enough. With a window, once a sequence has forgotten tokens: q_len <= len - start - window + 1, or the
/// window of the first query is gone. A cache whose capacity is at least sinks + window + q_len - 1 always
/// meets this after an append of q_len tokens; append in shorter pieces, with a call after each of them,
/// where it is less.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more queries than tokens or than windows that are held,
/// sinks that were forgotten), OPTION, UNSUPPORTED, ALIASED, WORKSPACE, POISONED; outputs are unchanged then.
/// Threads: `ctx` and `cache` shared, `ws` and outputs exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_attention(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    options: *const kvern_attention_options,
    cache: *const kvern_kv_cache,
    q_len: usize,
    q: *const f32,
    q_row_stride: usize,
    out: *mut f32,
    out_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let cache = shared("cache", cache)?.0.get("cache")?;
        let made = cache.options();
        let (raw, options) = read_options(options, made.kv_heads)?;
        let listed = Array::new("options->sequences", raw.sequences, raw.sequences_len)?;
        let sequences: &[usize] = if raw.sequences_len == 0 { &[0] } else { listed.get() };
        let rows = product("q_len * sequences_len", &[q_len, sequences.len()])?;
        let keys = sequences.iter().map(|&s| cache.len_of(s)).max().unwrap_or(0);
        let heads = options.heads;
        let q = heads_of("q", q, rows, (heads, made.head_dim), q_row_stride)?;
        let out = heads_of("out", out, rows, (heads, made.value_dim), out_row_stride)?;
        let call = Call { ctx, ws, arrays: Arrays::new(&raw, heads, (rows, q_len), keys)?, q, out };
        call.run(&[listed.span()], |ctx, ws, bias, q, outputs| {
            attention::attend_with(ctx, ws, &options, bias, q, Sequences::new(cache, sequences), outputs)
        })
    })
}

/// `*out` = the bytes of workspace that `kvern_attention_plain` needs for up to q_len queries over up to
/// kv_len keys. Arrays of the options are not looked at.
///
/// Errors: as `kvern_attention_workspace_bytes`. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_attention_plain_workspace_bytes(
    ctx: *const kvern_context,
    options: *const kvern_attention_options,
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
    kv_len: usize,
    q_len: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let (_, options) = read_options(options, kv_heads)?;
        let shape = Plain::of_shape(kv_heads, key_dim, value_dim, kv_len)?;
        put("out", out, attention::plain_workspace_bytes(&ctx.context, &options, &shape, q_len)?)
    })
}

/// `kvern_attention` over keys and values in the caller's own rows, one token a row: the bits of a cache of
/// f32 that holds the same tokens. Query i stands at position kv_len - q_len + i; non-causal without window
/// and tree, there may be more queries than keys.
///
/// `k`: (kv_len, kv_heads * key_dim), `v`: (kv_len, kv_heads * value_dim), `q`: (q_len, heads * key_dim),
/// `out`: (q_len, heads * value_dim), f32, heads side by side, strides in elements; key_dim and value_dim may
/// be any number from 1 on. `options`: without sequences. Outputs must overlap neither each other nor an
/// input.
/// Errors: as `kvern_attention`. Threads: `ctx` shared, `ws` and outputs exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_attention_plain(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    options: *const kvern_attention_options,
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
    kv_len: usize,
    k: *const f32,
    k_row_stride: usize,
    v: *const f32,
    v_row_stride: usize,
    q_len: usize,
    q: *const f32,
    q_row_stride: usize,
    out: *mut f32,
    out_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (raw, options) = read_options(options, kv_heads)?;
        plain_sequences(&raw)?;
        let k = heads_of("k", k, kv_len, (kv_heads, key_dim), k_row_stride)?;
        let v = heads_of("v", v, kv_len, (kv_heads, value_dim), v_row_stride)?;
        let q = heads_of("q", q, q_len, (options.heads, key_dim), q_row_stride)?;
        let out = heads_of("out", out, q_len, (options.heads, value_dim), out_row_stride)?;
        let arrays = Arrays::new(&raw, options.heads, (q_len, q_len), kv_len)?;
        let kv = Plain::new(k.view()?, v.view()?, kv_heads)?;
        Call { ctx, ws, arrays, q, out }.run(&[k.span(), v.span()], |ctx, ws, bias, q, outputs| {
            attention::attend_plain(ctx, ws, &options, bias, q, &kv, outputs)
        })
    })
}

/// Keys and values that are no cache have no list of its sequences.
pub(super) fn plain_sequences(raw: &kvern_attention_options) -> Checked<()> {
    if raw.sequences_len == 0 {
        return Ok(());
    }
    let (got, allowed) = (text(raw.sequences_len), "0 for plain keys and values");
    Err(Error::Option { what: "options->sequences_len", got, allowed }.into())
}

/// Writes the usual ALiBi slopes: `2^(-8 (h + 1) / n)` for the first n heads, n the greatest power of two in
/// `heads`, and for the others every second slope of 2n heads.
///
/// `slopes`: receives heads elements, f32.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_alibi_slopes(heads: usize, slopes: *mut f32) -> kvern_status {
    // SAFETY: `slopes` is NULL or has `heads` elements, by the header's contract.
    guard(|| unsafe {
        attention::alibi_slopes(Array::new("slopes", slopes, heads)?.get_mut());
        Ok(())
    })
}
