//! Quantised weights: made, saved, read back, imported, multiplied one by one; blocks.

use super::answers::shape_of_weights;
use super::arguments::Arguments;
use super::products::{Product, dtype, product, read};
use super::world::World;
use super::{Call, call, lib, made};
use kvern::capi::dtype::*;
use kvern::capi::float8::*;
use kvern::capi::import::*;
use kvern::capi::quant::*;
use kvern::capi::status::kvern_status;
use kvern::capi::weights::*;
use kvern::quant::WeightFormat;

fn format(g: &mut Arguments) -> (i32, usize) {
    let format = g.one_of(&WeightFormat::ALL);
    (g.number(format as i32), format.block_len())
}

/// The bytes of blocks, where the library can tell.
fn bytes_of(format: i32, rows: usize, k: usize) -> usize {
    let mut bytes = 0;
    // SAFETY: a live local.
    match unsafe { kvern_blocks_bytes(format, rows, k, &mut bytes) } {
        0 => bytes,
        _ => 36,
    }
}

/// Lengths of groups.
const GROUPS: &[usize] = &[16, 32, 64, 96, 128, 4096];

/// Codes that fit any width.
fn codes(g: &mut Arguments, elements: usize) -> *const u8 {
    let codes: Vec<u8> = (0..elements.min(1 << 14)).map(|_| g.below(4) as u8).collect();
    if elements == codes.len() { g.elements(codes) } else { g.bytes(elements) }
}

