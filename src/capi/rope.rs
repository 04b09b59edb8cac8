//! Rotary position embedding.

use super::args::{
    Array, Options, choose, exclusive, heads_of, no_flags, nonzero, put, read_or_default, shared,
};
use super::context::kvern_context;
use super::status::{Checked, Failure, KVERN_STATUS_UNSUPPORTED, kvern_status};
use super::{create, destroy, guard};
use crate::error::equal;
use crate::ops::{self, RopePairs, RopeScaling, RopeTable};
use crate::{Context, MatMut};

/// Which elements of a head are rotated together: a `KVERN_ROPE_*` number.
pub type kvern_rope_pairs = i32;

/// (i, i + n/2): GPT-NeoX, and Llama as converted by Hugging Face.
pub const KVERN_ROPE_HALVES: kvern_rope_pairs = 0;
/// (2i, 2i + 1): the paper, GPT-J, and Llama as published.
pub const KVERN_ROPE_INTERLEAVED: kvern_rope_pairs = 1;

/// How frequencies are changed for a longer context: a `KVERN_ROPE_SCALING_*` number.
pub type kvern_rope_scaling_kind = i32;

/// base^(-2i / rotary_dim), as it is.
pub const KVERN_ROPE_SCALING_NONE: kvern_rope_scaling_kind = 0;
/// Frequencies divided by factor: position interpolation.
pub const KVERN_ROPE_SCALING_LINEAR: kvern_rope_scaling_kind = 1;
/// base * factor^(d / (d - 2)) instead of base, d = rotary_dim.
pub const KVERN_ROPE_SCALING_NTK: kvern_rope_scaling_kind = 2;
/// High frequencies stay, low ones are divided by factor, with a ramp between (beta_fast to beta_slow turns
/// over original_positions); cosines and sines times attention_factor. The ends of the ramp are rounded
/// outwards to whole pairs, or not: KVERN_ROPE_SCALING_FLAG_UNROUNDED.
pub const KVERN_ROPE_SCALING_YARN: kvern_rope_scaling_kind = 3;
/// Wavelengths below original_positions / high_frequency stay, those above original_positions / low_frequency
/// are divided by factor, with a ramp between: Llama 3.1. Equal frequencies make a step: Llama 4 Scout.
pub const KVERN_ROPE_SCALING_LLAMA3: kvern_rope_scaling_kind = 4;

/// A flag for KVERN_ROPE_SCALING_YARN: the ends of the ramp are not rounded to whole pairs (`truncate: false`
/// of model configurations; gpt-oss).
pub const KVERN_ROPE_SCALING_FLAG_UNROUNDED: u32 = 1;

/// Frequencies for a longer context than the model was trained on. Start from KVERN_ROPE_SCALING_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_rope_scaling {
    /// sizeof(kvern_rope_scaling).
    pub struct_size: usize,
    /// Positions of the trained context, at least 1.
    pub original_positions: usize,
    /// A `KVERN_ROPE_SCALING_*` number; each uses the fields that its description names.
    pub kind: kvern_rope_scaling_kind,
    /// 0, or with KVERN_ROPE_SCALING_YARN KVERN_ROPE_SCALING_FLAG_UNROUNDED.
    pub flags: u32,
    /// The ratio of the new context to the trained one, positive.
    pub factor: f64,
    /// 0 means 32.
    pub beta_fast: f64,
    /// 0 means 1.
    pub beta_slow: f64,
    /// 0 means 0.1 ln(factor) + 1 (1 for a factor up to 1).
    pub attention_factor: f64,
    /// 0 means 1.
    pub low_frequency: f64,
    /// 0 means 4. At least low_frequency.
    pub high_frequency: f64,
}

