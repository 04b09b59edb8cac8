//! KV cache: creation, append, queries, serialisation.

use super::args::{Array, Options, choose, exclusive, nonzero, path, put, read, shared};
use super::context::{kvern_context, with_context};
use super::status::{Checked, kvern_status};
use super::{Guarded, create, destroy, guard};
use crate::attention::{KvCache, KvCacheOptions, KvType};
use crate::error::{Error, product, text};
use std::ffi::c_char;

/// How keys or values are stored: a `KVERN_KV_*` number. Attention widens every type exactly to f32.
pub type kvern_kv_type = i32;

/// 32 bits a number, exact.
pub const KVERN_KV_F32: kvern_kv_type = 0;
/// 16 bits a number, rounded once, relative error 2^-11; ends at 65504.
pub const KVERN_KV_F16: kvern_kv_type = 1;
/// 4.5 bits a number: blocks of 32 elements of a head, d = absmax / 7 in f16, round(x / d).
pub const KVERN_KV_INT4: kvern_kv_type = 4;
/// 8.5 bits a number: blocks of 32 elements of a head, d = absmax / 127 in f16, round(x / d).
pub const KVERN_KV_INT8: kvern_kv_type = 8;
/// 16 bits a number, rounded once, relative error 2^-8.
pub const KVERN_KV_BF16: kvern_kv_type = 30;
/// As the type of values: they are the first value_dim elements of their keys, stored once (latent attention,
/// DeepSeek). An append then takes no values.
pub const KVERN_KV_LATENT: kvern_kv_type = 256;

/// What a key-value cache is made from. Start from KVERN_KV_CACHE_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_kv_cache_options {
    /// sizeof(kvern_kv_cache_options).
    pub struct_size: usize,
    /// Key-value heads, at least 1.
    pub kv_heads: usize,
    /// Elements of a key (and of a value, unless value_dim says otherwise), a multiple of 8.
    pub head_dim: usize,
    /// Tokens that a sequence holds, at least 1.
    pub capacity: usize,
    /// Tokens that a query sees, itself included; 0 for all. With a window, at most capacity - sinks, a full
    /// cache forgets its oldest token; without one, it refuses more. To attend with the last n tokens at
    /// once, capacity must be at least sinks + window + n - 1: see `kvern_attention`.
    pub window: usize,
    /// Elements of a value, a multiple of 8; 0 for head_dim.
    pub value_dim: usize,
    /// First tokens of a sequence that every query sees besides its window, and that are never forgotten.
    /// They count towards the capacity; 0 without a window.
    pub sinks: usize,
    /// How keys are stored, a `KVERN_KV_*` number.
    pub keys: kvern_kv_type,
    /// How values are stored, a `KVERN_KV_*` number; KVERN_KV_LATENT for those that are part of their keys.
    pub values: kvern_kv_type,
    /// Sequences that the cache holds side by side; 0 for 1.
    pub sequences: usize,
    /// Pages of 256 tokens in the pool that all sequences share; 0 for as many as they could all need at
    /// once.
    pub pages: usize,
}

const _: () = assert!(
    size_of::<kvern_kv_cache_options>() == 9 * size_of::<usize>() + 8,
    "no padding, or garbage becomes an option"
);
// SAFETY: integers: every pattern is a value.
unsafe impl Options for kvern_kv_cache_options {}

/// Keys and values of one layer: sequences in pages that are written in place.
#[derive(Debug)]
pub struct kvern_kv_cache(pub(super) Guarded<KvCache>);

impl kvern_kv_cache {
    /// Elements of a token's keys and of the values that are appended with them.
    pub(super) fn widths(&self) -> Checked<(usize, usize)> {
        let options = self.0.get("cache")?.options();
        let width = |dim| product("kv_heads * head_dim", &[options.kv_heads, dim]);
        Ok((width(options.head_dim)?, width(options.appended_value_dim())?))
    }
}

#[inline(never)]
fn kv_type(what: &'static str, number: kvern_kv_type) -> Checked<KvType> {
    choose(what, number, "a KVERN_KV number", &KvType::ALL.map(|kind| (kind as i32, kind)))
}

