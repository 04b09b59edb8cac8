//! Operations on single elements.

use super::args::{Array, shared};
use super::context::kvern_context;
use super::guard;
use super::matmul::{activation, kvern_activation};
use super::status::{Checked, kvern_status};
use crate::Context;
use crate::ops;
use crate::view::{MatMut, MatRef};

/// An operation of one matrix, in place.
///
/// # Safety
/// - pointers are NULL or live, and their shapes are true.
pub(super) unsafe fn in_place(
    ctx: *const kvern_context,
    (rows, n): (usize, usize),
    x: *mut f32,
    x_row_stride: usize,
    f: impl FnOnce(&Context, MatMut<'_>) -> Checked<()>,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        f(&ctx.context, Array::matrix("x", x, rows, n, x_row_stride)?.view_mut()?)
    })
}

/// An operation of two matrices, in place in the first.
///
/// # Safety
/// - pointers are NULL or live, and their shapes are true.
unsafe fn binary(
    ctx: *const kvern_context,
    (rows, n): (usize, usize),
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
    f: impl FnOnce(&Context, MatMut<'_>, MatRef<'_>) -> Checked<()>,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let z = Array::matrix("z", z, rows, n, z_row_stride)?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?.apart_from(&[z.span()])?;
        f(&ctx.context, x.view_mut()?, z.view()?)
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
    // SAFETY: handed on to the caller.
    unsafe {
        in_place(ctx, (rows, n), x, x_row_stride, |ctx, x| {
            ops::activate(ctx, self::activation("activation", activation)?, x);
            Ok(())
        })
    }
}

/// `x = act(x) * z`, in place: the gate of a feed-forward layer.
///
/// `activation`: a `KVERN_ACTIVATION_*` number: SILU for SwiGLU, GELU or GELU_ERF for GeGLU, SIGMOID for an
/// output gate. `x`, `z`: (rows, n), f32, strides in elements;
/// they must not overlap.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_activate_mul(
    ctx: *const kvern_context,
    activation: kvern_activation,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        binary(ctx, (rows, n), x, x_row_stride, z, z_row_stride, |ctx, x, z| {
            let activation = self::activation("activation", activation)?;
            Ok(ops::activate_mul(ctx, activation, x, z)?)
        })
    }
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
    unsafe {
        binary(ctx, (rows, n), x, x_row_stride, z, z_row_stride, |ctx, x, z| Ok(ops::silu_mul(ctx, x, z)?))
    }
}

/// `x = g * sigmoid(alpha * g) * (u + 1)`, in place, with `g = min(x, limit)` and `u` = `z` between -limit
/// and limit: the gate of gpt-oss, whose alpha is 1.702 and limit 7.
///
/// `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
/// `alpha`: at least 1; `limit`: positive; both finite.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED.
/// Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_swiglu_oai(
    ctx: *const kvern_context,
    alpha: f32,
    limit: f32,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        binary(ctx, (rows, n), x, x_row_stride, z, z_row_stride, |ctx, x, z| {
            Ok(ops::swiglu_oai(ctx, alpha, limit, x, z)?)
        })
    }
}

/// `x = x * z`, in place, element by element.
///
/// `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_mul(
    ctx: *const kvern_context,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { binary(ctx, (rows, n), x, x_row_stride, z, z_row_stride, |ctx, x, z| Ok(ops::mul(ctx, x, z)?)) }
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
    unsafe { binary(ctx, (rows, n), x, x_row_stride, z, z_row_stride, |ctx, x, z| Ok(ops::add(ctx, x, z)?)) }
}

/// `x = x + by * z`, in place, each element rounded once: a residual with a factor.
///
/// `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_add_scaled(
    ctx: *const kvern_context,
    by: f32,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
    z: *const f32,
    z_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        binary(ctx, (rows, n), x, x_row_stride, z, z_row_stride, |ctx, x, z| {
            Ok(ops::add_scaled(ctx, x, by, z)?)
        })
    }
}

/// `x = x * by`, in place.
///
/// `x`: (rows, n), f32, stride in elements.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_scale(
    ctx: *const kvern_context,
    by: f32,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        in_place(ctx, (rows, n), x, x_row_stride, |ctx, x| {
            ops::scale(ctx, x, by);
            Ok(())
        })
    }
}

/// `x = cap * tanh(x / cap)`, in place.
///
/// `cap`: positive and finite. `x`: (rows, n), f32, stride in elements.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_softcap(
    ctx: *const kvern_context,
    cap: f32,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { in_place(ctx, (rows, n), x, x_row_stride, |ctx, x| Ok(ops::softcap(ctx, cap, x)?)) }
}