const _: () = assert!(
    size_of::<kvern_rope_scaling>() == 2 * size_of::<usize>() + 56,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers: every pattern is a value.
unsafe impl Options for kvern_rope_scaling {}

/// Cosines and sines for `kvern_rope`. Immutable.
#[derive(Debug)]
pub struct kvern_rope_table(pub(super) RopeTable);

#[inline(never)]
pub(super) fn pairs(what: &'static str, number: kvern_rope_pairs) -> Checked<RopePairs> {
    let values = [RopePairs::Halves, RopePairs::Interleaved].map(|pairs| (pairs as i32, pairs));
    choose(what, number, "a KVERN_ROPE number", &values)
}

fn scaling(raw: &kvern_rope_scaling) -> Checked<RopeScaling> {
    let kvern_rope_scaling { factor, original_positions, .. } = *raw;
    let (none, linear, ntk) =
        (RopeScaling::None, RopeScaling::Linear { factor }, RopeScaling::Ntk { factor });
    let yarn = RopeScaling::Yarn {
        factor,
        original_positions,
        beta_fast: nonzero(raw.beta_fast).unwrap_or(32.0),
        beta_slow: nonzero(raw.beta_slow).unwrap_or(1.0),
        attention_factor: nonzero(raw.attention_factor),
        round_ramp: raw.flags & KVERN_ROPE_SCALING_FLAG_UNROUNDED == 0,
    };
    let llama3 = RopeScaling::Llama3 {
        factor,
        original_positions,
        low_frequency: nonzero(raw.low_frequency).unwrap_or(1.0),
        high_frequency: nonzero(raw.high_frequency).unwrap_or(4.0),
    };
    if raw.kind != KVERN_ROPE_SCALING_YARN {
        no_flags("scaling->flags", raw.flags)?;
    } else if raw.flags & !KVERN_ROPE_SCALING_FLAG_UNROUNDED != 0 {
        let message =
            format_args!("scaling->flags = {} must be 0 or KVERN_ROPE_SCALING_FLAG_UNROUNDED", raw.flags);
        return Err(Failure::new(KVERN_STATUS_UNSUPPORTED, message));
    }
    let values = [
        (KVERN_ROPE_SCALING_NONE, none),
        (KVERN_ROPE_SCALING_LINEAR, linear),
        (KVERN_ROPE_SCALING_NTK, ntk),
        (KVERN_ROPE_SCALING_YARN, yarn),
        (KVERN_ROPE_SCALING_LLAMA3, llama3),
    ];
    choose("scaling->kind", raw.kind, "a KVERN_ROPE_SCALING number", &values)
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
    guard(|| unsafe { create(out, || Ok(kvern_rope_table(RopeTable::new(rotary_dim, positions, base)?))) })
}

/// `kvern_rope_table_create` with frequencies for a longer context.
///
/// `scaling`: NULL for none.
/// Errors: as `kvern_rope_table_create`; OPTION for a number of `scaling` out of its range; UNSUPPORTED.
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_create_scaled(
    rotary_dim: usize,
    positions: usize,
    base: f64,
    scaling: *const kvern_rope_scaling,
    out: *mut *mut kvern_rope_table,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let scaling = self::scaling(&read_or_default("scaling", scaling)?)?;
            Ok(kvern_rope_table(RopeTable::scaled(rotary_dim, positions, base, &scaling)?))
        })
    })
}

/// Makes the table of given frequencies, in radians a position, with cosines and sines times `amplitude`: for
/// models that store theirs.
///
/// `frequencies`: pairs elements, f64; rotary_dim is 2 * pairs. `amplitude`: usually 1.
/// `out`: receives the table, NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OPTION (no frequency, or a number that is not finite), OVERFLOW,
/// RESOURCE.
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_from_frequencies(
    pairs: usize,
    frequencies: *const f64,
    positions: usize,
    amplitude: f64,
    out: *mut *mut kvern_rope_table,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and `frequencies` has `pairs` elements, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let frequencies = Array::new("frequencies", frequencies, pairs)?;
            Ok(kvern_rope_table(RopeTable::from_frequencies(frequencies.get(), positions, amplitude)?))
        })
    })
}

/// `*out` = the positions that the table covers.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_positions(
    table: *const kvern_rope_table,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("table", table)?.0.positions()) })
}

