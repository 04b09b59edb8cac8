//! Products and packed matrices.

use super::answers::shape_of_packed;
use super::arguments::Arguments;
use super::world::{World, defaults};
use super::{Call, call, lib, made};
use kvern::capi::dtype::*;
use kvern::capi::matmul::*;
use kvern::capi::packed_b::*;
use kvern::capi::patches::*;
use kvern::capi::status::kvern_status;

/// Rows of A.
pub const ROWS: &[usize] = &[0, 1, 2, 5, 9];

/// An epilogue for n columns, or NULL.
pub unsafe fn epilogue(g: &mut Arguments, n: usize, beta: bool) -> *const kvern_epilogue {
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

/// The arguments of a product with weights of this shape.
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: (*const f32, usize),
    pub c: (*mut f32, usize),
    pub e: *const kvern_epilogue,
}

pub unsafe fn product(g: &mut Arguments, (n, k): (usize, usize), beta: bool) -> Product {
    let m = g.one_of(ROWS);
    let (m, n, k) = (g.size(m), g.size(n), g.size(k));
    // SAFETY: the epilogue lies in a buffer.
    Product { m, n, k, a: read(g, m, k), c: written(g, m, n), e: unsafe { epilogue(g, n, beta) } }
}

/// The C of another type.
pub fn output(g: &mut Arguments, dtype: i32, m: usize, n: usize) -> (*mut std::ffi::c_void, usize) {
    if dtype == KVERN_DTYPE_F32 {
        let (c, stride) = written(g, m, n);
        return (c.cast(), stride);
    }
    let stride = g.stride(n);
    (g.output::<u16>(extent(m, n, stride)).cast(), stride)
}

pub fn dtype(g: &mut Arguments) -> i32 {
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
];
