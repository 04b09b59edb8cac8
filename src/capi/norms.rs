//! Norms of rows with options.

use super::args::{Array, Options, choose, flag, nonzero, optional, read, shared, span_of};
use super::context::kvern_context;
use super::guard;
use super::matmul::{activation, kvern_activation};
use super::status::kvern_status;
use crate::ops::{self, NormKind, NormOptions};

/// What a row is divided by: a `KVERN_NORM_*` number.
pub type kvern_norm_kind = i32;

/// x / sqrt(mean(x^2) + eps).
pub const KVERN_NORM_RMS: kvern_norm_kind = 0;
/// (x - mean(x)) / sqrt(var(x) + eps).
pub const KVERN_NORM_LAYER: kvern_norm_kind = 1;
/// x / sqrt(sum(x^2) + eps): the keys and queries of delta nets.
pub const KVERN_NORM_L2: kvern_norm_kind = 2;
/// x / max(sqrt(sum(x^2)), eps): embeddings of length 1.
pub const KVERN_NORM_UNIT: kvern_norm_kind = 3;

/// What `kvern_norm` does. Start from KVERN_NORM_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_norm_options {
    /// sizeof(kvern_norm_options).
    pub struct_size: usize,
    /// Multiplies the normalised elements: part_len elements; NULL for none. Must not overlap `y`.
    pub gain: *const f32,
    /// Added after the gain, with KVERN_NORM_LAYER only: part_len elements; NULL for none. Must not overlap
    /// `y`.
    pub bias: *const f32,
    /// Elements of gain and bias: n, or n / groups, the same for each group; 0 for n.
    pub part_len: usize,
    /// Parts of equal length into which each row is cut, each with a norm of its own; 0 for one.
    pub groups: usize,
    /// Rows whose activation the row is multiplied by: (rows, n), f32; NULL for none. Must not overlap `y`.
    pub gate: *const f32,
    /// Elements from one row of the gate to the next one.
    pub gate_row_stride: usize,
    /// What a row is divided by.
    pub kind: kvern_norm_kind,
    /// Added under the root, or the least divisor of KVERN_NORM_UNIT: finite, not negative.
    pub eps: f32,
    /// The activation of the gate.
    pub gate_activation: kvern_activation,
    /// 1: x is multiplied by the gate before the norm (Mamba-2); 0: the result is.
    pub gate_first: i32,
}

const _: () = assert!(
    size_of::<kvern_norm_options>() == 7 * size_of::<usize>() + 16,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers and raw pointers: every pattern is a value.
unsafe impl Options for kvern_norm_options {}

/// `y = norm(x) * gain + bias`, row by row; with a gate `norm(x) * gain * act(gate)`, or
/// `norm(x * act(gate)) * gain`, each part where the options ask for it.
///
/// `x`, `y`: (rows, n), f32, strides in elements. `y` must not overlap the inputs.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (n no multiple of groups, part_len), OPTION,
/// UNSUPPORTED, ALIASED; `y` is unchanged then. Threads: `ctx` shared, `y` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_norm(
    ctx: *const kvern_context,
    options: *const kvern_norm_options,
    rows: usize,
    n: usize,
    x: *const f32,
    x_row_stride: usize,
    y: *mut f32,
    y_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, raw) = (shared("ctx", ctx)?, read("options", options)?);
        let len = nonzero(raw.part_len).unwrap_or(n);
        let gain = optional(raw.gain, |gain| Array::new("options->gain", gain, len))?;
        let bias = optional(raw.bias, |bias| Array::new("options->bias", bias, len))?;
        let gate =
            optional(raw.gate, |gate| Array::matrix("options->gate", gate, rows, n, raw.gate_row_stride))?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?;
        let inputs = [x.span(), span_of(&gain), span_of(&bias), span_of(&gate)];
        let y = Array::matrix("y", y, rows, n, y_row_stride)?.apart_from(&inputs)?;
        let kinds = [NormKind::Rms, NormKind::Layer, NormKind::L2, NormKind::Unit];
        let kinds = kinds.map(|kind| (kind as i32, kind));
        let kind = choose("options->kind", raw.kind, "a KVERN_NORM number", &kinds)?;
        let mut options = NormOptions::new(kind, raw.eps).groups(nonzero(raw.groups).unwrap_or(1));
        if let Some(gain) = gain {
            options = options.gain(gain.get());
        }
        if let Some(bias) = bias {
            options = options.bias(bias.get());
        }
        let act = activation("options->gate_activation", raw.gate_activation)?;
        let first = flag("options->gate_first", raw.gate_first)?;
        if let Some(gate) = gate {
            let gate = gate.view()?;
            options = if first { options.gate_first(act, gate) } else { options.gate(act, gate) };
        }
        Ok(ops::norm(&ctx.context, &options, x.view()?, y.view_mut()?)?)
    })
}
