//! Rotation by positions along several axes: text, images and video in one sequence.

use super::RopeTable;
use super::for_each_row;
use super::rope::{RopePairs, check};
use crate::context::Context;
use crate::error::{Error, Result, equal, option, product};
use crate::fp_mode;
use crate::view::MatMut;

/// The most pairs of a head.
const MAX_PAIRS: usize = 256;

/// The axis of each pair of a head that is cut into sections, one for each axis.
///
/// - **Formula**: without `interleaved` the first `sections[0]` pairs belong to axis 0, the next ones to axis
///   1, and so on (Qwen2-VL; the rows and columns of vision towers). With it pair i belongs to axis
///   `a = i mod sections.len()` while `i < sections.len() * sections[a]`, and else to axis 0 (Qwen3-VL).
/// - **Shapes**: `axes`: (pairs), as many as the sections have in all.
/// - **Errors**: `Shape` when the sections' sum is not the number of pairs; `Option` for no or more than 255
///   sections; nothing is changed then.
pub fn rope_sections(sections: &[usize], interleaved: bool, axes: &mut [u8]) -> Result<()> {
    let count = sections.len();
    option((1..=255).contains(&count), "sections.len", count, "1..=255")?;
    let sum = sections.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    let sum = sum.ok_or(Error::Overflow { what: "the sum of sections" })?;
    equal("the sum of sections", sum, "must equal the pairs =", axes.len())?;
    if interleaved {
        for (i, axis) in axes.iter_mut().enumerate() {
            let own = i % count;
            *axis = if i / count < sections[own] { own as u8 } else { 0 };
        }
        return Ok(());
    }
    let mut axes = axes.iter_mut();
    for (axis, &pairs) in sections.iter().enumerate() {
        axes.by_ref().take(pairs).for_each(|to| *to = axis as u8);
    }
    Ok(())
}

/// [`rope_at`](super::rope_at) with a position of each token along each of several axes: time, height and
/// width of Qwen-VL (M-RoPE), rows and columns of a vision tower.
///
/// - **Formula**: as [`rope`](super::rope), pair p of token t by the angle of position
///   `positions[axes[p]][t]`. With equal positions on all axes the bits are those of `rope_at`.
/// - **Shapes**: `axes`: (rotary_dim / 2), as [`rope_sections`] makes them; `positions`: (axes, tokens)
///   without gaps; `x`: (tokens, heads * head_dim).
/// - **Errors**: `Shape` as `rope_at`, and for an axis without positions; `Option` for more than 256 pairs;
///   nothing is changed then.
/// - **Cost**: one pass, and the gathering of a token's angles; allocates nothing.
/// - **Source**: Wang et al. 2024 (Qwen2-VL).
pub fn rope_axes(
    ctx: &Context,
    table: &RopeTable,
    pairs: RopePairs,
    head_dim: usize,
    axes: &[u8],
    positions: &[usize],
    x: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    check(table, head_dim, x.cols())?;
    let (tokens, count) = (x.rows(), table.rotary_dim() / 2);
    option(count <= MAX_PAIRS, "rotary_dim / 2", count, "at most 256 for positions on axes")?;
    equal("axes.len", axes.len(), "must equal rotary_dim / 2 =", count)?;
    let rows = positions.len() / tokens.max(1);
    let want = product("axes * tokens", &[rows, tokens])?;
    equal("positions.len", positions.len(), "must be a multiple of x.rows, such as", want)?;
    if let Some(&axis) = axes.iter().find(|&&axis| axis as usize >= rows && tokens > 0) {
        let relation = "must be below the rows of positions =";
        return Err(Error::Shape { what: "axes", got: axis.into(), relation, want: rows });
    }
    positions.iter().try_for_each(|&p| table.check("positions", p))?;
    let (kernels, kind) = (ctx.kernels(), pairs.kernel());
    for_each_row(ctx, x, &|i, row| {
        let (mut cos, mut sin) = ([0.0; MAX_PAIRS], [0.0; MAX_PAIRS]);
        let (cos, sin) = (&mut cos[..count], &mut sin[..count]);
        for (axis, row) in positions.chunks_exact(tokens).enumerate() {
            let (all_cos, all_sin) = table.angles(row[i]);
            for p in (0..count).filter(|&p| axes[p] as usize == axis) {
                (cos[p], sin[p]) = (all_cos[p], all_sin[p]);
            }
        }
        for head in row.chunks_exact_mut(head_dim) {
            kernels.rope(kind, &mut head[..2 * count], cos, sin);
        }
    });
    Ok(())
}
