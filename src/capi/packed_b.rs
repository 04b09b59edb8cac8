//! Products with a B that was packed once, of f32, f16 or bf16.

use super::args::{flag, path, put, shared, stored};
use super::context::{kvern_context, with_context};
use super::dtype::{KVERN_DTYPE_F32, KVERN_PRECISION_EXACT, dtype, kvern_dtype, kvern_precision, precision};
use super::matmul::{Operands, kvern_epilogue};
use super::status::{Checked, kvern_status};
use super::workspace::kvern_workspace;
use super::{create, destroy, guard};
use crate::blob;
use crate::buffer::MappedFile;
use crate::matmul::{Element, Weight};
use crate::{Context, Dtype, PackedB, Precision};
use bytemuck::Pod;
use half::{bf16, f16};
use std::ffi::{c_char, c_void};

/// A matrix B of f32, f16 or bf16, packed once and multiplied many times. Immutable.
#[derive(Debug)]
pub struct kvern_packed_b {
    pub(super) b: PackedB,
    /// The kernel's id with its NUL.
    kernel: [u8; 33],
}

impl kvern_packed_b {
    fn new(b: PackedB) -> kvern_packed_b {
        let mut kernel = [0; 33];
        kernel[..32].copy_from_slice(&blob::id(b.kernel_id()));
        kvern_packed_b { b, kernel }
    }
}

/// # Safety
/// - `b` is NULL or points to memory of the stated shape.
unsafe fn pack<T: Weight + Pod>(
    ctx: &Context,
    (k, n): (usize, usize),
    b: *const T,
    b_row_stride: usize,
    transposed: bool,
) -> Checked<kvern_packed_b> {
    // SAFETY: handed on to the caller.
    let b = unsafe { stored("b", b, (k, n), b_row_stride, transposed)?.view()? };
    Ok(kvern_packed_b::new(PackedB::pack(ctx, if transposed { b.t() } else { b })?))
}

/// Packs an f32 B for many products: `kvern_packed_b_pack_dtype` of KVERN_DTYPE_F32.
///
/// `b`: (k, n), f32, row-major, stride in elements; stored (n, k) when `transpose_b` is 1, as weights
/// (out_features, in_features) are. `ctx`: NULL for the machine's best tier and the process's allocator.
/// `out`: receives the object, NULL on failure. Any context may use it.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_pack(
    ctx: *const kvern_context,
    k: usize,
    n: usize,
    b: *const f32,
    b_row_stride: usize,
    transpose_b: i32,
    out: *mut *mut kvern_packed_b,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { kvern_packed_b_pack_dtype(ctx, KVERN_DTYPE_F32, k, n, b.cast(), b_row_stride, transpose_b, out) }
}

/// Packs B for many products, in its own element type: 2 bytes stay 2 bytes. `b` is not needed afterwards.
///
/// `dtype`: a `KVERN_DTYPE_*` number. `b`: (k, n) of that type, row-major, stride in elements; stored (n, k)
/// when `transpose_b` is 1, as weights (out_features, in_features) are. `ctx`: whose tiles the panels are as
/// wide as and whose memory they lie in; NULL for the machine's best tier and the process's allocator. `out`:
/// receives the object, NULL on failure. Any context may use it.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_pack_dtype(
    ctx: *const kvern_context,
    dtype: kvern_dtype,
    k: usize,
    n: usize,
    b: *const c_void,
    b_row_stride: usize,
    transpose_b: i32,
    out: *mut *mut kvern_packed_b,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (dtype, transposed) = (self::dtype("dtype", dtype)?, flag("transpose_b", transpose_b)?);
            with_context(ctx, |ctx| match dtype {
                Dtype::F32 => pack::<f32>(ctx, (k, n), b.cast(), b_row_stride, transposed),
                Dtype::F16 => pack::<f16>(ctx, (k, n), b.cast(), b_row_stride, transposed),
                Dtype::Bf16 => pack::<bf16>(ctx, (k, n), b.cast(), b_row_stride, transposed),
            })
        })
    })
}

