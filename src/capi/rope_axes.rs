//! Rotation by positions along several axes, and tables with a factor for each pair.

use super::args::{Array, flag, heads_of, shared};
use super::context::kvern_context;
use super::rope::{kvern_rope_pairs, kvern_rope_table, pairs};
use super::status::kvern_status;
use super::{create, guard};
use crate::error::product;
use crate::ops::{self, RopeTable};

/// A table of base^(-2i / rotary_dim) / factors[i], with cosines and sines multiplied by `amplitude`:
/// LongRoPE, whose short or long factors a model stores. An infinite factor leaves a pair as it is.
///
/// `factors`: one for each of `pairs` pairs, positive; rotary_dim is 2 * pairs. `out`: receives the object,
/// NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OPTION, OVERFLOW, RESOURCE. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_table_with_factors(
    pairs: usize,
    factors: *const f64,
    positions: usize,
    base: f64,
    amplitude: f64,
    out: *mut *mut kvern_rope_table,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and `factors` has `pairs` elements, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let factors = Array::new("factors", factors, pairs)?;
            Ok(kvern_rope_table(RopeTable::with_factors(factors.get(), positions, base, amplitude)?))
        })
    })
}

/// `axes[p]` = the axis of pair p of a head that is cut into sections, one for each axis: the first
/// sections[0] pairs belong to axis 0, the next ones to axis 1 (Qwen2-VL; rows and columns of vision towers);
/// with `interleaved` pair p belongs to axis a = p mod count while p < count * sections[a], and else to axis
/// 0 (Qwen3-VL).
///
/// `sections`: count elements, at most 255, with a sum of `pairs`. `axes`: pairs bytes, must not overlap
/// them.
/// Errors: NULL_POINTER, MISALIGNED, SHAPE (another sum), OPTION, OVERFLOW, ALIASED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_sections(
    count: usize,
    sections: *const usize,
    interleaved: i32,
    pairs: usize,
    axes: *mut u8,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let sections = Array::new("sections", sections, count)?;
        let axes = Array::new("axes", axes, pairs)?.apart_from(&[sections.span()])?;
        let interleaved = flag("interleaved", interleaved)?;
        Ok(ops::rope_sections(sections.get(), interleaved, axes.get_mut())?)
    })
}

/// `kvern_rope_at` with a position of each token along each of several axes: time, height and width of
/// Qwen-VL (M-RoPE), rows and columns of a vision tower. Pair p of token t turns by the angle of position
/// positions[axes[p]][t].
///
/// `axes`: rotary_dim / 2 bytes, as `kvern_rope_sections` makes them. `positions`: (axis_count, tokens)
/// without gaps. Neither may overlap `x`.
/// Errors: as `kvern_rope_at`; SHAPE for an axis without positions. Threads: as `kvern_rope_at`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_rope_axes(
    ctx: *const kvern_context,
    table: *const kvern_rope_table,
    pairs: kvern_rope_pairs,
    axis_count: usize,
    axes: *const u8,
    positions: *const usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
    x: *mut f32,
    x_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, table) = (shared("ctx", ctx)?, &shared("table", table)?.0);
        let axes = Array::new("axes", axes, table.rotary_dim() / 2)?;
        let len = product("axis_count * tokens", &[axis_count, tokens])?;
        let positions = Array::new("positions", positions, len)?;
        let x = heads_of("x", x, tokens, (heads, head_dim), x_row_stride)?;
        let x = x.apart_from(&[axes.span(), positions.span()])?;
        let pairs = self::pairs("pairs", pairs)?;
        let (axes, positions, x) = (axes.get(), positions.get(), x.view_mut()?);
        Ok(ops::rope_axes(&ctx.context, table, pairs, head_dim, axes, positions, x)?)
    })
}
