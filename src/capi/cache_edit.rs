//! Changing what a key-value cache holds: forgetting, removing, forking, keys at other positions.

use super::args::{exclusive, shared};
use super::cache::kvern_kv_cache;
use super::guard;
use super::rope::{kvern_rope_pairs, kvern_rope_table, pairs};
use super::status::kvern_status;
use crate::attention::KvCache;

/// # Safety
/// - `cache` is NULL or live and exclusive.
unsafe fn edit(
    cache: *mut kvern_kv_cache,
    f: impl FnOnce(&mut KvCache) -> crate::Result<()>,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe { Ok(exclusive("cache", cache)?.0.change("cache", f)??) })
}

/// Forgets all tokens of all sequences; keeps the memory.
///
/// Errors: NULL_POINTER, POISONED. Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_clear(cache: *mut kvern_kv_cache) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        edit(cache, |cache| {
            cache.clear();
            Ok(())
        })
    }
}

/// Forgets all tokens of one sequence; its pages are free for others.
///
/// Errors: NULL_POINTER, OPTION (no such sequence), POISONED. Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_clear_in(
    cache: *mut kvern_kv_cache,
    sequence: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { edit(cache, |cache| cache.clear_in(sequence)) }
}

/// Forgets all tokens of sequence 0 from position `len` on: `kvern_kv_cache_truncate_in`.
///
/// Errors: as `kvern_kv_cache_truncate_in`. Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_truncate(cache: *mut kvern_kv_cache, len: usize) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { kvern_kv_cache_truncate_in(cache, 0, len) }
}

/// Forgets all tokens of a sequence from position `len` on; the next append continues there.
///
/// Errors: NULL_POINTER, SHAPE (beyond the end, or so far back that a wrapped ring no longer holds what a
/// query there would see), OPTION (no such sequence), POISONED; nothing is changed then.
/// Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_truncate_in(
    cache: *mut kvern_kv_cache,
    sequence: usize,
    len: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { edit(cache, |cache| cache.truncate_in(sequence, len)) }
}

/// Removes the tokens at positions start..end of a sequence; later ones move down, and have lower positions
/// from then on. Keys keep the rotation of their old position: see `kvern_kv_cache_rotate`.
///
/// Errors: NULL_POINTER, SHAPE (a range that is reversed, not held, or before forgotten tokens, or a ring
/// that would no longer hold what the next query sees), OPTION (no such sequence), CACHE_FULL (too few free
/// pages to copy shared ones), POISONED; nothing is changed then. Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_remove(
    cache: *mut kvern_kv_cache,
    sequence: usize,
    start: usize,
    end: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { edit(cache, |cache| cache.remove_in(sequence, start..end)) }
}

/// Rotates the stored keys at positions start..end of a sequence by `by` positions: after
/// `kvern_kv_cache_remove` of n tokens, the keys behind them by -n. Positions themselves do not change.
/// `(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)` in f32, rounded once to the type of the keys.
///
/// `pairs`: a `KVERN_ROPE_*` number.
/// Errors: NULL_POINTER, SHAPE (a range that is not held, a table too short or wider than a head), OPTION
/// (quantised keys, no such sequence), CACHE_FULL, POISONED; nothing is changed then.
/// Threads: `table` shared, `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_rotate(
    cache: *mut kvern_kv_cache,
    sequence: usize,
    start: usize,
    end: usize,
    by: isize,
    table: *const kvern_rope_table,
    pairs: kvern_rope_pairs,
) -> kvern_status {
    // SAFETY: both pointers are NULL or live, by the header's contract.
    guard(|| unsafe {
        let (cache, table) = (exclusive("cache", cache)?, shared("table", table)?);
        let pairs = self::pairs("pairs", pairs)?;
        Ok(cache.0.change("cache", |cache| cache.rotate(sequence, start..end, by, &table.0, pairs))??)
    })
}

/// Makes sequence `to` a copy of sequence `from` that shares its pages until one of them writes to them:
/// copies a page table, no token. What `to` held is forgotten.
///
/// Errors: NULL_POINTER, OPTION (no such sequence), POISONED; nothing is changed then.
/// Threads: `cache` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_fork(
    cache: *mut kvern_kv_cache,
    from: usize,
    to: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { edit(cache, |cache| cache.fork(from, to)) }
}
