//! Row operations, rotations and embeddings.

use super::arguments::Arguments;
use super::products::{read, written};
use super::world::{World, defaults, shape_of_weights};
use super::{Call, call, lib, made};
use kvern::capi::attention::kvern_alibi_slopes;
use kvern::capi::elementwise::*;
use kvern::capi::ops::*;
use kvern::capi::rope::*;
use kvern::capi::status::kvern_status;

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
];
