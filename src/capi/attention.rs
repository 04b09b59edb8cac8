//! The key-value cache and fused attention.

use super::args::{Array, Options, exclusive, flag, put, read, shared};
use super::context::kvern_context;
use super::status::kvern_status;
use super::workspace::kvern_workspace;
use super::{Checked, Guarded, create, destroy, guard};
use crate::attention::{AttentionOptions, KvCache, KvCacheOptions, attend, workspace_bytes};
use crate::error::product;

/// What a key-value cache is made from. Start from KVERN_KV_CACHE_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_kv_cache_options {
    /// sizeof(kvern_kv_cache_options).
    pub struct_size: usize,
    /// Key-value heads, at least 1.
    pub kv_heads: usize,
    /// Elements of a key and of a value, a multiple of 8.
    pub head_dim: usize,
    /// Tokens that the cache holds, at least 1.
    pub capacity: usize,
    /// Tokens that a query sees, itself included; 0 for all. With a window, a full cache forgets its oldest
    /// token; without one, it refuses more.
    pub window: usize,
}

const _: () = assert!(size_of::<kvern_kv_cache_options>() == 40, "no padding, or garbage becomes an option");
// SAFETY: integers: every pattern is a value.
unsafe impl Options for kvern_kv_cache_options {}

/// What one attention call does. Start from KVERN_ATTENTION_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_attention_options {
    /// sizeof(kvern_attention_options).
    pub struct_size: usize,
    /// Query heads, a multiple of the cache's kv_heads; 0 for as many. Query head h uses key-value head
    /// h / (heads / kv_heads).
    pub heads: usize,
    /// Factor of the scores; 0 for 1 / sqrt(head_dim).
    pub scale: f32,
    /// 0: a query sees keys at its own position and before. 1: the whole cache, which has no window then.
    pub non_causal: i32,
}

const _: () = assert!(size_of::<kvern_attention_options>() == 24, "no padding, or garbage becomes an option");
// SAFETY: numbers: every pattern is a value.
unsafe impl Options for kvern_attention_options {}

/// Keys and values of one layer: a ring that is written in place.
#[derive(Debug)]
pub struct kvern_kv_cache(Guarded<KvCache>);

impl kvern_kv_cache {
    /// Elements of a token's keys (and of its values).
    fn width(&self) -> Checked<usize> {
        let options = self.0.get("cache")?.options();
        Ok(product("kv_heads * head_dim", &[options.kv_heads, options.head_dim])?)
    }
}

fn make_cache(options: &kvern_kv_cache_options) -> Checked<kvern_kv_cache> {
    let mut made_from = KvCacheOptions::new(options.kv_heads, options.head_dim, options.capacity);
    made_from.window = (options.window != 0).then_some(options.window);
    Ok(kvern_kv_cache(Guarded::new(KvCache::new(made_from)?)))
}

/// The options of a call on this cache.
///
/// # Safety
/// - `options` is NULL or points to `struct_size` readable bytes.
unsafe fn read_attention(
    options: *const kvern_attention_options,
    cache: &KvCache,
) -> Checked<AttentionOptions> {
    // SAFETY: handed on to the caller.
    let raw = unsafe { read("options", options)? };
    let heads = if raw.heads == 0 { cache.options().kv_heads } else { raw.heads };
    let options = AttentionOptions::new(heads).causal(!flag("options->non_causal", raw.non_causal)?);
    Ok(if raw.scale == 0.0 { options } else { options.scale(raw.scale) })
}

/// Makes an empty cache. All its memory is taken at once: 8 * kv_heads * head_dim bytes a token.
///
/// `out`: receives the cache, NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OPTION, SHAPE (a window beyond the capacity), UNSUPPORTED, OVERFLOW,
/// RESOURCE. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_create(
    options: *const kvern_kv_cache_options,
    out: *mut *mut kvern_kv_cache,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { create(out, || make_cache(&read("options", options)?)) })
}