fn options(raw: &kvern_kv_cache_options) -> Checked<KvCacheOptions> {
    let keys = kv_type("options->keys", raw.keys)?;
    let latent = raw.values == KVERN_KV_LATENT;
    let values = if latent { keys } else { kv_type("options->values", raw.values)? };
    let mut options = KvCacheOptions::new(raw.kv_heads, raw.head_dim, raw.capacity)
        .value_dim(nonzero(raw.value_dim).unwrap_or(raw.head_dim))
        .sinks(raw.sinks)
        .types(keys, values)
        .sequences(nonzero(raw.sequences).unwrap_or(1));
    options.latent = latent;
    options.window = nonzero(raw.window);
    options.pages = nonzero(raw.pages);
    Ok(options)
}

/// A sequence that the cache has.
fn existing(cache: &KvCache, sequence: usize) -> Checked<usize> {
    if sequence < cache.options().sequences {
        return Ok(sequence);
    }
    let (got, allowed) = (text(sequence), "below the cache's number of sequences");
    Err(Error::Option { what: "sequence", got, allowed }.into())
}

/// Makes an empty cache. All its memory is taken at once: for each token, rounded up to 256, and each
/// key-value head head_dim keys and value_dim values (rounded up to 16) of their types.
///
/// `ctx`: whose memory the cache lies in; NULL for the process's allocator. `out`: receives the cache, NULL
/// on failure.
/// Errors: NULL_POINTER, MISALIGNED, OPTION, SHAPE (a window, or sinks and a window, beyond the capacity),
/// UNSUPPORTED, OVERFLOW, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_create(
    ctx: *const kvern_context,
    options: *const kvern_kv_cache_options,
    out: *mut *mut kvern_kv_cache,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let options = self::options(&read("options", options)?)?;
            with_context(ctx, |ctx| Ok(kvern_kv_cache(Guarded::new(KvCache::new_on(ctx, options)?))))
        })
    })
}

/// Appends tokens to sequence 0: `kvern_kv_cache_append_to`.
///
/// Errors: as `kvern_kv_cache_append_to`. Threads: `cache` exclusive.
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
    // SAFETY: handed on to the caller.
    unsafe { kvern_kv_cache_append_to(cache, 0, tokens, k, k_row_stride, v, v_row_stride) }
}

/// Appends tokens at positions len..len + tokens of a sequence. Keys are stored as given: rotate them first.
/// With a window any number of tokens is taken: beyond the capacity a sequence keeps its sinks and its last
/// capacity - sinks tokens.
///
/// `k`: (tokens, kv_heads * head_dim), `v`: (tokens, kv_heads * value_dim), f32, heads side by side, strides
/// in elements. A latent cache takes no values: `v` is NULL. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence), CACHE_FULL (no window and
/// more tokens than capacity; or, with a window too, too few free pages), POISONED; nothing is changed then.
/// Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_append_to(
    cache: *mut kvern_kv_cache,
    sequence: usize,
    tokens: usize,
    k: *const f32,
    k_row_stride: usize,
    v: *const f32,
    v_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let cache = exclusive("cache", cache)?;
        let (key_width, value_width) = cache.widths()?;
        let k = Array::matrix("k", k, tokens, key_width, k_row_stride)?.view()?;
        let v = Array::matrix("v", v, tokens, value_width, v_row_stride)?.view()?;
        Ok(cache.0.change("cache", |cache| cache.append_to(sequence, k, v))??)
    })
}

/// Copies the key and the value of a position, widened to f32.
///
/// `key_width`, `value_width`: kv_heads * head_dim and kv_heads * value_dim. `k`, `v`: receive as many
/// elements; they must not overlap. Not the fast path: attention reads the cache in place.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (a position that is not held, a wrong width), OPTION (no
/// such sequence), ALIASED, POISONED. Threads: `cache` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_token(
    cache: *const kvern_kv_cache,
    sequence: usize,
    position: usize,
    key_width: usize,
    k: *mut f32,
    value_width: usize,
    v: *mut f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let cache = shared("cache", cache)?.0.get("cache")?;
        let k = Array::new("k", k, key_width)?;
        let v = Array::new("v", v, value_width)?.apart_from(&[k.span()])?;
        Ok(cache.token(sequence, position, k.get_mut(), v.get_mut())?)
    })
}

/// A number about the cache.
///
/// # Safety
/// - pointers are NULL or live.
unsafe fn ask(
    cache: *const kvern_kv_cache,
    out: *mut usize,
    f: impl FnOnce(&KvCache) -> Checked<usize>,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe { put("out", out, f(shared("cache", cache)?.0.get("cache")?)?) })
}

