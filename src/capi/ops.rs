//! Operations on whole rows: norms, softmax, embedding rows, argmax.

use super::args::{Array, Options, nonzero, optional, put, read_or_default, shared, span_of};
use super::context::kvern_context;
use super::elementwise::in_place;
use super::guard;
use super::quant::kvern_weights;
use super::status::{Failure, KVERN_STATUS_OPTION, kvern_status};
use crate::Context;
use crate::ops;
use crate::view::{MatMut, MatRef};

/// What `kvern_softmax_with` does. Start from KVERN_SOFTMAX_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_softmax_options {
    /// sizeof(kvern_softmax_options).
    pub struct_size: usize,
    /// Factor of the elements; 0 means 1.
    pub scale: f32,
    /// Soft cap, positive: cap * tanh(scale * x / cap) instead of scale * x, with a finite scale / cap; 0 for
    /// none.
    pub softcap: f32,
    /// Added after scale and cap: (mask_rows, n), f32; NULL for none. Row i of x takes row i mod mask_rows.
    /// -inf leaves an element out whatever x holds there. Must not overlap `y`.
    pub mask: *const f32,
    /// Rows of the mask, of which the rows of x are a multiple; 0 for as many as x has.
    pub mask_rows: usize,
    /// Elements from one row of the mask to the next one.
    pub mask_row_stride: usize,
}

const _: () = assert!(
    size_of::<kvern_softmax_options>() == 4 * size_of::<usize>() + 8,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers and a raw pointer: every pattern is a value.
unsafe impl Options for kvern_softmax_options {}

/// `y = (x - mean) / sqrt(var + eps) * gain + bias`, row by row.
///
/// `x`, `y`: (rows, n), f32, strides in elements. `gain`, `bias`: n elements. `y` must not overlap the
/// inputs.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_layer_norm(
    ctx: *const kvern_context,
    rows: usize,
    n: usize,
    x: *const f32,
    x_row_stride: usize,
    gain: *const f32,
    bias: *const f32,
    eps: f32,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        let bias = Some(bias);
        norm(ctx, (rows, n), x, x_row_stride, gain, bias, y, y_row_stride, |ctx, x, gain, bias, y| {
            ops::layer_norm(ctx, x, gain, bias, eps, y)
        })
    }
}

/// `y = x / sqrt(mean(x^2) + eps) * gain`, row by row.
///
/// `x`, `y`: (rows, n), f32, strides in elements. `gain`: n elements. `y` must not overlap the inputs.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rms_norm(
    ctx: *const kvern_context,
    rows: usize,
    n: usize,
    x: *const f32,
    x_row_stride: usize,
    gain: *const f32,
    eps: f32,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        norm(ctx, (rows, n), x, x_row_stride, gain, None, y, y_row_stride, |ctx, x, gain, _, y| {
            ops::rms_norm(ctx, x, gain, eps, y)
        })
    }
}

/// A norm with a gain and perhaps a bias (empty without).
///
/// # Safety
/// - pointers are NULL or live, and their shapes are true.
unsafe fn norm(
    ctx: *const kvern_context,
    (rows, n): (usize, usize),
    x: *const f32,
    x_row_stride: usize,
    gain: *const f32,
    bias: Option<*const f32>,
    y: *mut f32,
    y_row_stride: usize,
    f: impl FnOnce(&Context, MatRef<'_>, &[f32], &[f32], MatMut<'_>) -> crate::Result<()>,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?;
        let gain = Array::new("gain", gain, n)?;
        let bias = match bias {
            Some(bias) => Array::new("bias", bias, n)?,
            None => Array::new("bias", std::ptr::null(), 0)?,
        };
        let inputs = [x.span(), gain.span(), bias.span()];
        let y = Array::matrix("y", y, rows, n, y_row_stride)?.apart_from(&inputs)?;
        Ok(f(&ctx.context, x.view()?, gain.get(), bias.get(), y.view_mut()?)?)
    })
}

/// `x = exp(x - max(x)) / sum`, in place, row by row. A row of -inf becomes zeros.
///
/// `x`: (rows, n), f32, stride in elements.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_softmax(
    ctx: *const kvern_context,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        in_place(ctx, (rows, n), x, x_row_stride, |ctx, x| {
            ops::softmax(ctx, x);
            Ok(())
        })
    }
}

