//! Products of several weights in one call, as layers take them: of shared activations, of heads, of experts.

use super::answers::shape_of_weights;
use super::arguments::Arguments;
use super::products::{ROWS, dtype, epilogue, extent, read, written};
use super::world::{World, defaults};
use super::{Call, call, lib, made};
use kvern::capi::dtype::*;
use kvern::capi::experts::*;
use kvern::capi::heads::*;
use kvern::capi::quant::*;
use kvern::capi::quantized_rows::*;
use kvern::capi::status::kvern_status;
use kvern::capi::weights::*;

/// The weights of some heads, mostly of one shape.
fn heads(w: &mut World, g: &mut Arguments) -> Vec<*const kvern_weights> {
    let first = w.weights.one(g);
    (0..g.one_of(&[0, 1, 1, 2, 5]))
        .map(|_| {
            // Others of the same shape, mostly: of floats beside blocks, too.
            let other = w.weights.one(g);
            let fits = shape_of_weights(other) == shape_of_weights(first) || g.is_hostile();
            g.handle(if fits { other } else { first }).cast_const()
        })
        .collect()
}

/// A few experts of square weights, mostly of one size, so that any matrix fits any place.
fn experts(w: &mut World, g: &mut Arguments) -> Vec<kvern_expert> {
    let square = |g: &mut Arguments| {
        let mut weights = w.weights.one(g);
        for _ in 0..30 {
            if shape_of_weights(weights) == (64, 64) {
                break;
            }
            weights = w.weights.one(g);
        }
        weights
    };
    let (gated, biased) = (g.below(2) == 0, g.below(2) == 0);
    let mut list = Vec::new();
    for _ in 0..1 + g.below(3) {
        let (gate, up, down) = (square(g), square(g), square(g));
        let (rows, results) = (shape_of_weights(gate).0, shape_of_weights(down).0);
        let bias = |g: &mut Arguments, n: usize| if biased { g.floats(n) } else { std::ptr::null() };
        let (up, up_bias) = match gated {
            true => (g.handle(up).cast_const(), bias(g, rows)),
            false => (std::ptr::null(), std::ptr::null()),
        };
        let (gate_bias, down_bias) = (bias(g, rows), bias(g, results));
        let (gate, down) = (g.handle(gate).cast_const(), g.handle(down).cast_const());
        list.push(kvern_expert { gate, up, down, gate_bias, up_bias, down_bias });
    }
    list
}

fn expert_options(g: &mut Arguments) -> kvern_expert_options {
    let mut options = defaults::<kvern_expert_options>();
    let (compute, activation, weigh) = (g.below(2) as i32, g.below(11) as i32, g.below(2) as i32);
    (options.compute, options.activation) = (g.number(compute), g.number(activation));
    if g.below(3) == 0 {
        (options.oai_limit, options.oai_alpha) = (g.float(7.0) as f32, g.float(1.702) as f32);
    }
    (options.weigh_input, options.flags) = (g.flag(weigh), g.number(0) as u32);
    options
}

