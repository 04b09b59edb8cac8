//! Caches and attention.

use super::arguments::Arguments;
use super::products::{extent, read, written};
use super::world::{World, defaults};
use super::{Call, call, lib, made};
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::cache_edit::*;
use kvern::capi::prepare::*;
use kvern::capi::ragged::*;
use kvern::capi::status::kvern_status;

/// The numbers of a cache that its arguments follow from.
#[derive(Clone, Copy)]
struct Shape {
    kv_heads: usize,
    head_dim: usize,
    value_dim: usize,
}

impl Shape {
    /// Found out by asking: which widths fit a token, and of which numbers of heads kv_heads is a divisor.
    fn of(w: &World, cache: *const kvern_kv_cache) -> Shape {
        let (mut k, mut v, mut len, mut bytes) = ([0f32; 64], [0f32; 64], 0, 0);
        let (k, v) = (k.as_mut_ptr(), v.as_mut_ptr());
        let widths = || (1..=8).flat_map(|key| (1..=8).map(move |value| (8 * key, 8 * value)));
        // SAFETY: live objects, and buffers that are as long as the widest token.
        unsafe {
            kvern_kv_cache_len(cache, &mut len);
            let fits = |&(key, value): &(usize, usize)| {
                len > 0 && kvern_kv_cache_token(cache, 0, len - 1, key, k, value, v) == 0
            };
            // A cache without tokens does not tell: the widest, so that buffers are long enough.
            let Some((key, value)) = widths().find(fits) else {
                return Shape { kv_heads: 4, head_dim: 64, value_dim: 64 };
            };
            let mut options = defaults::<kvern_attention_options>();
            let kv_heads = (1..=4).find(|&heads| {
                options.heads = heads;
                kvern_attention_workspace_bytes(w.plain_context, &options, cache, 1, &mut bytes) == 0
            });
            let kv_heads = kv_heads.unwrap_or(4);
            Shape { kv_heads, head_dim: key / kv_heads, value_dim: value / kv_heads }
        }
    }

    fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn value_width(&self) -> usize {
        self.kv_heads * self.value_dim
    }
}

fn options(g: &mut Arguments) -> kvern_kv_cache_options {
    let mut o = defaults::<kvern_kv_cache_options>();
    let (heads, dim) = g.one_of(&[(2, 8), (2, 8), (1, 8), (2, 16)]);
    (o.kv_heads, o.head_dim) = (g.size(heads), g.size(dim));
    if g.below(4) == 0 {
        o.value_dim = g.size(8);
    }
    let (capacity, types) = (g.one_of(&[12, 40, 300]), [0, 1, 8, 30]);
    o.capacity = g.size(capacity);
    let (keys, mut values) = (g.one_of(&types), g.one_of(&types));
    if g.below(5) == 0 {
        values = KVERN_KV_LATENT;
    }
    (o.keys, o.values) = (g.number(keys), g.number(values));
    if g.below(3) == 0 {
        (o.window, o.sinks) = (g.size(4), g.size(2));
    }
    let sequences = g.below(4);
    (o.sequences, o.pages) = (g.size(sequences), g.size(0));
    o
}

fn len_of(cache: *const kvern_kv_cache, sequence: usize) -> usize {
    let mut len = 0;
    // SAFETY: a live cache; 0 stays for a sequence that is not there.
    unsafe { kvern_kv_cache_len_of(cache, sequence, &mut len) };
    len
}

/// A cache that the call changes, watched: a call that is refused must leave it as it is.
fn changed(w: &mut World, g: &mut Arguments) -> (*mut kvern_kv_cache, *mut kvern_kv_cache) {
    let cache = w.caches.one(g);
    w.watch(cache);
    (cache, g.handle(cache))
}

/// A sequence, mostly one that is there.
fn sequence(g: &mut Arguments) -> usize {
    let sequence = g.one_of(&[0, 0, 0, 1]);
    let sequence = if g.may_be_hostile() { sequence } else { 0 };
    g.size(sequence)
}

