//! Operations over the tokens of a sequence.

use super::args::{Array, choose, optional, shared, span_of};
use super::context::kvern_context;
use super::elementwise::in_place;
use super::guard;
use super::matmul::{activation, kvern_activation};
use super::status::{Checked, kvern_status};
use crate::error::{Error, product};
use crate::ops::{self, Along, ConvOptions};

/// The direction of a cumulative sum: a `KVERN_ALONG_*` number.
pub type kvern_along = i32;

/// Along each row: from one element of a token to the next one.
pub const KVERN_ALONG_ROW: kvern_along = 0;
/// Down each column: from token to token.
pub const KVERN_ALONG_COLUMN: kvern_along = 1;

/// `out[i] = mean of the rows starts[i] .. starts[i + 1] - 1 of x that are seen`: one vector for each
/// sequence of a batch. A sequence of which nothing is seen gives zeros.
///
/// `starts`: sequences + 1 row numbers, ascending, the last one at most tokens. `x`: (tokens, n), f32.
/// `seen`: tokens bytes, 1 for rows that count and 0 for padding; NULL if all count. `out`: (sequences, n),
/// f32, must not overlap the inputs. Strides in elements.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (starts that descend or go beyond x), OPTION, ALIASED;
/// `out` is unchanged then. Threads: `ctx` shared, `out` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_mean_pool(
    ctx: *const kvern_context,
    sequences: usize,
    starts: *const usize,
    tokens: usize,
    n: usize,
    x: *const f32,
    x_row_stride: usize,
    seen: *const u8,
    out: *mut f32,
    out_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let bounds = sequences.checked_add(1).ok_or(Error::Overflow { what: "sequences + 1" })?;
        let starts = Array::new("starts", starts, bounds)?;
        let x = Array::matrix("x", x, tokens, n, x_row_stride)?;
        let seen = optional(seen, |seen| Array::new("seen", seen, tokens))?;
        let inputs = [starts.span(), x.span(), span_of(&seen)];
        let out = Array::matrix("out", out, sequences, n, out_row_stride)?.apart_from(&inputs)?;
        let seen = seen.map(|seen| seen.flags()).transpose()?;
        let seen = seen.map(|seen| seen.row(0).unwrap_or_default());
        Ok(ops::mean_pool(&ctx.context, x.view()?, starts.get(), seen, out.view_mut()?)?)
    })
}

/// Replaces each element by the sum of it and of all before it, in place.
///
/// `along`: a `KVERN_ALONG_*` number. `x`: (rows, n), f32, stride in elements.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION. Threads: `ctx` shared, `x` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_cumulative_sum(
    ctx: *const kvern_context,
    along: kvern_along,
    rows: usize,
    n: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        in_place(ctx, (rows, n), x, x_row_stride, |ctx, x| {
            let values = [Along::Row, Along::Column].map(|along| (along as i32, along));
            ops::cumulative_sum(ctx, choose("along", along, "a KVERN_ALONG number", &values)?, x);
            Ok(())
        })
    }
}

/// The options of a convolution.
///
/// # Safety
/// - the memory of both is readable, initialised, and unchanged for `'a`.
pub(super) unsafe fn convolution<'a>(
    weights: Array<f32>,
    bias: Option<Array<f32>>,
    activation: kvern_activation,
) -> Checked<ConvOptions<'a>> {
    // SAFETY: handed on to the caller.
    let (weights, bias) = unsafe { (weights.view()?, bias.map(|bias| bias.get())) };
    let options = ConvOptions::new(weights).activation(self::activation("activation", activation)?);
    Ok(bias.map_or(options, |bias| options.bias(bias)))
}

/// `y[t][c] = act(sum over j of weights[j][c] * x[t - taps + 1 + j][c] + bias[c])`: the short convolution of
/// Mamba-2, of the delta nets and of LFM2. What lies before the first token is `state`, which ends as the
/// last taps - 1 inputs; a new sequence starts from zeros.
///
/// `taps`: 2 to 8. `weights`: (taps, channels), f32, the tap of the oldest token first (checkpoints store the
/// transpose). `bias`: channels elements; NULL for none. `activation`: a `KVERN_ACTIVATION_*` number.
/// `state`: (taps - 1) * channels elements, the oldest first. `x`, `y`: (tokens, channels), f32. Strides in
/// elements. `state` and `y` must not overlap each other or the inputs.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED; `state` and `y` are unchanged then.
/// Threads: `ctx` shared, `state` and `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_causal_conv(
    ctx: *const kvern_context,
    taps: usize,
    channels: usize,
    weights: *const f32,
    weights_row_stride: usize,
    bias: *const f32,
    activation: kvern_activation,
    state: *mut f32,
    tokens: usize,
    x: *const f32,
    x_row_stride: usize,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let weights = Array::matrix("weights", weights, taps, channels, weights_row_stride)?;
        let bias = optional(bias, |bias| Array::new("bias", bias, channels))?;
        let x = Array::matrix("x", x, tokens, channels, x_row_stride)?;
        let inputs = [weights.span(), span_of(&bias), x.span()];
        let kept = product("state", &[taps.saturating_sub(1), channels])?;
        let state = Array::new("state", state, kept)?.apart_from(&inputs)?;
        let y = Array::matrix("y", y, tokens, channels, y_row_stride)?;
        let y = y.apart_from(&inputs)?.apart_from(&[state.span()])?;
        let options = convolution(weights, bias, activation)?;
        Ok(ops::causal_conv(&ctx.context, &options, x.view()?, state.get_mut(), y.view_mut()?)?)
    })
}
