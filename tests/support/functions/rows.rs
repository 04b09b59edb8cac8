//! Row operations, rotations and embeddings.

use super::answers::shape_of_weights;
use super::arguments::Arguments;
use super::products::{read, written};
use super::world::{World, defaults};
use super::{Call, call, lib, made};
use kvern::capi::attention::kvern_alibi_slopes;
use kvern::capi::elementwise::*;
use kvern::capi::norms::*;
use kvern::capi::ops::*;
use kvern::capi::rope::*;
use kvern::capi::rope_axes::*;
use kvern::capi::router::*;
use kvern::capi::status::kvern_status;
use kvern::capi::tokens::*;

const ROWS: &[usize] = &[0, 1, 2, 7];
const COLS: &[usize] = &[0, 1, 15, 16, 33];

/// Rows and columns.
fn shape(g: &mut Arguments) -> (usize, usize) {
    let (rows, cols) = (g.one_of(ROWS), g.one_of(COLS));
    (g.size(rows), g.size(cols))
}

fn scaling(g: &mut Arguments) -> kvern_rope_scaling {
    let mut scaling = defaults::<kvern_rope_scaling>();
    let kind = g.below(5) as i32;
    (scaling.kind, scaling.flags) = (g.number(kind), g.number(0) as u32);
    (scaling.factor, scaling.original_positions) = (g.float(8.0), g.size(4096));
    (scaling.beta_fast, scaling.beta_slow) = (g.float(0.0), g.float(0.0));
    (scaling.low_frequency, scaling.high_frequency) = (g.float(0.0), g.float(0.0));
    scaling.attention_factor = g.float(0.0);
    scaling
}

/// rotary_dim and positions of a new table.
fn table(g: &mut Arguments) -> (usize, usize) {
    let (dim, positions) = (g.one_of(&[2, 8, 16]), g.one_of(&[0, 1, 9]));
    (g.size(dim), g.size(positions))
}

/// Tokens, heads and head_dim of a rotation.
fn heads(g: &mut Arguments) -> (usize, usize, usize) {
    let (tokens, heads, dim) = (g.one_of(&[0, 1, 3]), g.one_of(&[0, 1, 2]), g.one_of(&[2, 8, 16, 24]));
    (g.size(tokens), g.size(heads), g.size(dim))
}

fn rotary_dim(table: *const kvern_rope_table) -> usize {
    let mut dim = 0;
    // SAFETY: a live table.
    assert_eq!(unsafe { kvern_rope_table_rotary_dim(table, &mut dim) }, 0);
    dim
}

/// Ids below `vocabulary`.
fn ids(g: &mut Arguments, tokens: usize, vocabulary: usize) -> *const u32 {
    let ids: Vec<u32> = (0..tokens.min(64)).map(|_| g.below(vocabulary.clamp(1, 1 << 20)) as u32).collect();
    if ids.len() == tokens { g.elements(ids) } else { g.bytes(tokens) }
}

/// A norm of rows of n: its kind, and what goes with it.
fn norm(g: &mut Arguments, rows: usize, n: usize) -> kvern_norm_options {
    let mut options = defaults::<kvern_norm_options>();
    let (kind, groups) = (g.below(4) as i32, g.one_of(&[0, 1, 3]));
    options.groups = g.size(if n.is_multiple_of(groups.max(1)) { groups } else { 1 });
    options.part_len = match g.below(3) {
        0 => 0,
        1 => g.size(n),
        _ => g.size(n / options.groups.max(1)),
    };
    let len = if options.part_len == 0 { n } else { options.part_len };
    if g.below(2) == 0 {
        options.gain = g.floats(len);
    }
    if kind == KVERN_NORM_LAYER && g.below(2) == 0 {
        options.bias = g.floats(len);
    }
    if g.below(2) == 0 {
        (options.gate, options.gate_row_stride) = read(g, rows, n);
    }
    let (activation, first) = (g.below(11) as i32, g.below(2) as i32);
    (options.kind, options.eps) = (g.number(kind), g.float(1e-5) as f32);
    (options.gate_activation, options.gate_first) = (g.number(activation), g.flag(first));
    options
}

