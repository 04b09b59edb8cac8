//! Recurrent states: the delta rule, the selective scan, the convolution before them.

use super::args::{Array, Options, exclusive, nonzero, optional, path, put, read, shared, span_of};
use super::context::{kvern_context, with_context};
use super::matmul::kvern_activation;
use super::status::{Checked, kvern_status};
use super::tokens::convolution;
use super::{Guarded, create, destroy, guard};
use crate::error::{option, product};
use crate::ops::{self, TimeStepOptions};
use crate::recurrent::{DeltaTokens, RecurrentState, ScanTokens, StateOptions, delta_rule, selective_scan};
use std::ffi::c_char;

/// What recurrent states are made from. Start from KVERN_STATE_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_state_options {
    /// sizeof(kvern_state_options).
    pub struct_size: usize,
    /// Value heads, at least 1: as many matrices a sequence.
    pub heads: usize,
    /// Elements of a key, at least 1: rows of a matrix. d_state of Mamba-2.
    pub key_dim: usize,
    /// Elements of a value, at least 1: columns of a matrix. The head size of Mamba-2.
    pub value_dim: usize,
    /// Channels of the short convolution before the recurrence; 0 for none.
    pub channels: usize,
    /// Taps of that convolution, 2 to 8; 0 without channels.
    pub taps: usize,
    /// Sequences side by side; 0 for 1.
    pub sequences: usize,
}

const _: () = assert!(
    size_of::<kvern_state_options>() == 7 * size_of::<usize>(),
    "no padding, or garbage becomes an option"
);
// SAFETY: integers: every pattern is a value.
unsafe impl Options for kvern_state_options {}

/// The matrices of one layer with recurrence, and the last inputs of its convolution, for some sequences.
#[derive(Debug)]
pub struct kvern_state(pub(super) Guarded<RecurrentState>);

/// Makes states of zeros: those of empty sequences. All memory is taken at once: for each sequence and head
/// key_dim * value_dim numbers (value_dim rounded up to 16), and (taps - 1) * channels.
///
/// `ctx`: whose memory the states lie in; NULL for the process's allocator. `out`: receives the states, NULL
/// on failure.
/// Errors: NULL_POINTER, MISALIGNED, OPTION, UNSUPPORTED, OVERFLOW, RESOURCE.
/// Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_create(
    ctx: *const kvern_context,
    options: *const kvern_state_options,
    out: *mut *mut kvern_state,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let raw = read("options", options)?;
            let options = StateOptions::new(raw.heads, raw.key_dim, raw.value_dim)
                .convolution(raw.channels, raw.taps)
                .sequences(nonzero(raw.sequences).unwrap_or(1));
            with_context(ctx, |ctx| Ok(kvern_state(Guarded::new(RecurrentState::new_on(ctx, options)?))))
        })
    })
}

/// Destroys states; NULL is ignored.
///
/// Threads: `state` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_destroy(state: *mut kvern_state) {
    // SAFETY: handed on to the caller.
    unsafe { destroy(state) }
}

/// # Safety
/// - `state` is NULL or live and exclusive.
unsafe fn edit(state: *mut kvern_state, f: impl FnOnce(&mut RecurrentState) -> Checked<()>) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe { exclusive("state", state)?.0.change("state", f)? })
}

/// Makes every sequence empty; keeps the memory.
///
/// Errors: NULL_POINTER, POISONED.
/// Threads: `state` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_clear(state: *mut kvern_state) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe {
        edit(state, |state| {
            state.clear();
            Ok(())
        })
    }
}

/// Makes one sequence empty.
///
/// Errors: NULL_POINTER, OPTION (no such sequence), POISONED.
/// Threads: `state` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_clear_in(state: *mut kvern_state, sequence: usize) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { edit(state, |state| Ok(state.clear_in(sequence)?)) }
}