/// The arrays of attention over `keys` keys for `rows` rows of `heads` heads.
fn bias(
    g: &mut Arguments,
    o: &mut kvern_attention_options,
    heads: usize,
    rows: usize,
    q_len: usize,
    keys: usize,
) {
    (o.non_causal, o.precision) = (g.number(0), g.number(0));
    (o.scale, o.softcap) = (g.float(0.0) as f32, g.float(0.0) as f32);
    if g.below(3) == 0 {
        (o.window, o.sinks) = (g.size(5), g.size(0));
    }
    if g.below(3) == 0 {
        o.alibi = g.floats(heads);
    }
    if g.below(3) == 0 {
        o.sink_logits = g.floats(heads);
    }
    if g.below(3) == 0 {
        (o.mask, o.mask_row_stride) = read(g, rows, keys);
        o.mask_per_head = g.flag(0);
    }
    if g.below(3) == 0 {
        o.seen_row_stride = g.stride(keys);
        let len = extent(rows, keys, o.seen_row_stride);
        o.seen = if len < 1 << 16 { g.elements(vec![1u8; len]) } else { g.bytes(len) };
        o.seen_per_head = g.flag(0);
    }
    if g.below(4) == 0 {
        o.tree_row_stride = g.stride(q_len);
        let len = extent(rows, q_len, o.tree_row_stride);
        o.tree = if len < 1 << 16 { g.elements(vec![1u8; len]) } else { g.bytes(len) };
    }
    if g.below(3) == 0 {
        (o.lse, o.lse_row_stride) = written(g, rows, heads);
    }
}

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_kv_cache_create, |w, g| {
        let options = options(g);
        let (ctx, options) = (w.optional_context(g), g.options(&options, false));
        made!(w.caches, g, |out| lib!(kvern_kv_cache_create(ctx, options, out)))
    }),
    call!(kvern_kv_cache_append, |w, g| {
        let (good, cache) = changed(w, g);
        let (shape, tokens) = (Shape::of(w, good), g.one_of(&[0, 1, 3]));
        let tokens = g.size(tokens);
        let (k, v) = (read(g, tokens, shape.key_width()), read(g, tokens, shape.value_width()));
        lib!(kvern_kv_cache_append(cache, tokens, k.0, k.1, v.0, v.1))
    }),
    call!(kvern_kv_cache_append_to, |w, g| {
        let (good, cache) = changed(w, g);
        let (shape, tokens, sequence) = (Shape::of(w, good), g.one_of(&[0, 1, 3]), sequence(g));
        let tokens = g.size(tokens);
        let (k, v) = (read(g, tokens, shape.key_width()), read(g, tokens, shape.value_width()));
        lib!(kvern_kv_cache_append_to(cache, sequence, tokens, k.0, k.1, v.0, v.1))
    }),
    call!(kvern_kv_cache_token, |w, g| {
        let cache = w.caches.one(g);
        let (shape, sequence) = (Shape::of(w, cache), sequence(g));
        let position = len_of(cache, sequence).saturating_sub(1);
        let (position, key, value) =
            (g.size(position), g.size(shape.key_width()), g.size(shape.value_width()));
        let (k, v) = (g.output(key), g.output(value));
        lib!(kvern_kv_cache_token(g.handle(cache), sequence, position, key, k, value, v))
    }),
    call!(kvern_kv_cache_len, |w, g| lib!(kvern_kv_cache_len(w.caches.any(g), g.value()))),
    call!(kvern_kv_cache_len_of, |w, g| lib!(kvern_kv_cache_len_of(w.caches.any(g), sequence(g), g.value()))),
    call!(kvern_kv_cache_start, |w, g| lib!(kvern_kv_cache_start(w.caches.any(g), g.value()))),
    call!(kvern_kv_cache_start_of, |w, g| lib!(kvern_kv_cache_start_of(
        w.caches.any(g),
        sequence(g),
        g.value()
    ))),
    call!(kvern_kv_cache_bytes, |w, g| lib!(kvern_kv_cache_bytes(w.caches.any(g), g.value()))),
    call!(kvern_kv_cache_bytes_used, |w, g| lib!(kvern_kv_cache_bytes_used(w.caches.any(g), g.value()))),
    call!(kvern_kv_cache_pages, |w, g| lib!(kvern_kv_cache_pages(w.caches.any(g), g.value()))),
    call!(kvern_kv_cache_free_pages, |w, g| lib!(kvern_kv_cache_free_pages(w.caches.any(g), g.value()))),
    call!(kvern_kv_cache_save, |w, g| lib!(kvern_kv_cache_save(w.caches.any(g), w.target(g)))),
    call!(kvern_kv_cache_restore, |w, g| {
        let (_, cache) = changed(w, g);
        let kind = g.one_of(&["cache0", "cache1", "cache2", "cache3"]);
        let kind = if g.may_be_hostile() { kind } else { "cache0" };
        lib!(kvern_kv_cache_restore(cache, w.file(g, kind)))
    }),
    call!(kvern_kv_cache_load, |w, g| {
        // Those of the first cache of the world, whose file is "cache0".
        let mut o = defaults::<kvern_kv_cache_options>();
        (o.kv_heads, o.head_dim, o.capacity) = (g.size(2), g.size(8), g.size(40));
        let (ctx, options, path) = (w.optional_context(g), g.options(&o, false), w.file(g, "cache0"));
        made!(w.caches, g, |out| lib!(kvern_kv_cache_load(ctx, options, path, out)))
    }),
    call!(kvern_kv_cache_destroy, |w, g| {
        let cache = w.caches.take(g);
        lib!(kvern_kv_cache_destroy(if cache.is_null() { g.handle(cache) } else { cache }));
        0
    }),
    call!(kvern_kv_cache_append_prepared, |w, g| {
        let (good, cache) = changed(w, g);
        let (shape, tokens, heads) = (Shape::of(w, good), g.one_of(&[0, 1, 3]), g.one_of(&[0, 1, 2]));
        let (tokens, heads, sequence) = (g.size(tokens), g.size(heads), sequence(g));
        let mut p = defaults::<kvern_preparation>();
        if g.below(2) == 0 {
            (p.q_gain, p.k_gain) = (g.floats(shape.head_dim), g.floats(shape.head_dim));
            (p.q_eps, p.k_eps) = (g.float(1e-5) as f32, g.float(1e-5) as f32);
        }
        if g.below(2) == 0 {
            p.rope = if g.may_be_hostile() { w.tables.any(g) } else { w.tables.first() };
        }
        if g.below(3) == 0 {
            p.positions = match tokens {
                0..64 => g.elements((0..tokens).collect()),
                _ => g.bytes(tokens),
            };
        }
        let pairs = g.below(2) as i32;
        (p.pairs, p.flags) = (g.number(pairs), g.number(0) as u32);
        let (q, k) =
            (written(g, tokens, heads.saturating_mul(shape.head_dim)), written(g, tokens, shape.key_width()));
        let (v, p, ctx) = (read(g, tokens, shape.value_width()), g.options(&p, true), w.contexts.any(g));
        lib!(kvern_kv_cache_append_prepared(
            ctx, cache, sequence, p, tokens, heads, q.0, q.1, k.0, k.1, v.0, v.1
        ))
    }),
    call!(kvern_kv_cache_clear, |w, g| {
        let (_, cache) = changed(w, g);
        // Mostly not: an empty cache is a dull one.
        let really = !g.may_be_hostile() || g.below(4) == 0;
        lib!(kvern_kv_cache_clear(if really { cache } else { std::ptr::null_mut() }))
    }),
    call!(kvern_kv_cache_clear_in, |w, g| {
        let (_, cache) = changed(w, g);
        lib!(kvern_kv_cache_clear_in(cache, sequence(g)))
    }),
    call!(kvern_kv_cache_truncate, |w, g| {
        let (good, cache) = changed(w, g);
        let len = len_of(good, 0).saturating_sub(1);
        lib!(kvern_kv_cache_truncate(cache, g.size(len)))
    }),
    call!(kvern_kv_cache_truncate_in, |w, g| {
        let ((good, cache), sequence) = (changed(w, g), sequence(g));
        let len = len_of(good, sequence).saturating_sub(1);
        lib!(kvern_kv_cache_truncate_in(cache, sequence, g.size(len)))
    }),
    call!(kvern_kv_cache_remove, |w, g| {
        let ((good, cache), sequence) = (changed(w, g), sequence(g));
        let end = len_of(good, sequence);
        let start = end.saturating_sub(1);
        lib!(kvern_kv_cache_remove(cache, sequence, g.size(start), g.size(end)))
    }),
    call!(kvern_kv_cache_rotate, |w, g| {
        let ((good, cache), sequence, pairs) = (changed(w, g), sequence(g), g.below(2) as i32);
        let end = len_of(good, sequence);
        let by = if g.is_hostile() { g.one_of(&[isize::MIN, -700, 5000, isize::MAX]) } else { 1 };
        let table = if g.may_be_hostile() { w.tables.any(g) } else { w.tables.first() };
        let start = end.saturating_sub(1);
        lib!(kvern_kv_cache_rotate(cache, sequence, g.size(start), g.size(end), by, table, g.number(pairs)))
    }),
    call!(kvern_kv_cache_fork, |w, g| {
        let ((_, cache), from, to) = (changed(w, g), sequence(g), sequence(g));
        lib!(kvern_kv_cache_fork(cache, from, to))
    }),
    call!(kvern_attention_workspace_bytes, |w, g| {
        let mut o = defaults::<kvern_attention_options>();
        o.heads = g.size(0);
        let (ctx, cache, o) = (w.contexts.any(g), w.caches.any(g), g.options(&o, false));
        lib!(kvern_attention_workspace_bytes(ctx, o, cache, g.size(5), g.value()))
    }),
    call!(kvern_attention, |w, g| {
        let cache = w.caches.one(g);
        let shape = Shape::of(w, cache);
        let mut o = defaults::<kvern_attention_options>();
        let q_len = len_of(cache, 0).min(1 + g.below(5));
        let (q_len, count) = (g.size(q_len), g.below(3));
        let listed: Vec<usize> =
            (0..count).map(|_| if g.may_be_hostile() { sequence(g) } else { 0 }).collect();
        let used: &[usize] = if count == 0 { &[0] } else { &listed };
        // Of sequence 0 too, which a shorter options struct means.
        let keys = used.iter().chain(&[0]).map(|&s| len_of(cache, s)).max().unwrap_or(0);
        let rows = q_len.saturating_mul(used.len());
        // The list that the library reads is the one that the arrays were made for.
        (o.sequences, o.sequences_len) = (g.structs(&listed), count);
        bias(g, &mut o, shape.kv_heads, rows, q_len, keys);
        let (q, out) = (read(g, rows, shape.key_width()), written(g, rows, shape.value_width()));
        let (ctx, ws, o) = (w.contexts.any(g), w.workspaces.enough(g), g.options(&o, false));
        lib!(kvern_attention(ctx, ws, o, g.handle(cache), q_len, q.0, q.1, out.0, out.1))
    }),
    call!(kvern_attention_plain_workspace_bytes, |w, g| {
        let mut o = defaults::<kvern_attention_options>();
        o.heads = g.size(4);
        let (ctx, kv_heads, key, value) = (w.contexts.any(g), g.size(2), g.size(8), g.size(8));
        let o = g.options(&o, false);
        lib!(kvern_attention_plain_workspace_bytes(
            ctx,
            o,
            kv_heads,
            key,
            value,
            g.size(9),
            g.size(3),
            g.value()
        ))
    }),
    call!(kvern_attention_plain, |w, g| {
        let (kv_heads, key, value) = (g.one_of(&[1, 2]), g.one_of(&[1, 7, 8]), g.one_of(&[1, 8, 9]));
        let (kv_len, q_len) = (g.one_of(&[1, 9, 300]), g.one_of(&[0, 1, 5]));
        let q_len = if g.may_be_hostile() { q_len } else { q_len.min(kv_len) };
        let (kv_heads, key, value, kv_len) = (g.size(kv_heads), g.size(key), g.size(value), g.size(kv_len));
        let (q_len, factor) = (g.size(q_len), 1 + g.below(2));
        let mut o = defaults::<kvern_attention_options>();
        o.heads = g.size(kv_heads.saturating_mul(factor));
        let heads = if o.heads == 0 { kv_heads } else { o.heads };
        bias(g, &mut o, heads, q_len, q_len, kv_len);
        let (k, v) =
            (read(g, kv_len, kv_heads.saturating_mul(key)), read(g, kv_len, kv_heads.saturating_mul(value)));
        let (q, out) =
            (read(g, q_len, heads.saturating_mul(key)), written(g, q_len, heads.saturating_mul(value)));
        let (ctx, ws, o) = (w.contexts.any(g), w.workspaces.enough(g), g.options(&o, false));
        lib!(kvern_attention_plain(
            ctx, ws, o, kv_heads, key, value, kv_len, k.0, k.1, v.0, v.1, q_len, q.0, q.1, out.0, out.1,
        ))
    }),
    call!(kvern_attention_ragged, |w, g| {
        let (kv_heads, key, value) = (g.one_of(&[1, 2]), g.one_of(&[1, 7, 8]), g.one_of(&[1, 8, 9]));
        let count = g.below(4);
        let (mut k_starts, mut q_starts) = (vec![0usize], vec![0usize]);
        for s in 0..count {
            // No more than the buffers of masks hold.
            let keys = if s == 0 { g.one_of(&[0, 1, 9, 270]) } else { g.below(10) };
            let queries = if g.may_be_hostile() { g.one_of(&[0, 1, 5]) } else { g.below(keys.min(5) + 1) };
            k_starts.push(g.size(k_starts[s].saturating_add(keys)));
            q_starts.push(g.size(q_starts[s].saturating_add(queries)));
        }
        let (keys, rows) = (g.size(k_starts[count]), g.size(q_starts[count]));
        let (starts, q_starts) = (g.elements(k_starts), g.elements(q_starts));
        // Masks have as many columns as the longest sequence has keys, also where an element is garbage.
        let good = !starts.is_null() && starts.is_aligned();
        let start = |s: usize| if good { *starts.add(s) } else { 0 };
        let longest = (0..count).map(|s| start(s + 1).saturating_sub(start(s))).max().unwrap_or(0);
        let (kv_heads, key, value) = (g.size(kv_heads), g.size(key), g.size(value));
        let mut o = defaults::<kvern_attention_options>();
        o.heads = kv_heads;
        bias(g, &mut o, kv_heads, rows, rows, longest);
        if !g.may_be_hostile() {
            (o.tree, o.tree_row_stride) = (std::ptr::null(), 0);
        }
        let (k, v) =
            (read(g, keys, kv_heads.saturating_mul(key)), read(g, keys, kv_heads.saturating_mul(value)));
        let (q, out) =
            (read(g, rows, kv_heads.saturating_mul(key)), written(g, rows, kv_heads.saturating_mul(value)));
        let (ctx, ws, o) = (w.contexts.any(g), w.workspaces.enough(g), g.options(&o, false));
        lib!(kvern_attention_ragged(
            ctx, ws, o, count, starts, q_starts, kv_heads, key, value, keys, k.0, k.1, v.0, v.1, rows, q.0,
            q.1, out.0, out.1,
        ))
    }),
];