/// Writes the packed matrix to a file: a header of 128 bytes with a checksum, and the packed bytes. The file
/// is replaced as a whole: an error leaves the old one, and a matrix that is mapped from it keeps it.
///
/// `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
/// Errors: NULL_POINTER, IO, RESOURCE, UNSUPPORTED (a big-endian machine). Threads: `b` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_save(b: *const kvern_packed_b, path: *const c_char) -> kvern_status {
    // SAFETY: both are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe { Ok(shared("b", b)?.b.save(self::path("path", path)?)?) })
}

/// Reads a matrix that `kvern_packed_b_save` wrote, on any machine, into memory of its own.
///
/// `ctx`: whose memory the object lies in; NULL for the process's allocator. `path`: as for
/// `kvern_packed_b_save`. `out`: receives the object, NULL on failure.
/// Errors: NULL_POINTER, IO (no regular file, for one), BLOB (truncated, too long, foreign, of another
/// version, damaged), RESOURCE, UNSUPPORTED (a big-endian machine). Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_load(
    ctx: *const kvern_context,
    path: *const c_char,
    out: *mut *mut kvern_packed_b,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let path = self::path("path", path)?;
            with_context(ctx, |ctx| Ok(kvern_packed_b::new(PackedB::load_on(ctx, path)?)))
        })
    })
}

/// As `kvern_packed_b_load`, with the file mapped into memory instead of read: nothing is copied, and
/// programs that map one file share its memory. Nobody may write into the file or shorten it while the object
/// lives: a page that is gone ends the process when it is touched. A save to the same path does neither.
///
/// Errors: as `kvern_packed_b_load`; UNSUPPORTED on systems without mmap. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_map(
    path: *const c_char,
    out: *mut *mut kvern_packed_b,
) -> kvern_status {
    // SAFETY: both are NULL or live, `path` ends with a NUL, and nobody changes the file, by the header's
    // contract.
    guard(|| unsafe {
        create(out, || {
            let file = MappedFile::open(self::path("path", path)?)?;
            Ok(kvern_packed_b::new(PackedB::from_mapped(&file)?))
        })
    })
}

/// `*out` = the bytes that the packed matrix holds.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_bytes(b: *const kvern_packed_b, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("b", b)?.b.bytes()) })
}

/// `*out` = k, the rows of B.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_k(b: *const kvern_packed_b, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("b", b)?.b.k()) })
}

/// `*out` = n, the columns of B.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_n(b: *const kvern_packed_b, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("b", b)?.b.n()) })
}

/// `*out` = the element type of B, a `KVERN_DTYPE_*` number.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_dtype(
    b: *const kvern_packed_b,
    out: *mut kvern_dtype,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("b", b)?.b.dtype() as kvern_dtype) })
}

/// `*out` = the id of the kernel that the layout was made for, such as `avx512-f32-6x64`: a text that lives
/// as long as the object.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_kernel_id(
    b: *const kvern_packed_b,
    out: *mut *const c_char,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        put("out", out, std::ptr::null())?;
        put("out", out, shared("b", b)?.kernel.as_ptr().cast())
    })
}

/// `*out` = the bytes of workspace that every product of up to m rows with this B needs, gated ones included.
///
/// Errors: NULL_POINTER, OVERFLOW. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_workspace_bytes(
    ctx: *const kvern_context,
    b: *const kvern_packed_b,
    m: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        let (ctx, b) = (shared("ctx", ctx)?, shared("b", b)?);
        put("out", out, b.b.workspace_bytes(&ctx.context, m)?)
    })
}

/// `C = beta * C + act(alpha * A * B + bias)` in f32: `kvern_packed_b_multiply_with` of KVERN_PRECISION_EXACT
/// and KVERN_DTYPE_F32. With a B of f32 the bits of `kvern_matmul`, sooner.
///
/// `a`: (m, k), `c`: (m, n), f32, row-major, strides in elements; n and k must be those of B. `c` must not
/// overlap the inputs. `epilogue`: NULL for `C = A * B`. Allocates nothing.
/// Errors: as `kvern_matmul`. Threads: `ctx` and `b` shared, `ws` and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_multiply(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    b: *const kvern_packed_b,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    c: *mut f32,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    let operands = Operands { m, n, k, a, a_row_stride, c, c_row_stride, epilogue };
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe { Product::read(ctx, b, KVERN_PRECISION_EXACT)?.into(ws, operands) })
}