/// Makes sequence `to` a copy of sequence `from`: a second continuation, or a length that can be come back
/// to.
///
/// Errors: NULL_POINTER, OPTION (no such sequence), POISONED.
/// Threads: `state` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_fork(state: *mut kvern_state, from: usize, to: usize) -> kvern_status {
    // SAFETY: handed on to the caller.
    unsafe { edit(state, |state| Ok(state.fork(from, to)?)) }
}

/// `*out` = the tokens that a sequence took.
///
/// Errors: NULL_POINTER, OPTION (no such sequence), POISONED.
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_len(
    state: *const kvern_state,
    sequence: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        let state = shared("state", state)?.0.get("state")?;
        let there = sequence < state.options().sequences;
        option(there, "sequence", sequence, "below the state's number of sequences")?;
        put("out", out, state.len_of(sequence))
    })
}

/// `*out` = the bytes of all sequences.
///
/// Errors: NULL_POINTER, POISONED.
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_bytes(state: *const kvern_state, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("state", state)?.0.get("state")?.bytes()) })
}

/// Copies the matrix of a head out: (key_dim, value_dim), without gaps.
///
/// `len`: key_dim * value_dim. `matrix`: receives as many elements, f32.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence or head), POISONED.
/// Threads: `state` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_read(
    state: *const kvern_state,
    sequence: usize,
    head: usize,
    len: usize,
    matrix: *mut f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and `len` is true, by the header's contract.
    guard(|| unsafe {
        let state = shared("state", state)?.0.get("state")?;
        Ok(state.read(sequence, head, Array::new("matrix", matrix, len)?.get_mut())?)
    })
}

/// Sets the matrix of a head: (key_dim, value_dim), without gaps.
///
/// `len`: key_dim * value_dim. `matrix`: as many elements, f32.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence or head), POISONED; nothing is
/// changed then.
/// Threads: `state` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_write(
    state: *mut kvern_state,
    sequence: usize,
    head: usize,
    len: usize,
    matrix: *const f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and `len` is true, by the header's contract.
    unsafe {
        edit(state, |state| {
            let matrix = Array::new("matrix", matrix, len)?;
            Ok(state.write(sequence, head, matrix.get())?)
        })
    }
}

/// Writes all sequences to a file with a checksum. The file is replaced as a whole: an error leaves the old
/// one.
///
/// `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
/// Errors: NULL_POINTER, OPTION (2^32 sequences), IO, RESOURCE, UNSUPPORTED (a big-endian machine), POISONED.
/// Threads: `state` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_save(state: *const kvern_state, path: *const c_char) -> kvern_status {
    // SAFETY: both are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe { Ok(shared("state", state)?.0.get("state")?.save(self::path("path", path)?)?) })
}

/// Replaces all sequences by those of a file that `kvern_state_save` wrote from states of the same heads,
/// sizes and convolution. There may be fewer of them: the others are empty then.
///
/// Errors: NULL_POINTER, IO, BLOB (truncated, too long, foreign, of another version or other options,
/// damaged, or of more sequences), OVERFLOW, RESOURCE, UNSUPPORTED, POISONED; nothing is changed then.
/// Threads: `state` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_restore(state: *mut kvern_state, path: *const c_char) -> kvern_status {
    // SAFETY: both are NULL or live, and `path` ends with a NUL, by the header's contract.
    unsafe { edit(state, |state| Ok(state.restore(self::path("path", path)?)?)) }
}