/// `*out` = the next position of sequence 0: tokens appended since the start.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_len(cache: *const kvern_kv_cache, out: *mut usize) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { kvern_kv_cache_len_of(cache, 0, out) }
}

/// `*out` = the next position of a sequence.
///
/// Errors: NULL_POINTER, OPTION (no such sequence), POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_len_of(
    cache: *const kvern_kv_cache,
    sequence: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { ask(cache, out, |cache| Ok(cache.len_of(existing(cache, sequence)?))) }
}

/// `*out` = the oldest position that sequence 0 still holds, besides the sinks.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_start(cache: *const kvern_kv_cache, out: *mut usize) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { kvern_kv_cache_start_of(cache, 0, out) }
}

/// `*out` = the oldest position that a sequence still holds, besides the sinks.
///
/// Errors: NULL_POINTER, OPTION (no such sequence), POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_start_of(
    cache: *const kvern_kv_cache,
    sequence: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { ask(cache, out, |cache| Ok(cache.start_of(existing(cache, sequence)?))) }
}

/// `*out` = the bytes that the cache holds.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_bytes(cache: *const kvern_kv_cache, out: *mut usize) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { ask(cache, out, |cache| Ok(cache.bytes())) }
}

/// `*out` = the bytes of the pages that sequences use; a page that forks share counts once.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_bytes_used(
    cache: *const kvern_kv_cache,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { ask(cache, out, |cache| Ok(cache.bytes_used())) }
}

/// `*out` = the pages of the pool, of 256 tokens each.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_pages(cache: *const kvern_kv_cache, out: *mut usize) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { ask(cache, out, |cache| Ok(cache.pages())) }
}

/// `*out` = the pages that no sequence uses.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_free_pages(
    cache: *const kvern_kv_cache,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { ask(cache, out, |cache| Ok(cache.free_pages())) }
}

/// Writes all sequences to a file with a checksum: the pages in use, as they are. The file is replaced as a
/// whole: an error leaves the old one.
///
/// `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
/// Errors: NULL_POINTER, IO, UNSUPPORTED (a big-endian machine), POISONED. Threads: `cache` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_save(
    cache: *const kvern_kv_cache,
    path: *const c_char,
) -> kvern_status {
    // SAFETY: both are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe { Ok(shared("cache", cache)?.0.get("cache")?.save(self::path("path", path)?)?) })
}

/// Replaces all sequences by those of a file that `kvern_kv_cache_save` wrote from a cache of the same heads,
/// sizes, types, window and sinks. capacity, sequences and pages may differ where everything fits: a sequence
/// without a window in the capacity, sequences beyond this cache's number empty, the pages in the pool. With
/// a window a sequence keeps the last tokens that the capacity has room for.
///
/// Errors: NULL_POINTER, IO, BLOB (truncated, too long, foreign, of another version or other options,
/// damaged, or it does not fit), OVERFLOW, RESOURCE, UNSUPPORTED, POISONED; nothing is changed then, but
/// where reading fails after the checksum was found right, the cache is empty. Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_restore(
    cache: *mut kvern_kv_cache,
    path: *const c_char,
) -> kvern_status {
    // SAFETY: both are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        let (cache, path) = (exclusive("cache", cache)?, self::path("path", path)?);
        Ok(cache.0.change("cache", |cache| cache.restore(path))??)
    })
}

/// Makes a cache with what a file holds: `kvern_kv_cache_create`, then `kvern_kv_cache_restore`.
///
/// `ctx`: as for `kvern_kv_cache_create`. `out`: receives the cache, NULL on failure.
/// Errors: as those two. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_load(
    ctx: *const kvern_context,
    options: *const kvern_kv_cache_options,
    path: *const c_char,
    out: *mut *mut kvern_kv_cache,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (options, path) = (self::options(&read("options", options)?)?, self::path("path", path)?);
            with_context(ctx, |ctx| Ok(kvern_kv_cache(Guarded::new(KvCache::load_on(ctx, options, path)?))))
        })
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_numbers_of_the_safe_api() {
        let numbers = [KVERN_KV_F32, KVERN_KV_F16, KVERN_KV_BF16, KVERN_KV_INT8, KVERN_KV_INT4];
        assert_eq!(KvType::ALL.map(|kind| kind as i32), numbers);
    }
}
