//! Products of heads that have weights of their own.

use super::args::{Array, check, exclusive, put, shared};
use super::context::kvern_context;
use super::guard;
use super::quant::{compute, kvern_compute, kvern_weights};
use super::status::{Checked, Failure, KVERN_STATUS_OPTION, kvern_status};
use super::workspace::kvern_workspace;
use crate::error::{Error, equal, product};
use crate::quant::{HeadStrides, PackedWeights, heads_bytes_of, multiply_heads_of};

/// The weights of heads, and how each is looked up: nothing is allocated for them.
///
/// # Safety
/// - pointers are NULL or live, and `weights` is NULL or points to `count` of them.
unsafe fn heads<'a>(
    count: usize,
    weights: *const *const kvern_weights,
) -> Checked<(usize, impl Fn(usize) -> &'a PackedWeights + Sync)> {
    check("weights", weights, count)?;
    if count == 0 {
        return Err(Failure::new(KVERN_STATUS_OPTION, format_args!("heads = 0 must be at least 1")));
    }
    for head in 0..count {
        // SAFETY: `check` saw a pointer that is aligned, not NULL, and a length that fits.
        unsafe { shared("weights[i]", *weights.add(head))? };
    }
    let list = List(weights);
    Ok((count, move |head: usize| {
        let list = &list;
        // SAFETY: as above, for a head below `count`; each was seen to be live.
        unsafe { &(*(*list.0.add(head))).0 }
    }))
}

/// Weights that threads look up.
struct List(*const *const kvern_weights);

// SAFETY: the pointers are to weights that nobody changes during the call, by the header's contract.
unsafe impl Sync for List {}

/// Columns of a matrix with so many heads of `width` columns, `stride` apart.
fn columns(what: &'static str, heads: usize, stride: usize, width: usize) -> Checked<usize> {
    let last = product(what, &[heads - 1, stride])?;
    Ok(last.checked_add(width).ok_or(Error::Overflow { what })?)
}

/// `*out` = the bytes of workspace that `kvern_weights_multiply_heads` of up to m rows needs.
///
/// Errors: as `kvern_weights_multiply_heads` for the weights. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_heads_workspace_bytes(
    ctx: *const kvern_context,
    compute: kvern_compute,
    m: usize,
    heads: usize,
    weights: *const *const kvern_weights,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, compute) = (shared("ctx", ctx)?, self::compute(compute)?);
        let (count, of) = self::heads(heads, weights)?;
        put("out", out, heads_bytes_of(&ctx.context, (count, &of), m, compute)?)
    })
}

/// `C_h = A_h * W_h^T` for each head h, whose columns lie side by side: with the up-projection of keys it
/// turns queries into queries of a latent, and with that of values it turns attended latents into values
/// (DeepSeek). Each head has the bits of `kvern_weights_multiply`.
///
/// `weights`: heads pointers to matrices of one shape (n, k), of any formats of blocks or all of floats. `a`:
/// (m, k) for each head, head h from column h * a_head_stride on; `c`: (m, n) likewise; f32, strides in
/// elements, those of heads at least k and n. `c` must not overlap the inputs; what lies between two heads is
/// left as it is. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (weights of different shapes, a head stride below the
/// columns of a head), OPTION (no head, weights with an order of k, floats beside blocks), ALIASED,
/// WORKSPACE, POISONED; C is unchanged then. Threads: `ctx` and weights shared, `ws` and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_multiply_heads(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    compute: kvern_compute,
    m: usize,
    heads: usize,
    weights: *const *const kvern_weights,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    a_head_stride: usize,
    n: usize,
    c: *mut f32,
    c_row_stride: usize,
    c_head_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, ws, compute) = (shared("ctx", ctx)?, exclusive("ws", ws)?, self::compute(compute)?);
        let (count, of) = self::heads(heads, weights)?;
        let (a_cols, c_cols) =
            (columns("a", heads, a_head_stride, k)?, columns("c", heads, c_head_stride, n)?);
        let first = of(0);
        equal("k", k, "must equal the weights' =", first.k())?;
        equal("n", n, "must equal the weights' =", first.n())?;
        let a = Array::matrix("a", a, m, a_cols, a_row_stride)?;
        let c = Array::matrix("c", c, m, c_cols, c_row_stride)?.apart_from(&[a.span()])?;
        let strides = HeadStrides { a: a_head_stride, c: c_head_stride };
        let (ctx, a, c) = (&ctx.context, a.view()?, c.view_mut()?);
        Ok(ws.0.change("ws", |ws| multiply_heads_of(ctx, ws, compute, (count, &of), strides, a, c))??)
    })
}