/// Appends tokens at positions len..len + tokens. Keys are stored as given: rotate them first.
///
/// `k`, `v`: (tokens, kv_heads * head_dim), f32, heads side by side, strides in elements. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, CACHE_FULL, POISONED; nothing is changed then.
/// Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_append(
    cache: *mut kvern_kv_cache,
    tokens: usize,
    k: *const f32,
    k_row_stride: usize,
    v: *const f32,
    v_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let cache = exclusive("cache", cache)?;
        let width = cache.width()?;
        let k = Array::matrix("k", k, tokens, width, k_row_stride)?.view()?;
        let v = Array::matrix("v", v, tokens, width, v_row_stride)?.view()?;
        Ok(cache.0.change("cache", |cache| cache.append(k, v))??)
    })
}

/// Forgets all tokens from position `len` on; the next append continues there.
///
/// Errors: NULL_POINTER, SHAPE (beyond the end, or so far back that a wrapped ring no longer holds what a
/// query there would see), POISONED; nothing is changed then. Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_truncate(cache: *mut kvern_kv_cache, len: usize) -> kvern_status {
    // SAFETY: `cache` is NULL or live and exclusive, by the header's contract.
    guard(|| unsafe { Ok(exclusive("cache", cache)?.0.change("cache", |cache| cache.truncate(len))??) })
}

/// Forgets all tokens; keeps the memory.
///
/// Errors: NULL_POINTER, POISONED. Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_clear(cache: *mut kvern_kv_cache) -> kvern_status {
    // SAFETY: `cache` is NULL or live and exclusive, by the header's contract.
    guard(|| unsafe { exclusive("cache", cache)?.0.change("cache", KvCache::clear) })
}

/// `*out` = the next position: tokens appended since the start.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_len(cache: *const kvern_kv_cache, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("cache", cache)?.0.get("cache")?.len()) })
}

/// `*out` = the oldest position that the cache still holds.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_start(cache: *const kvern_kv_cache, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("cache", cache)?.0.get("cache")?.start()) })
}

/// `*out` = the bytes that the cache holds.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_bytes(cache: *const kvern_kv_cache, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("cache", cache)?.0.get("cache")?.bytes()) })
}

/// Frees the cache. NULL is a no-op.
///
/// Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_destroy(cache: *mut kvern_kv_cache) {
    // SAFETY: `cache` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(cache) }
}

/// `*out` = the bytes of workspace that `kvern_attention_run` needs for q_len queries, whatever the cache
/// holds by then.
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
        let options = read_attention(options, cache)?;
        put("out", out, workspace_bytes(&ctx.context, &options, cache, q_len)?)
    })
}

/// Attention of the cache's last q_len tokens over the cache: append their keys and values first.
/// `out[i][h] = softmax(scale * q[i][h] . K^T) V` over the keys that query i sees.
///
/// `q`, `out`: (q_len, heads * head_dim), f32, heads side by side, strides in elements; they must not
/// overlap. A query of a batch has the bits of the same query alone. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more queries than tokens), OPTION, UNSUPPORTED,
/// ALIASED, WORKSPACE, POISONED; `out` is unchanged then.
/// Threads: `ctx` and `cache` shared, `ws` and `out` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_attention_run(
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
        let (ctx, ws) = (shared("ctx", ctx)?, exclusive("ws", ws)?);
        let cache = shared("cache", cache)?.0.get("cache")?;
        let options = read_attention(options, cache)?;
        let width = product("heads * head_dim", &[options.heads, cache.options().head_dim])?;
        let q = Array::matrix("q", q, q_len, width, q_row_stride)?;
        let out = Array::matrix("out", out, q_len, width, out_row_stride)?.apart_from(&[q.span()])?;
        let (q, out) = (q.view()?, out.view_mut()?);
        Ok(ws.0.change("ws", |ws| attend(&ctx.context, ws, &options, q, cache, out))??)
    })
}
