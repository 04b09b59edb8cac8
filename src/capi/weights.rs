//! Products that share activations, gates and files of quantised weights.

use super::args::{Array, Span, check, exclusive, path, put, shared};
use super::context::{kvern_context, with_context};
use super::matmul::{Finish, Operands, kvern_epilogue};
use super::quant::{compute, kvern_compute, kvern_weight_format, kvern_weights};
use super::status::{Checked, kvern_status};
use super::workspace::kvern_workspace;
use super::{create, guard};
use crate::buffer::MappedFile;
use crate::error::{Error, text};
use crate::quant::{PackedWeights, Product, multiply_many, workspace_bytes_each};
use crate::{Context, MatMut};
use std::ffi::c_char;

/// What `kvern_weights_get_format` says of weights that are no blocks of a format: codes in groups.
pub const KVERN_WEIGHT_FORMAT_GROUPS: kvern_weight_format = -1;
/// The same of floats of 8 bits.
pub const KVERN_WEIGHT_FORMAT_FLOAT8: kvern_weight_format = -2;

/// The most products of one `kvern_weights_multiply_many`.
pub const KVERN_WEIGHTS_MAX_PRODUCTS: usize = 16;

/// One of the products that share their activations. Its layout is final.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_weights_product {
    /// W (n output features, k input features).
    pub weights: *const kvern_weights,
    /// U of a gated product, C = act(alpha * A * W^T + bias) * (A * U^T), of W's shape; NULL for none.
    pub up: *const kvern_weights,
    /// C, (m, n), f32. Must overlap neither an input nor the C of another product.
    pub c: *mut f32,
    /// Elements from one row of C to the next one.
    pub c_row_stride: usize,
    /// Columns of C: output features of the weights.
    pub n: usize,
    /// NULL for `C = A * W^T`.
    pub epilogue: *const kvern_epilogue,
}

/// Writes the weights to a file: a header of 128 bytes with a checksum, and the packed bytes. The file is
/// replaced as a whole: an error leaves the old one, and weights that are mapped from it keep it.
///
/// `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
/// Errors: NULL_POINTER, IO, RESOURCE, UNSUPPORTED (single floats on a big-endian machine). Threads:
/// `weights` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_save(
    weights: *const kvern_weights,
    path: *const c_char,
) -> kvern_status {
    // SAFETY: both are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe { Ok(shared("weights", weights)?.0.save(self::path("path", path)?)?) })
}

/// Reads weights that `kvern_weights_save` wrote, on any machine, into memory of their own.
///
/// `ctx`: whose memory the object lies in; NULL for the process's allocator. `out`: receives the object, NULL
/// on failure.
/// Errors: NULL_POINTER, IO (no regular file, for one), BLOB (truncated, too long, foreign, of another
/// version, damaged), RESOURCE, UNSUPPORTED (single floats on a big-endian machine). Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_load(
    ctx: *const kvern_context,
    path: *const c_char,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let path = self::path("path", path)?;
            with_context(ctx, |ctx| Ok(kvern_weights(PackedWeights::load_on(ctx, path)?)))
        })
    })
}

/// As `kvern_weights_load`, with the file mapped into memory instead of read: nothing is copied, and programs
/// that map one file share its memory. Nobody may write into the file or shorten it while the object lives: a
/// page that is gone ends the process when it is touched. A save to the same path does neither.
///
/// Errors: as `kvern_weights_load`; UNSUPPORTED on systems without mmap. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_map(
    path: *const c_char,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: both are NULL or live, `path` ends with a NUL, and nobody changes the file, by the header's
    // contract.
    guard(|| unsafe {
        create(out, || {
            let file = MappedFile::open(self::path("path", path)?)?;
            Ok(kvern_weights(PackedWeights::from_mapped(&file)?))
        })
    })
}

/// `*out` = n, the output features (rows of W).
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_n(weights: *const kvern_weights, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("weights", weights)?.0.n()) })
}

/// `*out` = k, the input features (columns of W).
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_k(weights: *const kvern_weights, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("weights", weights)?.0.k()) })
}

/// `*out` = the format, a `KVERN_WEIGHT_FORMAT_*` number; KVERN_WEIGHT_FORMAT_GROUPS for codes in groups,
/// KVERN_WEIGHT_FORMAT_FLOAT8 for floats of 8 bits.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_get_format(
    weights: *const kvern_weights,
    out: *mut kvern_weight_format,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        let weights = &shared("weights", weights)?.0;
        let format = match weights.format() {
            Some(format) => format as kvern_weight_format,
            None if weights.takes_int8() => KVERN_WEIGHT_FORMAT_GROUPS,
            None => KVERN_WEIGHT_FORMAT_FLOAT8,
        };
        put("out", out, format)
    })
}