/// `kvern_causal_conv` with the inputs that a sequence of the states keeps.
///
/// `weights`: (taps, channels) of the states' options, f32, the tap of the oldest token first. `bias`:
/// channels elements; NULL for none. `activation`: a `KVERN_ACTIVATION_*` number. `x`, `y`: (tokens,
/// channels), f32. Strides in elements. `y` must not overlap the inputs.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence, states without a
/// convolution), ALIASED, POISONED; `state` and `y` are unchanged then.
/// Threads: `ctx` shared, `state` and `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_state_conv(
    ctx: *const kvern_context,
    state: *mut kvern_state,
    sequence: usize,
    weights: *const f32,
    weights_row_stride: usize,
    bias: *const f32,
    activation: kvern_activation,
    tokens: usize,
    x: *const f32,
    x_row_stride: usize,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, state) = (shared("ctx", ctx)?, exclusive("state", state)?);
        let StateOptions { channels, taps, .. } = *state.0.get("state")?.options();
        let weights = Array::matrix("weights", weights, taps, channels, weights_row_stride)?;
        let bias = optional(bias, |bias| Array::new("bias", bias, channels))?;
        let x = Array::matrix("x", x, tokens, channels, x_row_stride)?;
        let inputs = [weights.span(), span_of(&bias), x.span()];
        let y = Array::matrix("y", y, tokens, channels, y_row_stride)?.apart_from(&inputs)?;
        let options = convolution(weights, bias, activation)?;
        let (x, y) = (x.view()?, y.view_mut()?);
        state.0.change("state", |state| {
            let inputs = state.inputs(sequence)?;
            ops::causal_conv(&ctx.context, &options, x, inputs, y)
        })??;
        Ok(())
    })
}

/// The gated delta rule. For each token and head, with the matrix S of (key_dim, value_dim) that the sequence
/// has: `S = S * exp(decay)`, `u = beta * (v - S^T k)`, `S = S + k u^T`, `y = scale * S^T q`. One token after
/// the other: the bits do not depend on how many come in a call.
///
/// `sequences`: count numbers, none of them twice; row `s * rows / count + i` is token i of sequence
/// `sequences[s]`. `q`, `k`: (rows, key_heads * key_dim), after their norm; key_heads divides heads, and
/// value head h has key head `h / (heads / key_heads)`. `v`, `y`: (rows, heads * value_dim). `decay`:
/// logarithms, (rows, decay_cols), decay_cols being heads, or heads * key_dim where each key element has its
/// own. `beta`: (rows, heads). `scale`: usually 1 / sqrt(key_dim). All f32, strides in elements. `y` must not
/// overlap the inputs.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence, one that comes twice,
/// key_heads, scale), ALIASED, POISONED; `state` and `y` are unchanged then.
/// Threads: `ctx` shared, `state` and `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_delta_rule(
    ctx: *const kvern_context,
    state: *mut kvern_state,
    count: usize,
    sequences: *const usize,
    rows: usize,
    key_heads: usize,
    q: *const f32,
    q_row_stride: usize,
    k: *const f32,
    k_row_stride: usize,
    v: *const f32,
    v_row_stride: usize,
    decay_cols: usize,
    decay: *const f32,
    decay_row_stride: usize,
    beta: *const f32,
    beta_row_stride: usize,
    scale: f32,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, state) = (shared("ctx", ctx)?, exclusive("state", state)?);
        let StateOptions { heads, key_dim, value_dim, .. } = *state.0.get("state")?.options();
        let sequences = Array::new("sequences", sequences, count)?;
        let keys = product("key_heads * key_dim", &[key_heads, key_dim])?;
        let q = Array::matrix("q", q, rows, keys, q_row_stride)?;
        let k = Array::matrix("k", k, rows, keys, k_row_stride)?;
        let v = Array::matrix("v", v, rows, heads * value_dim, v_row_stride)?;
        let decay = Array::matrix("decay", decay, rows, decay_cols, decay_row_stride)?;
        let beta = Array::matrix("beta", beta, rows, heads, beta_row_stride)?;
        let inputs = [sequences.span(), q.span(), k.span(), v.span(), decay.span(), beta.span()];
        let y = Array::matrix("y", y, rows, heads * value_dim, y_row_stride)?.apart_from(&inputs)?;
        let tokens = DeltaTokens {
            q: q.view()?,
            k: k.view()?,
            v: v.view()?,
            decay: decay.view()?,
            beta: beta.view()?,
            scale,
        };
        let (sequences, y) = (sequences.get(), y.view_mut()?);
        Ok(state.0.change("state", |state| delta_rule(&ctx.context, state, sequences, &tokens, y))??)
    })
}

