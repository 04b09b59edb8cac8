//! Row operations.

use super::args::{Array, choose, put, shared};
use super::context::kvern_context;
use super::matmul::{activation, kvern_activation};
use super::quant::kvern_weights;
use super::status::{Failure, KVERN_STATUS_OPTION, kvern_status};
use super::{Checked, create, destroy, guard};
use crate::ops;
use crate::view::{MatMut, MatRef};
use crate::{Context, ops::RopePairs};

/// Which elements of a head are rotated together: a `KVERN_ROPE_*` number.
pub type kvern_rope_pairs = i32;

/// (i, i + n/2): GPT-NeoX, and Llama as converted by Hugging Face.
pub const KVERN_ROPE_HALVES: kvern_rope_pairs = 0;
/// (2i, 2i + 1): the paper, GPT-J, and Llama as published.
pub const KVERN_ROPE_INTERLEAVED: kvern_rope_pairs = 1;

/// Cosines and sines for `kvern_rope`. Immutable.
#[derive(Debug)]
pub struct kvern_rope_table(ops::RopeTable);

/// `y = (x - mean) / sqrt(var + eps) * gain + bias`, row by row.
///
/// `x`, `y`: (rows, n), f32, strides in elements. `gain`, `bias`: n elements. `y` must not overlap the inputs.
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
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?;
        let (gain, bias) = (Array::new("gain", gain, n)?, Array::new("bias", bias, n)?);
        let inputs = [x.span(), gain.span(), bias.span()];
        let y = Array::matrix("y", y, rows, n, y_row_stride)?.apart_from(&inputs)?;
        Ok(ops::layer_norm(&ctx.context, x.view()?, gain.get(), bias.get(), eps, y.view_mut()?)?)
    })
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
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?;
        let gain = Array::new("gain", gain, n)?;
        let y = Array::matrix("y", y, rows, n, y_row_stride)?.apart_from(&[x.span(), gain.span()])?;
        Ok(ops::rms_norm(&ctx.context, x.view()?, gain.get(), eps, y.view_mut()?)?)
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
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        ops::softmax(&ctx.context, Array::matrix("x", x, rows, n, x_row_stride)?.view_mut()?);
        Ok(())
    })
}

/// `x = act(x)`, in place.
///
/// `activation`: a `KVERN_ACTIVATION_*` number. `x`: (rows, n), f32, stride in elements.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_activate(
    ctx: *const kvern_context,
    activation: kvern_activation,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, f) = (shared("ctx", ctx)?, self::activation("activation", activation)?);
        ops::activate(&ctx.context, f, Array::matrix("x", x, rows, n, x_row_stride)?.view_mut()?);
        Ok(())
    })
}

/// `x = silu(x) * z`, in place: the gate of SwiGLU.
///
/// `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_silu_mul(
    ctx: *const kvern_context,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { binary(ctx, ops::silu_mul, (rows, n), x, x_row_stride, z, z_row_stride) }
}

/// `x = x + z`, in place: the residual addition.
///
/// `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_add(
    ctx: *const kvern_context,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { binary(ctx, ops::add, (rows, n), x, x_row_stride, z, z_row_stride) }
}

/// An operation of two matrices, in place.
///
/// # Safety
/// - pointers are NULL or live, and their shapes are true.
unsafe fn binary(
    ctx: *const kvern_context,
    f: fn(&Context, MatMut<'_>, MatRef<'_>) -> crate::Result<()>,
    (rows, n): (usize, usize),
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let z = Array::matrix("z", z, rows, n, z_row_stride)?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?.apart_from(&[z.span()])?;
        Ok(f(&ctx.context, x.view_mut()?, z.view()?)?)
    })
}

/// Makes the table of `position * base^(-2i / rotary_dim)` for positions 0..positions.
///
/// `rotary_dim`: the rotated part of a head, even, usually all of it. `base`: usually 10000.
/// `out`: receives the table, NULL on failure.
/// Errors: NULL_POINTER, OPTION, OVERFLOW, RESOURCE. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_create(
    rotary_dim: usize,
    positions: usize,
    base: f64,
    out: *mut *mut kvern_rope_table,
) -> kvern_status {
    // SAFETY: `out` is NULL or writable, by the header's contract.
    guard(|| unsafe {
        create(out, || Ok(kvern_rope_table(ops::RopeTable::new(rotary_dim, positions, base)?)))
    })
}

/// Frees the table. NULL is a no-op.
///
/// Threads: `table` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_destroy(table: *mut kvern_rope_table) {
    // SAFETY: `table` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(table) }
}

fn pairs(number: kvern_rope_pairs) -> Checked<RopePairs> {
    let values = [RopePairs::Halves, RopePairs::Interleaved].map(|pairs| (pairs as i32, pairs));
    choose("pairs", number, "a KVERN_ROPE number", &values)
}

/// Rotates each head of each token in place: `(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)` for each pair.
/// Token i stands at position first + i.
///
/// `pairs`: a `KVERN_ROPE_*` number. `x`: (tokens, heads * head_dim), f32, stride in elements; elements of a
/// head beyond the table's rotary_dim stay.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION, SHAPE (a table too short or wider than a head); `x` is
/// unchanged then. Threads: `ctx` and `table` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope(
    ctx: *const kvern_context,
    table: *const kvern_rope_table,
    pairs: kvern_rope_pairs,
    first: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, table) = (shared("ctx", ctx)?, shared("table", table)?);
        let pairs = self::pairs(pairs)?;
        let width = crate::error::product("heads * head_dim", &[heads, head_dim])?;
        let x = Array::matrix("x", x, tokens, width, x_row_stride)?.view_mut()?;
        Ok(ops::rope(&ctx.context, &table.0, pairs, head_dim, first, x)?)
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
            Failure::new(KVERN_STATUS_OPTION, format!("x has no number among its {n} elements"))
        })?;
        put("out", out, found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_the_numbers_of_the_safe_api() {
        assert_eq!(pairs(KVERN_ROPE_HALVES).ok(), Some(RopePairs::Halves));
        assert_eq!(pairs(KVERN_ROPE_INTERLEAVED).ok(), Some(RopePairs::Interleaved));
    }
}
