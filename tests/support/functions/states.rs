//! Recurrent states.

use super::arguments::Arguments;
use super::products::{read, written};
use super::world::{World, defaults};
use super::{Call, call, lib, made};
use kvern::capi::recurrent::*;
use kvern::capi::status::kvern_status;

/// The states of all calls: heads, key heads, key_dim, value_dim, channels, taps.
pub const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
pub const KEY_DIM: usize = 8;
pub const VALUE_DIM: usize = 5;
const CHANNELS: usize = 6;
const TAPS: usize = 3;

/// Options of states that the other calls fit.
pub fn options(sequences: usize) -> kvern_state_options {
    kvern_state_options {
        heads: HEADS,
        key_dim: KEY_DIM,
        value_dim: VALUE_DIM,
        channels: CHANNELS,
        taps: TAPS,
        sequences,
        ..defaults()
    }
}

/// A sequence, mostly one that is there.
fn sequence(g: &mut Arguments) -> usize {
    let sequence = if g.may_be_hostile() { g.below(3) } else { 0 };
    g.size(sequence)
}

/// Some sequences, none twice, and rows for them.
fn sequences(g: &mut Arguments) -> (usize, *const usize, usize) {
    let (count, tokens) = (if g.may_be_hostile() { g.below(3) } else { 1 }, g.one_of(&[0, 1, 3]));
    let count = g.size(count);
    let list = if count < 64 { g.elements((0..count).collect()) } else { g.bytes(count) };
    (count, list, g.size(count.saturating_mul(tokens)))
}

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_state_create, |w, g| {
        let mut o = options(g.one_of(&[0, 1, 3]));
        (o.heads, o.key_dim, o.value_dim) = (g.size(o.heads), g.size(o.key_dim), g.size(o.value_dim));
        (o.channels, o.taps, o.sequences) = (g.size(o.channels), g.size(o.taps), g.size(o.sequences));
        let fits = (o.heads, o.key_dim, o.value_dim) == (HEADS, KEY_DIM, VALUE_DIM);
        if !fits || (o.channels, o.taps) != (CHANNELS, TAPS) {
            o.value_dim = 0; // refused: no call knows the sizes of others
        }
        let (ctx, options) = (w.optional_context(g), g.options(&o, false));
        made!(w.states, g, |out| lib!(kvern_state_create(ctx, options, out)))
    }),
    call!(kvern_state_destroy, |w, g| {
        let state = w.states.take(g);
        lib!(kvern_state_destroy(if state.is_null() { g.handle(state) } else { state }));
        0
    }),
    call!(kvern_state_clear, |w, g| lib!(kvern_state_clear(w.states.any(g)))),
    call!(kvern_state_clear_in, |w, g| lib!(kvern_state_clear_in(w.states.any(g), sequence(g)))),
    call!(kvern_state_fork, |w, g| lib!(kvern_state_fork(w.states.any(g), sequence(g), sequence(g)))),
    call!(kvern_state_len, |w, g| lib!(kvern_state_len(w.states.any(g), sequence(g), g.value()))),
    call!(kvern_state_bytes, |w, g| lib!(kvern_state_bytes(w.states.any(g), g.value()))),
    call!(kvern_state_read, |w, g| {
        let (state, sequence, head) = (w.states.any(g), sequence(g), g.size(1));
        let len = g.size(KEY_DIM * VALUE_DIM);
        lib!(kvern_state_read(state, sequence, head, len, g.output(len)))
    }),
    call!(kvern_state_write, |w, g| {
        let (state, sequence, head) = (w.states.any(g), sequence(g), g.size(1));
        let len = g.size(KEY_DIM * VALUE_DIM);
        lib!(kvern_state_write(state, sequence, head, len, g.floats(len)))
    }),
    call!(kvern_state_save, |w, g| lib!(kvern_state_save(w.states.any(g), w.target(g)))),
    call!(kvern_state_restore, |w, g| {
        let state = if g.may_be_hostile() { w.states.any(g) } else { w.states.first() };
        lib!(kvern_state_restore(state, w.file(g, "state0")))
    }),
    call!(kvern_state_conv, |w, g| {
        let (ctx, state, sequence) = (w.contexts.any(g), w.states.any(g), sequence(g));
        let (tokens, activation) = (g.one_of(&[0, 1, 5]), g.below(4) as i32);
        let (tokens, activation) = (g.size(tokens), g.number(activation));
        let (weights, x) = (read(g, TAPS, CHANNELS), read(g, tokens, CHANNELS));
        let bias = if g.below(2) == 0 { g.floats(CHANNELS) } else { std::ptr::null() };
        let y = written(g, tokens, CHANNELS);
        lib!(kvern_state_conv(
            ctx, state, sequence, weights.0, weights.1, bias, activation, tokens, x.0, x.1, y.0, y.1
        ))
    }),
    call!(kvern_delta_rule, |w, g| {
        let (ctx, state, (count, sequences, rows)) = (w.contexts.any(g), w.states.any(g), sequences(g));
        let (key_heads, decays) = (g.size(KEY_HEADS), g.one_of(&[HEADS, HEADS * KEY_DIM]));
        let keys = key_heads.saturating_mul(KEY_DIM);
        let (q, k, v) = (read(g, rows, keys), read(g, rows, keys), read(g, rows, HEADS * VALUE_DIM));
        let decays = g.size(decays);
        let (decay, beta) = (read(g, rows, decays), read(g, rows, HEADS));
        let (scale, y) = (g.float(0.5) as f32, written(g, rows, HEADS * VALUE_DIM));
        lib!(kvern_delta_rule(
            ctx, state, count, sequences, rows, key_heads, q.0, q.1, k.0, k.1, v.0, v.1, decays, decay.0,
            decay.1, beta.0, beta.1, scale, y.0, y.1
        ))
    }),
    call!(kvern_selective_scan, |w, g| {
        let (ctx, state, (count, sequences, rows)) = (w.contexts.any(g), w.states.any(g), sequences(g));
        let groups = g.size(KEY_HEADS);
        let keys = groups.saturating_mul(KEY_DIM);
        let (x, dt) = (read(g, rows, HEADS * VALUE_DIM), read(g, rows, HEADS));
        let (b, c) = (read(g, rows, keys), read(g, rows, keys));
        let (a, d) = (g.floats(HEADS), g.floats(HEADS));
        let y = written(g, rows, HEADS * VALUE_DIM);
        lib!(kvern_selective_scan(
            ctx, state, count, sequences, rows, groups, x.0, x.1, dt.0, dt.1, b.0, b.1, c.0, c.1, a, d, y.0,
            y.1
        ))
    }),
    call!(kvern_time_step, |w, g| {
        let (rows, n) = (g.one_of(&[0, 1, 3]), g.one_of(&[0, 1, 17]));
        let (rows, n) = (g.size(rows), g.size(n));
        let bias = if g.below(2) == 0 { g.floats(n) } else { std::ptr::null() };
        let factor = if g.below(2) == 0 { g.floats(n) } else { std::ptr::null() };
        let (least, most) = (g.float(0.0) as f32, g.float(1.0) as f32);
        let (ctx, x, y) = (w.contexts.any(g), read(g, rows, n), written(g, rows, n));
        lib!(kvern_time_step(ctx, bias, factor, least, most, rows, n, x.0, x.1, y.0, y.1))
    }),
];