/// `C = beta * C + act(alpha * A * B + bias)` with a choice of precision and of the type of C.
///
/// `precision`: a `KVERN_PRECISION_*` number. `a`: (m, k), f32; `c`: (m, n) of `c_dtype`, a `KVERN_DTYPE_*`
/// number: f16 and bf16 are the f32 result rounded once, ties to even. Row-major, strides in elements; n and
/// k must be those of B. `c` must not overlap the inputs. `epilogue`: NULL for `C = A * B`; a beta needs a C
/// of f32. B of f16 or bf16 gives the bits of B widened to f32. Allocates nothing.
/// Errors: as `kvern_matmul`; OPTION for a beta with a C that is not f32. Threads: `ctx` and `b` shared,
/// `ws` and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_multiply_with(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    b: *const kvern_packed_b,
    precision: kvern_precision,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    c_dtype: kvern_dtype,
    c: *mut c_void,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    let operands = Operands { m, n, k, a, a_row_stride, c, c_row_stride, epilogue };
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe { Product::read(ctx, b, precision)?.into_dtype(ws, c_dtype, operands) })
}

/// `C = act(alpha * A * B + bias) * (A * UP)`, the gate of a feed-forward layer in one pass: neither product
/// is written to memory.
///
/// `up`: packed, (k, n) as B. Everything else as for `kvern_packed_b_multiply_with`; the epilogue's
/// activation is usually KVERN_ACTIVATION_SILU, and its beta must be 0.
/// Errors: as `kvern_packed_b_multiply_with`; OPTION for a beta. Threads: `ctx`, `b` and `up` shared, `ws`
/// and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_multiply_gated(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    b: *const kvern_packed_b,
    up: *const kvern_packed_b,
    precision: kvern_precision,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    c_dtype: kvern_dtype,
    c: *mut c_void,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    let operands = Operands { m, n, k, a, a_row_stride, c, c_row_stride, epilogue };
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let up = Some(&shared("up", up)?.b);
        Product { up, ..Product::read(ctx, b, precision)? }.into_dtype(ws, c_dtype, operands)
    })
}

/// What the products of this file have in common.
struct Product<'a> {
    ctx: &'a Context,
    b: &'a PackedB,
    up: Option<&'a PackedB>,
    precision: Precision,
}

impl<'a> Product<'a> {
    /// # Safety
    /// - pointers are NULL or live.
    unsafe fn read(
        ctx: *const kvern_context,
        b: *const kvern_packed_b,
        precision: kvern_precision,
    ) -> Checked<Product<'a>> {
        // SAFETY: handed on to the caller.
        let (ctx, b) = unsafe { (&shared("ctx", ctx)?.context, &shared("b", b)?.b) };
        Ok(Product { ctx, b, up: None, precision: self::precision("precision", precision)? })
    }

    /// # Safety
    /// - as [`Operands::run`].
    unsafe fn into<T: Element>(self, ws: *mut kvern_workspace, operands: Operands<T>) -> Checked<()> {
        let Product { ctx, b, up, precision } = self;
        // SAFETY: handed on to the caller.
        unsafe {
            operands.run(ws, |ws, a, c, e| match up {
                Some(up) => b.multiply_gated(ctx, ws, precision, a, up, c, e),
                None => b.multiply_with(ctx, ws, precision, a, c, e),
            })
        }
    }

    /// # Safety
    /// - as [`Operands::run`], with a result of `dtype`.
    unsafe fn into_dtype(
        self,
        ws: *mut kvern_workspace,
        dtype: kvern_dtype,
        operands: Operands<c_void>,
    ) -> Checked<()> {
        // SAFETY: handed on to the caller.
        unsafe {
            match self::dtype("c_dtype", dtype)? {
                Dtype::F32 => self.into(ws, operands.cast::<f32>()),
                Dtype::F16 => self.into(ws, operands.cast::<f16>()),
                Dtype::Bf16 => self.into(ws, operands.cast::<bf16>()),
            }
        }
    }
}

/// Frees the packed matrix. NULL is a no-op.
///
/// Threads: `b` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_destroy(b: *mut kvern_packed_b) {
    // SAFETY: `b` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(b) }
}