/// `C = act(alpha * A * W^T + bias) * (A * UP^T)`, the gate of a feed-forward layer in one pass: activations
/// are quantised once, and neither product is written to memory.
///
/// `up`: of the shape of `weights`, of any format of blocks (or of floats, like these). Everything else as
/// for
/// `kvern_weights_multiply`; the epilogue's activation is usually KVERN_ACTIVATION_SILU, and its beta must be
/// 0. For weights of two formats ask `kvern_weights_many_workspace_bytes`.
/// Errors: as `kvern_weights_multiply`; OPTION for a beta. Threads: `ctx`, `weights` and `up` shared, `ws`
/// and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_multiply_gated(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    weights: *const kvern_weights,
    up: *const kvern_weights,
    compute: kvern_compute,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    c: *mut f32,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, w, up) = (shared("ctx", ctx)?, shared("weights", weights)?, shared("up", up)?);
        let compute = self::compute(compute)?;
        let operands = Operands::<f32> { m, n, k, a, a_row_stride, c, c_row_stride, epilogue };
        operands.run(ws, |ws, a, c, e| w.0.multiply_gated(&ctx.context, ws, compute, a, &up.0, c, e))
    })
}

/// `*out` = the bytes of workspace that `kvern_weights_multiply_many` of up to m rows needs with these
/// weights, gated or not.
///
/// `weights`: count pointers, those of every `up` among them.
/// Errors: NULL_POINTER, MISALIGNED, OPTION, OVERFLOW. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_many_workspace_bytes(
    ctx: *const kvern_context,
    compute: kvern_compute,
    m: usize,
    count: usize,
    weights: *const *const kvern_weights,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, compute) = (shared("ctx", ctx)?, self::compute(compute)?);
        check("weights", weights, count)?;
        let one = |i| -> Checked<&PackedWeights> { Ok(&shared("weights[i]", *weights.add(i))?.0) };
        put("out", out, workspace_bytes_each(&ctx.context, m, compute, (0..count).map(one))?)
    })
}

/// Several products with the same activations, such as q, k, v or gate and up: the bits of separate calls,
/// with the activations quantised once, and threads that meet once.
///
/// `a`: (m, k), f32, row-major, stride in elements. `products`: count of them, at most
/// KVERN_WEIGHTS_MAX_PRODUCTS, all with the same k; formats may differ. Allocates nothing.
/// Errors: as `kvern_weights_multiply` and `kvern_weights_multiply_gated`; nothing is changed then.
/// Threads: `ctx` and weights shared, `ws` and each C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_multiply_many(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    compute: kvern_compute,
    m: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    count: usize,
    products: *const kvern_weights_product,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, ws, compute) = (shared("ctx", ctx)?, exclusive("ws", ws)?, self::compute(compute)?);
        let a = Array::matrix("a", a, m, k, a_row_stride)?;
        with_products(m, count, products, &[a.span()], |list| {
            let (ctx, a): (&Context, _) = (&ctx.context, a.view()?);
            Ok(ws.0.change("ws", |ws| multiply_many(ctx, ws, compute, a, list))??)
        })
    })
}

/// Checks the products of `m` rows and hands them to `call`; does nothing for none. Their results must not
/// overlap `inputs`.
///
/// # Safety
/// - pointers are NULL or live, and their shapes are true; results are used by nothing else.
pub(super) unsafe fn with_products(
    m: usize,
    count: usize,
    products: *const kvern_weights_product,
    inputs: &[Span],
    call: impl FnOnce(&mut [Product<'_>]) -> Checked<()>,
) -> Checked<()> {
    check("products", products, count)?;
    if count > KVERN_WEIGHTS_MAX_PRODUCTS {
        let (what, got, allowed) = ("count", text(count), "at most 16");
        return Err(Error::Option { what, got, allowed }.into());
    }
    if count == 0 {
        return Ok(());
    }
    // SAFETY: handed on to the caller.
    unsafe {
        let raw = std::slice::from_raw_parts(products, count);
        // All is checked before the first view of an output is made: two of them may be the same memory.
        let output = |p: &kvern_weights_product| Array::matrix("c", p.c, m, p.n, p.c_row_stride);
        for (i, p) in raw.iter().enumerate() {
            shared("weights", p.weights)?;
            let mut c = output(p)?.apart_from(inputs)?;
            for (j, q) in raw.iter().enumerate() {
                c = c.apart_from(&[Finish::read(q.epilogue, q.n)?.span()])?;
                if j != i {
                    c = c.apart_from(&[output(q)?.span()])?;
                }
            }
        }
        // Those beyond `count` are never looked at: an array on the stack instead of an allocation.
        let spare = &shared("weights", raw[0].weights)?.0;
        let mut list: [Product<'_>; KVERN_WEIGHTS_MAX_PRODUCTS] =
            std::array::from_fn(|_| Product::new(spare, MatMut::empty()));
        for (p, product) in raw.iter().zip(&mut list) {
            product.weights = &shared("weights", p.weights)?.0;
            product.c = output(p)?.view_mut()?;
            product.epilogue = Finish::read(p.epilogue, p.n)?.get();
            if !p.up.is_null() {
                product.up = Some(&shared("up", p.up)?.0);
            }
        }
        call(&mut list[..count])
    }
}