/// One of `count` products of m rows, gated now and then.
unsafe fn one_of(
    g: &mut Arguments,
    m: usize,
    count: usize,
    weights: *mut kvern_weights,
) -> kvern_weights_product {
    let n = g.size(shape_of_weights(weights).0);
    let (c, c_row_stride) = written(g, m, n);
    let up = if g.below(4) == 0 { weights.cast_const() } else { std::ptr::null() };
    // SAFETY: plain options, of which there are buffers enough.
    let epilogue = if count < 8 { unsafe { epilogue(g, n, false) } } else { std::ptr::null() };
    kvern_weights_product { weights: g.handle(weights), up, c, c_row_stride, n, epilogue }
}

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_weights_many_workspace_bytes, |w, g| {
        let count = g.below(5);
        let weights: Vec<_> = (0..count).map(|_| w.weights.any(g).cast_const()).collect();
        let (list, compute) = (g.structs(&weights), g.below(2) as i32);
        let (ctx, compute) = (w.contexts.any(g), g.number(compute));
        lib!(kvern_weights_many_workspace_bytes(ctx, compute, g.size(7), count, list, g.value()))
    }),
    call!(kvern_weights_multiply_many, |w, g| {
        let (m, compute, count) = (g.one_of(ROWS), g.below(2) as i32, g.one_of(&[0, 1, 2, 3, 4, 17]));
        let first = w.weights.one(g);
        let (m, k) = (g.size(m), g.size(shape_of_weights(first).1));
        let mut products = Vec::new();
        for _ in 0..count {
            // Others of the same k, mostly.
            let mut weights = first;
            for _ in 0..8 {
                let other = w.weights.one(g);
                if shape_of_weights(other).1 == k || g.is_hostile() {
                    weights = other;
                    break;
                }
            }
            products.push(one_of(g, m, count, weights));
        }
        let (a, products) = (read(g, m, k), g.structs(&products));
        let (ctx, ws, compute) = (w.contexts.any(g), w.workspaces.enough(g), g.number(compute));
        lib!(kvern_weights_multiply_many(ctx, ws, compute, m, k, a.0, a.1, count, products))
    }),
    call!(kvern_quantized_rows_create, |w, g| {
        let (most, ctx) = (g.one_of(ROWS), w.optional_context(g));
        let (most, mut k) = (g.size(most), g.size(64));
        if k != 64 {
            k |= 1; // refused: all calls are about rows of 64
        }
        made!(w.rows, g, |out| lib!(kvern_quantized_rows_create(ctx, most, k, out)))
    }),
    call!(kvern_quantized_rows_quantize, |w, g| {
        let (m, dtype) = (g.one_of(ROWS), dtype(g));
        let (m, k) = (g.size(m), g.size(64));
        let stride = g.stride(k);
        let elements = extent(m, k, stride).saturating_mul(if dtype == KVERN_DTYPE_F32 { 2 } else { 1 });
        let a = g.bytes::<u16>(elements);
        let (ctx, rows) = (w.contexts.any(g), w.rows.any(g));
        lib!(kvern_quantized_rows_quantize(ctx, rows, m, k, dtype, a.cast(), stride))
    }),
    call!(kvern_quantized_rows_set, |w, g| {
        let m = g.one_of(ROWS);
        let (m, k) = (g.size(m), g.size(64));
        let elements = m.saturating_mul(k);
        let codes: Vec<i8> = (0..elements.min(1 << 14)).map(|_| (g.below(255) as i32 - 127) as i8).collect();
        let codes = if elements == codes.len() { g.elements(codes) } else { g.bytes(elements) };
        let scales = g.floats(m);
        let (ctx, rows) = (w.contexts.any(g), w.rows.any(g));
        lib!(kvern_quantized_rows_set(ctx, rows, m, k, codes, scales))
    }),
    call!(kvern_quantized_rows_multiply, |w, g| {
        let hostile = g.may_be_hostile();
        let (m, count) = match hostile {
            true => (g.one_of(ROWS), g.one_of(&[0, 1, 2, 3, 17])),
            false => (5, g.below(4)), // what the first rows of the world hold
        };
        let m = g.size(m);
        let mut products = Vec::new();
        for _ in 0..count {
            let mut weights = w.weights.one(g);
            for _ in 0..if hostile { 0 } else { 30 } {
                let mut format = 0;
                kvern_weights_get_format(weights, &mut format);
                if shape_of_weights(weights).1 == 64 && ![0, 1, 30, -2].contains(&format) {
                    break;
                }
                weights = w.weights.one(g);
            }
            products.push(one_of(g, m, count, weights));
        }
        let rows = if hostile { w.rows.any(g) } else { w.rows.first() };
        let (ctx, ws) = (w.contexts.any(g), w.workspaces.enough(g));
        let products = g.structs(&products);
        lib!(kvern_quantized_rows_multiply(ctx, ws, rows, m, count, products))
    }),
    call!(kvern_quantized_rows_destroy, |w, g| {
        let rows = w.rows.take(g);
        lib!(kvern_quantized_rows_destroy(if rows.is_null() { g.handle(rows) } else { rows }));
        0
    }),
    call!(kvern_weights_heads_workspace_bytes, |w, g| {
        let heads = heads(w, g);
        let (list, compute) = (g.structs(&heads), g.below(2) as i32);
        let (ctx, compute, m) = (w.contexts.any(g), g.number(compute), g.size(7));
        lib!(kvern_weights_heads_workspace_bytes(ctx, compute, m, heads.len(), list, g.value()))
    }),
    call!(kvern_weights_multiply_heads, |w, g| {
        let (heads, m, compute) = (heads(w, g), g.one_of(ROWS), g.below(2) as i32);
        let (n, k) = match heads.first() {
            Some(first) if !first.is_null() && first.is_aligned() => shape_of_weights(first.cast_mut()),
            _ => (5, 64),
        };
        let (m, n, k) = (g.size(m), g.size(n), g.size(k));
        let (a_gap, c_gap) = (g.below(3), g.below(3));
        let (a_stride, c_stride) = (g.size(k.saturating_add(a_gap)), g.size(n.saturating_add(c_gap)));
        let columns = |stride: usize, width: usize| {
            let last = heads.len().saturating_sub(1).saturating_mul(stride);
            last.saturating_add(width)
        };
        let (a, c) = (read(g, m, columns(a_stride, k)), written(g, m, columns(c_stride, n)));
        let (ctx, ws, compute) = (w.contexts.any(g), w.workspaces.enough(g), g.number(compute));
        let (count, list) = (heads.len(), g.structs(&heads));
        lib!(kvern_weights_multiply_heads(
            ctx, ws, compute, m, count, list, k, a.0, a.1, a_stride, n, c.0, c.1, c_stride
        ))
    }),
    call!(kvern_experts_workspace_bytes, |w, g| {
        let experts = experts(w, g);
        let (options, list) = (expert_options(g), g.structs(&experts));
        let (ctx, tokens, chosen) = (w.contexts.any(g), g.size(7), g.size(2));
        let (options, count) = (g.options(&options, false), experts.len());
        lib!(kvern_experts_workspace_bytes(ctx, options, count, list, tokens, chosen, g.value()))
    }),
    call!(kvern_experts_multiply, |w, g| {
        let (experts, tokens, chosen) = (experts(w, g), g.one_of(ROWS), g.one_of(&[0, 1, 3]));
        let (tokens, chosen) = (g.size(tokens), g.size(chosen));
        let shape = |weights: *const kvern_weights, g: &mut Arguments| {
            let good = !weights.is_null() && weights.is_aligned();
            let (n, k) = if good { shape_of_weights(weights.cast_mut()) } else { (5, 64) };
            (g.size(n), g.size(k))
        };
        let (hidden, n) = match experts.first() {
            Some(expert) => (shape(expert.gate, g).1, shape(expert.down, g).0),
            None => (64, 64),
        };
        let (options, list, count) = (expert_options(g), g.structs(&experts), experts.len());
        let (x, len) = (read(g, tokens, hidden), tokens.saturating_mul(chosen));
        let indices = match len {
            0..64 => {
                let indices = (0..len).map(|_| g.below(count.max(1)) as u32).collect();
                g.elements(indices)
            }
            _ => g.bytes(len),
        };
        let (weights, out) = (g.floats(len), written(g, tokens, n));
        let (ctx, ws, options) = (w.contexts.any(g), w.workspaces.enough(g), g.options(&options, false));
        lib!(kvern_experts_multiply(
            ctx, ws, options, count, list, tokens, hidden, x.0, x.1, chosen, indices, weights, n, out.0,
            out.1
        ))
    }),
];