/// A router of so many experts.
fn router(g: &mut Arguments, experts: usize, chosen: usize) -> kvern_router_options {
    let mut options = defaults::<kvern_router_options>();
    options.chosen = chosen;
    if g.below(2) == 0 {
        options.bias = g.floats(experts);
    }
    if g.below(2) == 0 {
        options.expert_scale = g.floats(experts);
    }
    let groups = g.one_of(&[0, 1, 2]);
    (options.groups, options.kept_groups) = (g.size(groups), g.size(groups));
    let (score, by, renormalize) = (g.below(4) as i32, g.below(2) as i32, g.below(2) as i32);
    (options.score, options.group_score) = (g.number(score), g.number(by));
    (options.renormalize, options.renormalize_eps) = (g.flag(renormalize), g.float(1e-20) as f32);
    (options.scale, options.flags) = (g.float(2.5) as f32, g.number(0) as u32);
    options
}

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_layer_norm, |w, g| {
        let (rows, n) = shape(g);
        let (x, gain, bias) = (read(g, rows, n), g.floats(n), g.floats(n));
        let (y, ctx, eps) = (written(g, rows, n), w.contexts.any(g), g.float(1e-5) as f32);
        lib!(kvern_layer_norm(ctx, rows, n, x.0, x.1, gain, bias, eps, y.0, y.1))
    }),
    call!(kvern_rms_norm, |w, g| {
        let (rows, n) = shape(g);
        let (x, gain, y) = (read(g, rows, n), g.floats(n), written(g, rows, n));
        let (ctx, eps) = (w.contexts.any(g), g.float(1e-5) as f32);
        lib!(kvern_rms_norm(ctx, rows, n, x.0, x.1, gain, eps, y.0, y.1))
    }),
    call!(kvern_norm, |w, g| {
        let (rows, n) = shape(g);
        let options = norm(g, rows, n);
        let (x, y, ctx) = (read(g, rows, n), written(g, rows, n), w.contexts.any(g));
        let options = g.options(&options, false);
        lib!(kvern_norm(ctx, options, rows, n, x.0, x.1, y.0, y.1))
    }),
    call!(kvern_mean_pool, |w, g| {
        let (tokens, n) = shape(g);
        let count = g.one_of(&[0, 1, 3]);
        let sequences = g.size(count);
        let bounds = (0..=sequences.min(63)).map(|i| i * tokens.min(64) / sequences.max(1)).collect();
        let starts = if sequences < 64 { g.elements::<usize>(bounds) } else { g.bytes(sequences) };
        let seen = match g.below(2) {
            0 if tokens < 64 => g.elements((0..tokens).map(|i| (i % 2) as u8).collect()),
            _ => std::ptr::null(),
        };
        let (x, out, ctx) = (read(g, tokens, n), written(g, sequences, n), w.contexts.any(g));
        lib!(kvern_mean_pool(ctx, sequences, starts, tokens, n, x.0, x.1, seen, out.0, out.1))
    }),
    call!(kvern_cumulative_sum, |w, g| {
        let (rows, n) = shape(g);
        let (x, along) = (written(g, rows, n), g.below(2) as i32);
        lib!(kvern_cumulative_sum(w.contexts.any(g), g.number(along), rows, n, x.0, x.1))
    }),
    call!(kvern_causal_conv, |w, g| {
        let ((tokens, channels), taps) = (shape(g), g.one_of(&[2, 3, 4, 8]));
        let taps = g.size(taps);
        let weights = read(g, taps, channels);
        let bias = if g.below(2) == 0 { std::ptr::null() } else { g.floats(channels) };
        let state = g.changed(taps.saturating_sub(1).saturating_mul(channels));
        let (x, y, activation) =
            (read(g, tokens, channels), written(g, tokens, channels), g.below(11) as i32);
        let (ctx, act) = (w.contexts.any(g), g.number(activation));
        lib!(kvern_causal_conv(
            ctx, taps, channels, weights.0, weights.1, bias, act, state, tokens, x.0, x.1, y.0, y.1
        ))
    }),
    call!(kvern_top_k, |w, g| {
        let (rows, n) = shape(g);
        let k = g.below(n.min(20) + 1);
        let (x, k) = (read(g, rows, n), g.size(k));
        let len = rows.saturating_mul(k);
        let (indices, values) = (g.output(len), g.output(len));
        lib!(kvern_top_k(w.contexts.any(g), rows, n, k, x.0, x.1, indices, values))
    }),
    call!(kvern_route, |w, g| {
        let (tokens, experts, chosen) = (g.one_of(ROWS), g.one_of(&[2, 8, 40]), g.one_of(&[1, 2]));
        let (tokens, experts, chosen) = (g.size(tokens), g.size(experts), g.size(chosen));
        let options = router(g, experts, chosen);
        let (logits, len) = (g.changed(tokens.saturating_mul(experts)), tokens.saturating_mul(chosen));
        let (indices, weights, ctx) = (g.output(len), g.output(len), w.contexts.any(g));
        let options = g.options(&options, false);
        lib!(kvern_route(ctx, options, tokens, experts, logits, indices, weights))
    }),
    call!(kvern_softmax, |w, g| {
        let (rows, n) = shape(g);
        let x = written(g, rows, n);
        lib!(kvern_softmax(w.contexts.any(g), rows, n, x.0, x.1))
    }),
    call!(kvern_softmax_with, |w, g| {
        let (rows, n) = shape(g);
        let mut options = defaults::<kvern_softmax_options>();
        (options.scale, options.softcap) = (g.float(0.5) as f32, g.float(0.0) as f32);
        if g.below(2) == 0 {
            options.mask_rows = if g.below(2) == 0 { 0 } else { g.size(rows.min(1)) };
            let mask_rows = if options.mask_rows == 0 { rows } else { options.mask_rows };
            (options.mask, options.mask_row_stride) = read(g, mask_rows, n);
        }
        let (x, y) = (read(g, rows, n), written(g, rows, n));
        let (ctx, options) = (w.contexts.any(g), g.options(&options, true));
        lib!(kvern_softmax_with(ctx, options, rows, n, x.0, x.1, y.0, y.1))
    }),
    call!(kvern_activate, |w, g| {
        let (rows, n) = shape(g);
        let (x, activation) = (written(g, rows, n), g.below(11) as i32);
        lib!(kvern_activate(w.contexts.any(g), g.number(activation), rows, n, x.0, x.1))
    }),
    call!(kvern_silu_mul, |w, g| {
        let (rows, n) = shape(g);
        let (z, x) = (read(g, rows, n), written(g, rows, n));
        lib!(kvern_silu_mul(w.contexts.any(g), rows, n, x.0, x.1, z.0, z.1))
    }),
    call!(kvern_add, |w, g| {
        let (rows, n) = shape(g);
        let (z, x) = (read(g, rows, n), written(g, rows, n));
        lib!(kvern_add(w.contexts.any(g), rows, n, x.0, x.1, z.0, z.1))
    }),
    call!(kvern_activate_mul, |w, g| {
        let (rows, n) = shape(g);
        let (z, x, activation) = (read(g, rows, n), written(g, rows, n), g.below(11) as i32);
        lib!(kvern_activate_mul(w.contexts.any(g), g.number(activation), rows, n, x.0, x.1, z.0, z.1))
    }),
    call!(kvern_swiglu_oai, |w, g| {
        let (rows, n) = shape(g);
        let (z, x) = (read(g, rows, n), written(g, rows, n));
        let (alpha, limit) = (g.float(1.702) as f32, g.float(7.0) as f32);
        lib!(kvern_swiglu_oai(w.contexts.any(g), alpha, limit, rows, n, x.0, x.1, z.0, z.1))
    }),
    call!(kvern_mul, |w, g| {
        let (rows, n) = shape(g);
        let (z, x) = (read(g, rows, n), written(g, rows, n));
        lib!(kvern_mul(w.contexts.any(g), rows, n, x.0, x.1, z.0, z.1))
    }),
    call!(kvern_add_scaled, |w, g| {
        let (rows, n) = shape(g);
        let (z, x) = (read(g, rows, n), written(g, rows, n));
        let by = g.float(0.5) as f32;
        lib!(kvern_add_scaled(w.contexts.any(g), by, rows, n, x.0, x.1, z.0, z.1))
    }),
    call!(kvern_scale, |w, g| {
        let (rows, n) = shape(g);
        let (x, by) = (written(g, rows, n), g.float(0.5) as f32);
        lib!(kvern_scale(w.contexts.any(g), by, rows, n, x.0, x.1))
    }),
    call!(kvern_softcap, |w, g| {
        let (rows, n) = shape(g);
        let (x, cap) = (written(g, rows, n), g.float(30.0) as f32);
        lib!(kvern_softcap(w.contexts.any(g), cap, rows, n, x.0, x.1))
    }),
    call!(kvern_embedding, |w, g| {
        let (vocabulary, n) = (g.one_of(&[1, 5, 9]), g.one_of(COLS));
        let (vocabulary, n, tokens) = (g.size(vocabulary), g.size(n), g.one_of(ROWS));
        let tokens = g.size(tokens);
        let (table, ids, out) = (read(g, vocabulary, n), ids(g, tokens, vocabulary), written(g, tokens, n));
        lib!(kvern_embedding(w.contexts.any(g), vocabulary, n, table.0, table.1, tokens, ids, out.0, out.1))
    }),
    call!(kvern_embedding_quantized, |w, g| {
        let weights = w.weights.one(g);
        let ((n, k), tokens) = (shape_of_weights(weights), g.one_of(ROWS));
        let (k, tokens) = (g.size(k), g.size(tokens));
        let (ids, out) = (ids(g, tokens, n), written(g, tokens, k));
        let (ctx, weights) = (w.contexts.any(g), g.handle(weights));
        lib!(kvern_embedding_quantized(ctx, weights, k, tokens, ids, out.0, out.1))
    }),
    call!(kvern_argmax, |w, g| {
        let n = g.one_of(&[1, 5, 100]);
        let n = g.size(n);
        lib!(kvern_argmax(w.contexts.any(g), n, g.floats(n), g.value()))
    }),
    call!(kvern_alibi_slopes, |w, g| {
        let heads = g.one_of(&[0, 1, 12]);
        let heads = g.size(heads);
        lib!(kvern_alibi_slopes(heads, g.output(heads)))
    }),
    call!(kvern_rope_table_create, |w, g| {
        let ((dim, positions), base) = (table(g), g.float(10000.0));
        made!(w.tables, g, |out| lib!(kvern_rope_table_create(dim, positions, base, out)))
    }),
    call!(kvern_rope_table_create_scaled, |w, g| {
        let ((dim, positions), base, scaling) = (table(g), g.float(10000.0), scaling(g));
        let scaling = g.options(&scaling, true);
        made!(w.tables, g, |out| lib!(kvern_rope_table_create_scaled(dim, positions, base, scaling, out)))
    }),
    call!(kvern_rope_table_from_frequencies, |w, g| {
        let (pairs, positions) = (g.one_of(&[1, 4]), g.one_of(&[0, 1, 9]));
        let (pairs, positions, amplitude) = (g.size(pairs), g.size(positions), g.float(1.0));
        let frequencies = match pairs {
            0..64 => g.elements((0..pairs).map(|i| 1.0 / (1 + i) as f64).collect()),
            _ => g.bytes(pairs),
        };
        made!(w.tables, g, |out| lib!(kvern_rope_table_from_frequencies(
            pairs,
            frequencies,
            positions,
            amplitude,
            out
        )))
    }),
    call!(kvern_rope_table_positions, |w, g| lib!(kvern_rope_table_positions(w.tables.any(g), g.value()))),
    call!(kvern_rope_table_rotary_dim, |w, g| lib!(kvern_rope_table_rotary_dim(w.tables.any(g), g.value()))),
    call!(kvern_rope_table_bytes, |w, g| lib!(kvern_rope_table_bytes(w.tables.any(g), g.value()))),
    call!(kvern_rope_table_row, |w, g| {
        let table = w.tables.one(g);
        let (pairs, position) = (g.size(rotary_dim(table) / 2), g.below(4));
        let (position, cos, sin) = (g.size(position), g.output(pairs), g.output(pairs));
        lib!(kvern_rope_table_row(g.handle(table), position, pairs, cos, sin))
    }),
    call!(kvern_rope_table_first, |w, g| lib!(kvern_rope_table_first(w.tables.any(g), g.value()))),
    call!(kvern_rope_table_move_to, |w, g| {
        // Elsewhere the calls that use a table would be refused.
        let first = g.size(0);
        lib!(kvern_rope_table_move_to(w.tables.any(g), first))
    }),
    call!(kvern_rope_table_destroy, |w, g| {
        let table = w.tables.take(g);
        lib!(kvern_rope_table_destroy(if table.is_null() { g.handle(table) } else { table }));
        0
    }),
    call!(kvern_rope, |w, g| {
        let (tokens, heads, dim) = heads(g);
        let (x, first, pairs) =
            (written(g, tokens, heads.saturating_mul(dim)), g.below(4), g.below(2) as i32);
        let (ctx, table) = (w.contexts.any(g), w.tables.any(g));
        lib!(kvern_rope(ctx, table, g.number(pairs), g.size(first), tokens, heads, dim, x.0, x.1))
    }),
    call!(kvern_rope_at, |w, g| {
        let (tokens, heads, dim) = heads(g);
        let positions = match tokens {
            0..64 => g.elements((0..tokens).collect()),
            _ => g.bytes(tokens),
        };
        let (x, pairs) = (written(g, tokens, heads.saturating_mul(dim)), g.below(2) as i32);
        let (ctx, table) = (w.contexts.any(g), w.tables.any(g));
        lib!(kvern_rope_at(ctx, table, g.number(pairs), positions, tokens, heads, dim, x.0, x.1))
    }),
    call!(kvern_rope_table_with_factors, |w, g| {
        let (pairs, positions) = (g.one_of(&[1, 4]), g.one_of(&[0, 1, 9]));
        let (pairs, positions) = (g.size(pairs), g.size(positions));
        let (base, amplitude) = (g.float(10000.0), g.float(1.0));
        let factors = match pairs {
            0..64 => g.elements((0..pairs).map(|i| (1 + i) as f64).collect()),
            _ => g.bytes(pairs),
        };
        made!(w.tables, g, |out| lib!(kvern_rope_table_with_factors(
            pairs, factors, positions, base, amplitude, out
        )))
    }),
    call!(kvern_rope_sections, |w, g| {
        let (count, interleaved) = (1 + g.below(3), g.below(2) as i32);
        let sections = g.elements::<usize>((0..count).collect());
        let (pairs, interleaved) = (g.size(count * (count - 1) / 2), g.number(interleaved));
        lib!(kvern_rope_sections(count, sections, interleaved, pairs, g.output(pairs)))
    }),
    call!(kvern_rope_axes, |w, g| {
        let ((tokens, heads, dim), count) = (heads(g), 1 + g.below(3));
        let table = w.tables.one(g);
        let pairs = rotary_dim(table) / 2;
        // A table without positions may have any number of pairs.
        let axes = match pairs {
            0..64 => g.elements::<u8>((0..pairs).map(|p| (p % count) as u8).collect()),
            _ => g.bytes(pairs),
        };
        let positions = match tokens {
            0..64 => g.elements((0..count * tokens).map(|i| i % 2).collect()),
            _ => g.bytes(tokens.saturating_mul(count)),
        };
        let (x, kind) = (written(g, tokens, heads.saturating_mul(dim)), g.below(2) as i32);
        let (ctx, table, kind) = (w.contexts.any(g), g.handle(table), g.number(kind));
        lib!(kvern_rope_axes(ctx, table, kind, count, axes, positions, tokens, heads, dim, x.0, x.1))
    }),
];
