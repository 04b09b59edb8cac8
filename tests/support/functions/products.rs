//! Products, packed matrices and quantised weights.

use super::arguments::Arguments;
use super::world::{World, defaults, shape_of_packed, shape_of_weights};
use super::{Call, call, lib, made};
use kvern::capi::dtype::*;
use kvern::capi::experts::*;
use kvern::capi::heads::*;
use kvern::capi::import::*;
use kvern::capi::matmul::*;
use kvern::capi::packed_b::*;
use kvern::capi::patches::*;
use kvern::capi::quant::*;
use kvern::capi::quantized_rows::*;
use kvern::capi::status::kvern_status;
use kvern::capi::weights::*;
use kvern::quant::WeightFormat;

/// Rows of A.
const ROWS: &[usize] = &[0, 1, 2, 5, 9];

/// An epilogue for n columns, or NULL.
unsafe fn epilogue(g: &mut Arguments, n: usize, beta: bool) -> *const kvern_epilogue {
    let mut e = defaults::<kvern_epilogue>();
    e.alpha = g.one_of(&[0.0, 1.0, -0.5]);
    if beta || g.is_hostile() {
        e.beta = g.one_of(&[0.0, 1.0, 0.25]);
    }
    if g.below(2) == 0 {
        e.bias = g.floats(n);
    }
    let activation = g.below(4) as i32;
    (e.activation, e.flags) = (g.number(activation), g.number(0) as u32);
    g.options(&e, true)
}

/// (rows, cols) with a stride: elements from the first to the last.
pub fn extent(rows: usize, cols: usize, stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1).saturating_mul(stride).saturating_add(cols) }
}

/// A matrix to be read, and its stride.
pub fn read(g: &mut Arguments, rows: usize, cols: usize) -> (*const f32, usize) {
    let stride = g.stride(cols);
    (g.floats(extent(rows, cols, stride)), stride)
}

/// A matrix to be written, and its stride.
pub fn written(g: &mut Arguments, rows: usize, cols: usize) -> (*mut f32, usize) {
    let stride = g.stride(cols);
    (g.changed(extent(rows, cols, stride)), stride)
}

/// Elements of 2 or 4 bytes to be read, and their stride.
fn read_dtype(g: &mut Arguments, dtype: i32, rows: usize, cols: usize) -> (*const std::ffi::c_void, usize) {
    if dtype == KVERN_DTYPE_F32 {
        let (x, stride) = read(g, rows, cols);
        return (x.cast(), stride);
    }
    let stride = g.stride(cols);
    (g.bytes::<u16>(extent(rows, cols, stride)).cast(), stride)
}

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

/// The arguments of a product with weights of this shape.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: (*const f32, usize),
    c: (*mut f32, usize),
    e: *const kvern_epilogue,
}

unsafe fn product(g: &mut Arguments, (n, k): (usize, usize), beta: bool) -> Product {
    let m = g.one_of(ROWS);
    let (m, n, k) = (g.size(m), g.size(n), g.size(k));
    // SAFETY: the epilogue lies in a buffer.
    Product { m, n, k, a: read(g, m, k), c: written(g, m, n), e: unsafe { epilogue(g, n, beta) } }
}

/// The C of another type.
fn output(g: &mut Arguments, dtype: i32, m: usize, n: usize) -> (*mut std::ffi::c_void, usize) {
    if dtype == KVERN_DTYPE_F32 {
        let (c, stride) = written(g, m, n);
        return (c.cast(), stride);
    }
    let stride = g.stride(n);
    (g.output::<u16>(extent(m, n, stride)).cast(), stride)
}

fn dtype(g: &mut Arguments) -> i32 {
    let dtype = g.one_of(&[KVERN_DTYPE_F32, KVERN_DTYPE_F16, KVERN_DTYPE_BF16]);
    g.number(dtype)
}