/// `y = softmax(cap * tanh(scale * x / cap) + mask)`, row by row, each part where the options ask for it.
///
/// `options`: NULL for the plain softmax. `x`, `y`: (rows, n), f32, strides in elements. `y` must not overlap
/// the inputs. A row that is masked everywhere becomes zeros.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (rows no multiple of mask_rows), OPTION, UNSUPPORTED,
/// ALIASED; `y` is unchanged then. Threads: `ctx` shared, `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_softmax_with(
    ctx: *const kvern_context,
    options: *const kvern_softmax_options,
    rows: usize,
    n: usize,
    x: *const f32,
    x_row_stride: usize,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, raw) = (shared("ctx", ctx)?, read_or_default("options", options)?);
        let mask_rows = nonzero(raw.mask_rows).unwrap_or(rows);
        let mask = optional(raw.mask, |mask| {
            Array::matrix("options->mask", mask, mask_rows, n, raw.mask_row_stride)
        })?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?;
        let inputs = [x.span(), span_of(&mask)];
        let y = Array::matrix("y", y, rows, n, y_row_stride)?.apart_from(&inputs)?;
        let mut options = ops::SoftmaxOptions::default().scale(nonzero(raw.scale).unwrap_or(1.0));
        options.softcap = nonzero(raw.softcap);
        options.mask = mask.map(|mask| mask.view()).transpose()?;
        Ok(ops::softmax_with(&ctx.context, &options, x.view()?, y.view_mut()?)?)
    })
}

/// `out[i] = table[ids[i]]`.
///
/// `table`: (vocabulary, n), f32. `ids`: tokens elements. `out`: (tokens, n), f32, must not overlap the
/// inputs. Strides in elements.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (an id beyond the table), ALIASED; `out` is unchanged
/// then. Threads: `ctx` shared, `out` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_embedding(
    ctx: *const kvern_context,
    vocabulary: usize,
    n: usize,
    table: *const f32,
    table_row_stride: usize,
    tokens: usize,
    ids: *const u32,
    out: *mut f32,
    out_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let table = Array::matrix("table", table, vocabulary, n, table_row_stride)?;
        let ids = Array::new("ids", ids, tokens)?;
        let inputs = [table.span(), ids.span()];
        let out = Array::matrix("out", out, tokens, n, out_row_stride)?.apart_from(&inputs)?;
        Ok(ops::embedding(&ctx.context, table.view()?, ids.get(), out.view_mut()?)?)
    })
}

/// `out[i] = W[ids[i]]`, dequantised exactly: W's output features are the vocabulary.
///
/// `ids`: tokens elements. `out`: (tokens, k), f32, stride in elements, must not overlap `ids`; k must be
/// that of the weights.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (an id beyond W, a wrong k), ALIASED; `out` is unchanged
/// then. Threads: `ctx` and `weights` shared, `out` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_embedding_quantized(
    ctx: *const kvern_context,
    weights: *const kvern_weights,
    k: usize,
    tokens: usize,
    ids: *const u32,
    out: *mut f32,
    out_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, weights) = (shared("ctx", ctx)?, shared("weights", weights)?);
        let ids = Array::new("ids", ids, tokens)?;
        let out = Array::matrix("out", out, tokens, k, out_row_stride)?.apart_from(&[ids.span()])?;
        Ok(ops::embedding_quantized(&ctx.context, &weights.0, ids.get(), out.view_mut()?)?)
    })
}

/// `*out` = the index of the greatest element of `x`, the first of equals. NaN is not greater than anything.
///
/// `x`: n elements, f32.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no element is a number). Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_argmax(
    ctx: *const kvern_context,
    n: usize,
    x: *const f32,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and `x` has n elements, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let x = Array::new("x", x, n)?;
        let found = ops::argmax(&ctx.context, x.get()).ok_or_else(|| {
            Failure::new(KVERN_STATUS_OPTION, format_args!("x has no number among its {n} elements"))
        })?;
        put("out", out, found)
    })
}