/// Scales of a type, or of what is none.
fn scales(g: &mut Arguments, dtype: i32, len: usize) -> *const std::ffi::c_void {
    if dtype == KVERN_DTYPE_F32 { g.floats(len).cast() } else { g.bytes::<u16>(len).cast() }
}

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_weights_quantize, |w, g| {
        let (format, block) = format(g);
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), block * g.below(3));
        let (ctx, n, k) = (w.optional_context(g), g.size(n), g.size(k));
        let x = read(g, n, k);
        made!(w.weights, g, |out| lib!(kvern_weights_quantize(ctx, format, n, k, x.0, x.1, out)))
    }),
    call!(kvern_weights_from_blocks, |w, g| {
        let (format, block) = format(g);
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), block * g.below(3));
        let (ctx, n, k) = (w.optional_context(g), g.size(n), g.size(k));
        let bytes = g.size(bytes_of(format, n, k));
        let blocks = g.bytes::<u8>(bytes);
        made!(w.weights, g, |out| lib!(kvern_weights_from_blocks(ctx, format, n, k, blocks, bytes, out)))
    }),
    call!(kvern_weights_from_block_rows, |w, g| {
        let (format, block) = format(g);
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), block * g.below(3));
        let (ctx, n, k) = (w.optional_context(g), g.size(n), g.size(k));
        let row = bytes_of(format, 1, k) + g.below(3);
        // More bytes than needed are taken: what is said to be there is there.
        let enough = row.saturating_mul(n);
        let bytes = g.size(enough).min(enough);
        let (blocks, row) = (g.bytes::<u8>(bytes), g.size(row));
        made!(w.weights, g, |out| lib!(kvern_weights_from_block_rows(
            ctx, format, n, k, blocks, bytes, row, out
        )))
    }),
    call!(kvern_weights_to_blocks, |w, g| {
        let weights = w.weights.one(g);
        let ((n, k), mut format) = (shape_of_weights(weights), 0);
        kvern_weights_get_format(weights, &mut format);
        let bytes = g.size(bytes_of(format, n, k));
        lib!(kvern_weights_to_blocks(g.handle(weights), g.output(bytes), bytes))
    }),
    call!(kvern_weights_dequantize_row, |w, g| {
        let weights = w.weights.one(g);
        let (n, k) = shape_of_weights(weights);
        let row = g.below(n.max(1));
        let (row, k) = (g.size(row), g.size(k));
        lib!(kvern_weights_dequantize_row(g.handle(weights), row, k, g.output(k)))
    }),
    call!(kvern_weights_bytes, |w, g| lib!(kvern_weights_bytes(w.weights.any(g), g.value()))),
    call!(kvern_weights_workspace_bytes, |w, g| {
        let compute = g.below(2) as i32;
        let (ctx, weights, compute) = (w.contexts.any(g), w.weights.any(g), g.number(compute));
        lib!(kvern_weights_workspace_bytes(ctx, weights, compute, g.size(7), g.value()))
    }),
    call!(kvern_weights_multiply, |w, g| {
        let (weights, compute) = (w.weights.one(g), g.below(2) as i32);
        let Product { m, n, k, a, c, e } = product(g, shape_of_weights(weights), true);
        let (ctx, ws, compute) = (w.contexts.any(g), w.workspaces.enough(g), g.number(compute));
        lib!(kvern_weights_multiply(ctx, ws, g.handle(weights), compute, m, n, k, a.0, a.1, c.0, c.1, e))
    }),
    call!(kvern_weights_destroy, |w, g| {
        let weights = w.weights.take(g);
        lib!(kvern_weights_destroy(if weights.is_null() { g.handle(weights) } else { weights }));
        0
    }),
    call!(kvern_blocks_bytes, |w, g| {
        let (format, block) = format(g);
        lib!(kvern_blocks_bytes(format, g.size(3), g.size(block), g.value()))
    }),
    call!(kvern_blocks_quantize, |w, g| {
        let (format, block) = format(g);
        let len = block * g.below(3);
        let len = g.size(len);
        let bytes = g.size(bytes_of(format, 1, len));
        lib!(kvern_blocks_quantize(format, g.floats(len), len, g.output(bytes), bytes))
    }),
    call!(kvern_blocks_dequantize, |w, g| {
        let (format, block) = format(g);
        let len = block * g.below(3);
        let len = g.size(len);
        let bytes = g.size(bytes_of(format, 1, len));
        lib!(kvern_blocks_dequantize(format, g.bytes(bytes), bytes, g.output(len), len))
    }),
    call!(kvern_weights_save, |w, g| lib!(kvern_weights_save(w.weights.any(g), w.target(g)))),
    call!(kvern_weights_load, |w, g| {
        let (ctx, path) = (w.optional_context(g), {
            let kind = g.one_of(&["weights", "packed"]);
            w.file(g, kind)
        });
        made!(w.weights, g, |out| lib!(kvern_weights_load(ctx, path, out)))
    }),
    call!(kvern_weights_map, |w, g| {
        let path = w.file(g, "weights");
        made!(w.weights, g, |out| lib!(kvern_weights_map(path, out)))
    }),
    call!(kvern_weights_n, |w, g| lib!(kvern_weights_n(w.weights.any(g), g.value()))),
    call!(kvern_weights_k, |w, g| lib!(kvern_weights_k(w.weights.any(g), g.value()))),
    call!(kvern_weights_get_format, |w, g| lib!(kvern_weights_get_format(w.weights.any(g), g.value()))),
    call!(kvern_weights_multiply_gated, |w, g| {
        let (weights, other, compute) = (w.weights.one(g), w.weights.one(g), g.below(2) as i32);
        let up = if g.is_hostile() { other } else { weights };
        let Product { m, n, k, a, c, e } = product(g, shape_of_weights(weights), false);
        let (ctx, ws, compute, up) =
            (w.contexts.any(g), w.workspaces.enough(g), g.number(compute), g.handle(up));
        lib!(kvern_weights_multiply_gated(
            ctx,
            ws,
            g.handle(weights),
            up,
            compute,
            m,
            n,
            k,
            a.0,
            a.1,
            c.0,
            c.1,
            e
        ))
    }),
    call!(kvern_weights_from_groups, |w, g| {
        let (bits, group) = (g.one_of(&[2, 3, 4, 8]), g.one_of(GROUPS));
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), 32 * g.below(6));
        let (n, k) = (g.size(n), g.size(k));
        let groups = n.saturating_mul(k.div_ceil(group));
        let codes = codes(g, n.saturating_mul(k));
        let (scales, zeros) = (g.floats(groups), vec![3u8; groups.min(1 << 14)]);
        let zeros = match g.below(2) {
            0 => std::ptr::null(),
            _ if groups == zeros.len() => g.elements(zeros),
            _ => g.bytes(groups),
        };
        let (ctx, bits, group) = (w.optional_context(g), g.number(bits) as u32, g.size(group));
        made!(w.weights, g, |out| lib!(kvern_weights_from_groups(
            ctx, bits, group, n, k, codes, scales, zeros, out
        )))
    }),
    call!(kvern_weights_from_affine, |w, g| {
        let (bits, group) = (g.one_of(&[2, 3, 4, 5, 6, 8]), g.one_of(GROUPS));
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), 32 * g.below(6));
        let (n, k) = (g.size(n), g.size(k));
        let (groups, dtype) = (n.saturating_mul(k.div_ceil(group)), dtype(g));
        let codes = codes(g, n.saturating_mul(k));
        let (scales, minimums) = (scales(g, dtype, groups), scales(g, dtype, groups));
        let (ctx, bits, group) = (w.optional_context(g), g.number(bits) as u32, g.size(group));
        made!(w.weights, g, |out| lib!(kvern_weights_from_affine(
            ctx, bits, group, n, k, codes, dtype, scales, minimums, out
        )))
    }),
    call!(kvern_weights_from_float8, |w, g| {
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), 32 * g.below(6));
        let (n, k) = (g.size(n), g.size(k));
        let (rows, cols) = (g.one_of(&[1, 4, 128]), g.one_of(&[32, 128, 1 << 20]));
        let (rows, cols) = (g.size(rows), g.size(cols));
        let len = n.div_ceil(rows.max(1)).saturating_mul(k.div_ceil(cols.max(1)));
        let dtype = dtype(g);
        let (codes, scales) = (codes(g, n.saturating_mul(k)), scales(g, dtype, len));
        let (kind, ctx) = (g.below(2) as i32, w.optional_context(g));
        let kind = g.number(kind);
        made!(w.weights, g, |out| lib!(kvern_weights_from_float8(
            ctx, kind, rows, cols, n, k, codes, dtype, scales, out
        )))
    }),
    call!(kvern_weights_from_mxfp8, |w, g| {
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), 32 * g.below(6));
        let (n, k) = (g.size(n), g.size(k));
        let (codes, scales) = (codes(g, n.saturating_mul(k)), g.bytes::<u8>(n.saturating_mul(k / 32)));
        let (kind, ctx) = (g.below(2) as i32, w.optional_context(g));
        let kind = g.number(kind);
        made!(w.weights, g, |out| lib!(kvern_weights_from_mxfp8(ctx, kind, n, k, codes, scales, out)))
    }),
    call!(kvern_weights_from_gptq, |w, g| {
        let (bits, group) = (g.one_of(&[2, 3, 4, 8]), g.one_of(GROUPS));
        let bits = g.number(bits) as u32;
        let words = |len: usize| len.saturating_mul(bits.min(32) as usize) / 32;
        let (n, k) = (g.one_of(&[0, 8, 16, 32]), 32 * g.below(6));
        let (n, k) = (g.size(n), g.size(k));
        let qweight = g.bytes::<i32>(words(k).saturating_mul(n));
        let qzeros = g.bytes::<i32>(k.div_ceil(group).saturating_mul(words(n)));
        let (zeros, dtype) = (g.below(2) as i32, dtype(g));
        let scales = scales(g, dtype, n.saturating_mul(k.div_ceil(group)));
        let order = (0..k.min(1 << 14)).map(|j| (k - 1 - j) as i32 / group as i32).collect::<Vec<_>>();
        let g_idx = match g.below(2) {
            0 => std::ptr::null(),
            _ if k == order.len() => g.elements(order),
            _ => g.bytes(k),
        };
        let (ctx, group, zeros) = (w.optional_context(g), g.size(group), g.number(zeros));
        made!(w.weights, g, |out| lib!(kvern_weights_from_gptq(
            ctx, bits, group, n, k, qweight, qzeros, zeros, dtype, scales, g_idx, out
        )))
    }),
    call!(kvern_weights_from_awq, |w, g| {
        let group = g.one_of(GROUPS);
        let (n, k) = (g.one_of(&[0, 8, 16]), 32 * g.below(6));
        let (n, k) = (g.size(n), g.size(k));
        let qweight = g.bytes::<i32>(k.saturating_mul(n / 8));
        let qzeros = g.bytes::<i32>(k.div_ceil(group).saturating_mul(n / 8));
        let dtype = dtype(g);
        let scales = scales(g, dtype, n.saturating_mul(k.div_ceil(group)));
        let (ctx, group) = (w.optional_context(g), g.size(group));
        made!(w.weights, g, |out| lib!(kvern_weights_from_awq(
            ctx, group, n, k, qweight, qzeros, dtype, scales, out
        )))
    }),
];