/// Patches of `k` elements, mostly.
fn patches(g: &mut Arguments, k: usize) -> kvern_patches {
    let mut p = defaults::<kvern_patches>();
    let width = if k.is_multiple_of(2) { 2 } else { 1 };
    (p.images, p.height, p.width) = (g.one_of(&[0, 1, 2]), g.one_of(&[1, 3]), g.one_of(&[2, 5]));
    (p.kernel_height, p.kernel_width, p.channels) = (1, width, k / width);
    (p.stride_x, p.padding_x) = (g.below(3), g.below(2));
    for number in [&mut p.images, &mut p.height, &mut p.width, &mut p.kernel_height, &mut p.kernel_width] {
        *number = g.size(*number);
    }
    for number in [&mut p.channels, &mut p.stride_x, &mut p.padding_y] {
        *number = g.size(*number);
    }
    p
}

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

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_matmul_workspace_bytes, |w, g| {
        lib!(kvern_matmul_workspace_bytes(w.contexts.any(g), g.size(5), g.size(64), g.size(64), g.value()))
    }),
    call!(kvern_matmul, |w, g| {
        let (n, k) = (g.one_of(&[0, 1, 17, 64]), g.one_of(&[0, 1, 31, 64]));
        let m = g.one_of(ROWS);
        let (m, n, k) = (g.size(m), g.size(n), g.size(k));
        let (c, e) = (written(g, m, n), epilogue(g, n, true));
        let (ta, tb) = (g.below(2) as i32, g.below(2) as i32);
        let a = if ta == 1 { read(g, k, m) } else { read(g, m, k) };
        let b = if tb == 1 { read(g, n, k) } else { read(g, k, n) };
        let (ctx, ws, ta, tb) = (w.contexts.any(g), w.workspaces.enough(g), g.flag(ta), g.flag(tb));
        lib!(kvern_matmul(ctx, ws, m, n, k, a.0, a.1, ta, b.0, b.1, tb, c.0, c.1, e))
    }),
    call!(kvern_packed_b_pack, |w, g| {
        let (k, n, t) = (g.one_of(&[0, 1, 64]), g.one_of(&[0, 5, 17]), g.below(2) as i32);
        let (k, n) = (g.size(k), g.size(n));
        let b = if t == 1 { read(g, n, k) } else { read(g, k, n) };
        let (ctx, t) = (w.optional_context(g), g.flag(t));
        made!(w.packed, g, |out| lib!(kvern_packed_b_pack(ctx, k, n, b.0, b.1, t, out)))
    }),
    call!(kvern_packed_b_pack_dtype, |w, g| {
        let (k, n, t) = (g.one_of(&[0, 1, 31, 64]), g.one_of(&[0, 5, 17]), g.below(2) as i32);
        let (k, n, dtype) = (g.size(k), g.size(n), dtype(g));
        let b = if t == 1 { read_dtype(g, dtype, n, k) } else { read_dtype(g, dtype, k, n) };
        let (ctx, t) = (w.optional_context(g), g.flag(t));
        made!(w.packed, g, |out| lib!(kvern_packed_b_pack_dtype(ctx, dtype, k, n, b.0, b.1, t, out)))
    }),
    call!(kvern_packed_b_save, |w, g| lib!(kvern_packed_b_save(w.packed.any(g), w.target(g)))),
    call!(kvern_packed_b_load, |w, g| {
        let (ctx, path) = (w.optional_context(g), w.file(g, "packed"));
        made!(w.packed, g, |out| lib!(kvern_packed_b_load(ctx, path, out)))
    }),
    call!(kvern_packed_b_map, |w, g| {
        let path = w.file(g, "packed");
        made!(w.packed, g, |out| lib!(kvern_packed_b_map(path, out)))
    }),
    call!(kvern_packed_b_bytes, |w, g| lib!(kvern_packed_b_bytes(w.packed.any(g), g.value()))),
    call!(kvern_packed_b_k, |w, g| lib!(kvern_packed_b_k(w.packed.any(g), g.value()))),
    call!(kvern_packed_b_n, |w, g| lib!(kvern_packed_b_n(w.packed.any(g), g.value()))),
    call!(kvern_packed_b_dtype, |w, g| lib!(kvern_packed_b_dtype(w.packed.any(g), g.value()))),
    call!(kvern_packed_b_kernel_id, |w, g| lib!(kvern_packed_b_kernel_id(w.packed.any(g), g.value()))),
    call!(kvern_packed_b_workspace_bytes, |w, g| {
        lib!(kvern_packed_b_workspace_bytes(w.contexts.any(g), w.packed.any(g), g.size(7), g.value()))
    }),
    call!(kvern_packed_b_multiply, |w, g| {
        let b = w.packed.one(g);
        let Product { m, n, k, a, c, e } = product(g, shape_of_packed(b), true);
        let (ctx, ws, b) = (w.contexts.any(g), w.workspaces.enough(g), g.handle(b));
        lib!(kvern_packed_b_multiply(ctx, ws, b, m, n, k, a.0, a.1, c.0, c.1, e))
    }),
    call!(kvern_packed_b_multiply_with, |w, g| {
        let b = w.packed.one(g);
        let (precision, dtype) = (g.below(2) as i32, dtype(g));
        let Product { m, n, k, a, e, .. } = product(g, shape_of_packed(b), dtype == KVERN_DTYPE_F32);
        let (c, precision) = (output(g, dtype, m, n), g.number(precision));
        let (ctx, ws, b) = (w.contexts.any(g), w.workspaces.enough(g), g.handle(b));
        lib!(kvern_packed_b_multiply_with(ctx, ws, b, precision, m, n, k, a.0, a.1, dtype, c.0, c.1, e))
    }),
    call!(kvern_packed_b_multiply_gated, |w, g| {
        let (b, other) = (w.packed.one(g), w.packed.one(g));
        let up = if g.is_hostile() { other } else { b };
        let (precision, dtype) = (g.below(2) as i32, dtype(g));
        let Product { m, n, k, a, e, .. } = product(g, shape_of_packed(b), false);
        let (c, precision) = (output(g, dtype, m, n), g.number(precision));
        let (ctx, ws, b, up) = (w.contexts.any(g), w.workspaces.enough(g), g.handle(b), g.handle(up));
        lib!(kvern_packed_b_multiply_gated(ctx, ws, b, up, precision, m, n, k, a.0, a.1, dtype, c.0, c.1, e))
    }),
    call!(kvern_patches_count, |w, g| {
        let patches = patches(g, 64);
        lib!(kvern_patches_count(g.options(&patches, false), g.value()))
    }),
    call!(kvern_packed_b_convolve, |w, g| {
        let b = w.packed.one(g);
        let (n, k) = shape_of_packed(b);
        let (patches, n) = (patches(g, k), g.size(n));
        let mut rows = 0;
        kvern_patches_count(&patches, &mut rows);
        let pixels = patches.images.saturating_mul(patches.height).saturating_mul(patches.width);
        let (x, c) = (read(g, pixels, patches.channels), written(g, rows, n));
        let e = epilogue(g, n, true);
        let (ctx, ws, b, patches) =
            (w.contexts.any(g), w.workspaces.enough(g), g.handle(b), g.options(&patches, false));
        lib!(kvern_packed_b_convolve(ctx, ws, b, patches, x.0, x.1, n, c.0, c.1, e))
    }),
    call!(kvern_packed_b_destroy, |w, g| {
        let b = w.packed.take(g);
        lib!(kvern_packed_b_destroy(if b.is_null() { g.handle(b) } else { b }));
        0
    }),
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
            let n = g.size(shape_of_weights(weights).0);
            let (c, c_row_stride) = written(g, m, n);
            let up = if g.below(4) == 0 { weights.cast_const() } else { std::ptr::null() };
            let e = if count < 8 { epilogue(g, n, false) } else { std::ptr::null() };
            let weights = g.handle(weights);
            products.push(kvern_weights_product { weights, up, c, c_row_stride, n, epilogue: e });
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
                if shape_of_weights(weights).1 == 64 && ![0, 1, 30].contains(&format) {
                    break;
                }
                weights = w.weights.one(g);
            }
            let n = g.size(shape_of_weights(weights).0);
            let (c, c_row_stride) = written(g, m, n);
            let up = if g.below(4) == 0 { weights.cast_const() } else { std::ptr::null() };
            let e = if count < 8 { epilogue(g, n, false) } else { std::ptr::null() };
            let weights = g.handle(weights);
            products.push(kvern_weights_product { weights, up, c, c_row_stride, n, epilogue: e });
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
    call!(kvern_weights_from_groups, |w, g| {
        let (bits, group) = (g.one_of(&[4, 8]), g.one_of(&[32, 64, 128]));
        let (n, k) = (g.one_of(&[0, 1, 5, 17]), group * g.below(3));
        let (n, k) = (g.size(n), g.size(k));
        let (elements, groups) = (n.saturating_mul(k), n.saturating_mul(k / group));
        let codes: Vec<u8> = (0..elements.min(1 << 14)).map(|_| g.below(8) as u8).collect();
        let codes = if elements == codes.len() { g.elements(codes) } else { g.bytes(elements) };
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
    call!(kvern_weights_from_gptq, |w, g| {
        let (bits, group) = (g.one_of(&[4, 8]), g.one_of(&[32, 64, 128]));
        let bits = g.number(bits) as u32;
        let per = if bits == 8 { 4 } else { 8 };
        let (n, k) = (g.one_of(&[0, 8, 16]), group * g.below(3));
        let (n, k) = (g.size(n), g.size(k));
        let qweight = g.bytes::<i32>((k / per).saturating_mul(n));
        let qzeros = g.bytes::<i32>((k / group).saturating_mul(n / per));
        let (zeros, dtype) = (g.below(2) as i32, dtype(g));
        let groups = n.saturating_mul(k / group);
        let scales = match dtype == KVERN_DTYPE_F32 {
            true => g.floats(groups).cast(),
            false => g.bytes::<u16>(groups).cast(),
        };
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
        let group = g.one_of(&[32, 64, 128]);
        let (n, k) = (g.one_of(&[0, 8, 16]), group * g.below(3));
        let (n, k) = (g.size(n), g.size(k));
        let qweight = g.bytes::<i32>(k.saturating_mul(n / 8));
        let qzeros = g.bytes::<i32>((k / group).saturating_mul(n / 8));
        let (dtype, groups) = (dtype(g), n.saturating_mul(k / group));
        let scales = match dtype == KVERN_DTYPE_F32 {
            true => g.floats(groups).cast(),
            false => g.bytes::<u16>(groups).cast(),
        };
        let (ctx, group) = (w.optional_context(g), g.size(group));
        made!(w.weights, g, |out| lib!(kvern_weights_from_awq(
            ctx, group, n, k, qweight, qzeros, dtype, scales, out
        )))
    }),
];