/// `*out` = the elements of a head that the table rotates.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_rotary_dim(
    table: *const kvern_rope_table,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("table", table)?.0.rotary_dim()) })
}

/// `*out` = the bytes that the table holds.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_bytes(
    table: *const kvern_rope_table,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("table", table)?.0.bytes()) })
}

/// Moves the table to as many positions from `first` on, so that positions have no bound: a table as long as
/// the longest call is enough for a stream of any length. Allocates nothing.
///
/// Errors: NULL_POINTER, OVERFLOW (an end beyond 2^53); the table is unchanged then.
/// Threads: `table` exclusive. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_move_to(
    table: *mut kvern_rope_table,
    first: usize,
) -> kvern_status {
    // SAFETY: `table` is NULL or live and exclusive, by the header's contract.
    guard(|| unsafe { Ok(exclusive("table", table)?.0.move_to(first)?) })
}

/// `*out` = the first position that the table covers.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_first(
    table: *const kvern_rope_table,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("table", table)?.0.first()) })
}

/// Copies the cosines and sines of a position.
///
/// `pairs`: rotary_dim / 2. `cos`, `sin`: receive `pairs` elements each, f32; they must not overlap.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (a position beyond the table, a wrong `pairs`), ALIASED.
/// Threads: `table` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_row(
    table: *const kvern_rope_table,
    position: usize,
    pairs: usize,
    cos: *mut f32,
    sin: *mut f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and have `pairs` elements, by the header's contract.
    guard(|| unsafe {
        let table = &shared("table", table)?.0;
        equal("pairs", pairs, "must equal rotary_dim / 2 =", table.rotary_dim() / 2)?;
        let row = table.checked_row(position)?;
        let cos = Array::new("cos", cos, pairs)?;
        let sin = Array::new("sin", sin, pairs)?.apart_from(&[cos.span()])?;
        cos.get_mut().copy_from_slice(row.0);
        sin.get_mut().copy_from_slice(row.1);
        Ok(())
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
        let x = heads_of("x", x, tokens, (heads, head_dim), x_row_stride)?;
        rotate(ctx, table, pairs, x, |ctx, table, pairs, x| ops::rope(ctx, table, pairs, head_dim, first, x))
    })
}

/// `kvern_rope` with a position for each token: branches of a tree of drafts, tokens of several sequences.
///
/// `positions`: tokens elements; must not overlap `x`.
/// Errors: as `kvern_rope`; ALIASED. Threads: as `kvern_rope`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_at(
    ctx: *const kvern_context,
    table: *const kvern_rope_table,
    pairs: kvern_rope_pairs,
    positions: *const usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let positions = Array::new("positions", positions, tokens)?;
        let x = heads_of("x", x, tokens, (heads, head_dim), x_row_stride)?.apart_from(&[positions.span()])?;
        rotate(ctx, table, pairs, x, |ctx, table, pairs, x| {
            ops::rope_at(ctx, table, pairs, head_dim, positions.get(), x)
        })
    })
}

/// # Safety
/// - pointers are NULL or live, and nothing else uses the memory of `x`.
unsafe fn rotate(
    ctx: *const kvern_context,
    table: *const kvern_rope_table,
    pairs: kvern_rope_pairs,
    x: Array<f32>,
    rope: impl FnOnce(&Context, &RopeTable, RopePairs, MatMut<'_>) -> crate::Result<()>,
) -> Checked<()> {
    let pairs = self::pairs("pairs", pairs)?;
    // SAFETY: handed on to the caller.
    unsafe {
        let (ctx, table) = (shared("ctx", ctx)?, shared("table", table)?);
        Ok(rope(&ctx.context, &table.0, pairs, x.view_mut()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_the_numbers_of_the_safe_api() {
        assert_eq!(pairs("x", KVERN_ROPE_HALVES).ok(), Some(RopePairs::Halves));
        assert_eq!(pairs("x", KVERN_ROPE_INTERLEAVED).ok(), Some(RopePairs::Interleaved));
    }
}
