//! Activations that are quantised once.

use super::args::{Array, exclusive, shared};
use super::context::{kvern_context, with_context};
use super::dtype::{dtype, kvern_dtype};
use super::status::{Checked, kvern_status};
use super::weights::{kvern_weights_product, with_products};
use super::workspace::kvern_workspace;
use super::{Guarded, create, destroy, guard};
use crate::error::{equal, product};
use crate::matmul::{Dtype, Element};
use crate::quant::QuantizedRows;
use half::{bf16, f16};
use std::ffi::c_void;

/// Rows of activations as products with int8 activations read them, quantised once for products that do not
/// come in one call.
#[derive(Debug)]
pub struct kvern_quantized_rows(Guarded<QuantizedRows>);

/// Makes room for up to most_rows rows of k elements, a multiple of 32.
///
/// `ctx`: whose memory the object lies in; NULL for the process's allocator. `out`: receives the object, NULL
/// on failure.
/// Errors: NULL_POINTER, OPTION, OVERFLOW, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_quantized_rows_create(
    ctx: *const kvern_context,
    most_rows: usize,
    k: usize,
    out: *mut *mut kvern_quantized_rows,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            with_context(ctx, |ctx| {
                Ok(kvern_quantized_rows(Guarded::new(QuantizedRows::new(ctx, most_rows, k)?)))
            })
        })
    })
}

/// Quantises m rows, which take the place of those that were held.
///
/// `a_dtype`: a `KVERN_DTYPE_*` number; f16 and bf16 are widened exactly. `a`: (m, k), row-major, stride in
/// elements; k must be that of the object. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more rows than there is room for), OPTION, POISONED;
/// the rows are unchanged then. Threads: `ctx` shared, `rows` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_quantized_rows_quantize(
    ctx: *const kvern_context,
    rows: *mut kvern_quantized_rows,
    m: usize,
    k: usize,
    a_dtype: kvern_dtype,
    a: *const c_void,
    a_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        match dtype("a_dtype", a_dtype)? {
            Dtype::F32 => quantize::<f32>(ctx, rows, (m, k), a.cast(), a_row_stride),
            Dtype::F16 => quantize::<f16>(ctx, rows, (m, k), a.cast(), a_row_stride),
            Dtype::Bf16 => quantize::<bf16>(ctx, rows, (m, k), a.cast(), a_row_stride),
        }
    })
}

/// # Safety
/// - pointers are NULL or live, and `a` has the stated shape.
unsafe fn quantize<T: Element>(
    ctx: *const kvern_context,
    rows: *mut kvern_quantized_rows,
    (m, k): (usize, usize),
    a: *const T,
    a_row_stride: usize,
) -> Checked<()> {
    // SAFETY: handed on to the caller.
    unsafe {
        let (ctx, rows) = (shared("ctx", ctx)?, exclusive("rows", rows)?);
        let a = Array::matrix("a", a, m, k, a_row_stride)?.view()?;
        Ok(rows.0.change("rows", |rows| rows.quantize(&ctx.context, a))??)
    }
}

/// Holds m rows that were quantised before, with one scale for each: `a[i][j] = scales[i] * codes[i][j]`.
/// They take the place of those that were held. With weights of 8 bits and one scale for each output feature
/// (`kvern_weights_from_groups`, group k) a product is what is called W8A8.
///
/// `codes`: (m, k) without gaps, -127..=127; k must be that of the object. `scales`: (m). Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more rows than there is room for), OPTION (a code of
/// -128), POISONED; the rows are unchanged then. Threads: `ctx` shared, `rows` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_quantized_rows_set(
    ctx: *const kvern_context,
    rows: *mut kvern_quantized_rows,
    m: usize,
    k: usize,
    codes: *const i8,
    scales: *const f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, rows) = (shared("ctx", ctx)?, exclusive("rows", rows)?);
        let codes = Array::new("codes", codes, product("codes", &[m, k])?)?.get();
        let scales = Array::new("scales", scales, m)?.get();
        Ok(rows.0.change("rows", |rows| {
            equal("k", k, "must equal the k of the rows =", rows.k())?;
            rows.set(&ctx.context, codes, scales)
        })??)
    })
}

/// Products with the rows that are held as A: the bits of `kvern_weights_multiply_many` with
/// KVERN_COMPUTE_INT8.
///
/// `m`: must equal the rows held. `products`: count of them, at most KVERN_WEIGHTS_MAX_PRODUCTS. The
/// workspace of `kvern_weights_many_workspace_bytes` is enough. Allocates nothing.
/// Errors: as `kvern_weights_multiply_many`; SHAPE for another m; OPTION for weights of floats (of 8 bits
/// too) and for those with an order of k; nothing is changed then. Threads: `ctx`, `rows` and weights shared,
/// `ws` and each C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_quantized_rows_multiply(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    rows: *const kvern_quantized_rows,
    m: usize,
    count: usize,
    products: *const kvern_weights_product,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, ws) = (shared("ctx", ctx)?, exclusive("ws", ws)?);
        let rows = shared("rows", rows)?.0.get("rows")?;
        equal("m", m, "must equal the rows held =", rows.rows())?;
        with_products(m, count, products, &[], |list| {
            Ok(ws.0.change("ws", |ws| rows.multiply_many(&ctx.context, ws, list))??)
        })
    })
}

/// Frees the rows. NULL is a no-op.
///
/// Threads: `rows` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_quantized_rows_destroy(rows: *mut kvern_quantized_rows) {
    // SAFETY: `rows` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(rows) }
}