/// The selective scan of Mamba-2. For each token and head, with the matrix S of (key_dim, value_dim) that the
/// sequence has, the transpose of the (head_dim, d_state) of checkpoints:
/// `S = S * exp(dt * a) + b (dt * x)^T`, `y = S^T c + d * x`. One token after the other, as
/// `kvern_delta_rule`.
///
/// `count`, `sequences`, `rows`: as in `kvern_delta_rule`. `x`, `y`: (rows, heads * value_dim). `dt`: the
/// steps, after `kvern_time_step`: (rows, heads). `b`, `c`: (rows, groups * key_dim); groups divides heads,
/// and head h has group `h / (heads / groups)`. `a`: heads elements, `-exp(A_log)`. `d`: heads elements. All
/// f32, strides in elements. `y` must not overlap the inputs.
/// Errors: as `kvern_delta_rule`.
/// Threads: `ctx` shared, `state` and `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_selective_scan(
    ctx: *const kvern_context,
    state: *mut kvern_state,
    count: usize,
    sequences: *const usize,
    rows: usize,
    groups: usize,
    x: *const f32,
    x_row_stride: usize,
    dt: *const f32,
    dt_row_stride: usize,
    b: *const f32,
    b_row_stride: usize,
    c: *const f32,
    c_row_stride: usize,
    a: *const f32,
    d: *const f32,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, state) = (shared("ctx", ctx)?, exclusive("state", state)?);
        let StateOptions { heads, key_dim, value_dim, .. } = *state.0.get("state")?.options();
        let sequences = Array::new("sequences", sequences, count)?;
        let keys = product("groups * key_dim", &[groups, key_dim])?;
        let x = Array::matrix("x", x, rows, heads * value_dim, x_row_stride)?;
        let dt = Array::matrix("dt", dt, rows, heads, dt_row_stride)?;
        let b = Array::matrix("b", b, rows, keys, b_row_stride)?;
        let c = Array::matrix("c", c, rows, keys, c_row_stride)?;
        let (a, d) = (Array::new("a", a, heads)?, Array::new("d", d, heads)?);
        let inputs = [sequences.span(), x.span(), dt.span(), b.span(), c.span(), a.span(), d.span()];
        let y = Array::matrix("y", y, rows, heads * value_dim, y_row_stride)?.apart_from(&inputs)?;
        let tokens =
            ScanTokens { x: x.view()?, dt: dt.view()?, b: b.view()?, c: c.view()?, a: a.get(), d: d.get() };
        let (sequences, y) = (sequences.get(), y.view_mut()?);
        Ok(state.0.change("state", |state| selective_scan(&ctx.context, state, sequences, &tokens, y))??)
    })
}

/// `y[i][j] = factor[j] * clamp(softplus(x[i][j] + bias[j]), least, most)`: the steps of Mamba-2, and, with
/// `factor = -exp(A_log)`, the decays of the delta nets.
///
/// `bias`, `factor`: n elements; NULL for zeros, and for ones. `least`, `most`: infinite for no limit. `x`,
/// `y`: (rows, n), f32, strides in elements. `y` must not overlap the inputs.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED; `y` is unchanged then.
/// Threads: `ctx` shared, `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_time_step(
    ctx: *const kvern_context,
    bias: *const f32,
    factor: *const f32,
    least: f32,
    most: f32,
    rows: usize,
    n: usize,
    x: *const f32,
    x_row_stride: usize,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let bias = optional(bias, |bias| Array::new("bias", bias, n))?;
        let factor = optional(factor, |factor| Array::new("factor", factor, n))?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?;
        let inputs = [span_of(&bias), span_of(&factor), x.span()];
        let y = Array::matrix("y", y, rows, n, y_row_stride)?.apart_from(&inputs)?;
        let mut options = TimeStepOptions::default().limits(least, most);
        if let Some(bias) = bias {
            options = options.bias(bias.get());
        }
        if let Some(factor) = factor {
            options = options.factor(factor.get());
        }
        Ok(ops::time_step(&ctx.context, &options, x.view()?, y.view_mut()?)?)
    })
}
