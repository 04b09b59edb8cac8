//! The call: what is checked, and the parts that tokens go in.

use super::part::Part;
use super::plan::{Shape, Sizes};
use super::types::{Expert, ExpertOptions};
use crate::buffer::Workspace;
use crate::context::Context;
use crate::error::{Error, Result, equal, product};
use crate::fp_mode;
use crate::view::{MatMut, MatRef};

/// Tokens of a part: as many rows as an item of a product has.
const TOKENS: usize = 512;

/// Bytes of workspace that are enough for [`multiply_experts`] of up to so many tokens, each with up to
/// `chosen` experts.
///
/// **Errors**: as [`multiply_experts`] for the experts; `Overflow`.
pub fn experts_workspace_bytes(
    ctx: &Context,
    options: &ExpertOptions,
    experts: &[Expert<'_>],
    tokens: usize,
    chosen: usize,
) -> Result<usize> {
    experts_bytes_of(ctx, options, (experts.len(), &|i| experts[i]), tokens, chosen)
}

/// [`experts_workspace_bytes`] of experts that are looked up.
pub(crate) fn experts_bytes_of<'a>(
    ctx: &Context,
    options: &ExpertOptions,
    (count, expert): (usize, &(dyn Fn(usize) -> Expert<'a> + Sync)),
    tokens: usize,
    chosen: usize,
) -> Result<usize> {
    let shape = Shape::of(count, expert)?;
    shape.check(options)?;
    Sizes::of(ctx, options, &shape, expert, tokens.min(TOKENS), chosen)?.bytes()
}

/// The chosen experts of each token, weighted and added: `out[t] += sum of weights[t][i] *
/// expert(indices[t][i], x[t])`.
///
/// - **Formula**: [`Expert`], with the activation and biases of [`ExpertOptions`] between and behind the
///   products.
/// - **Shapes**: `x`: (tokens, hidden), plain; `indices`, `weights`: (tokens, chosen) without gaps, as
///   [`route`](crate::ops::route) gives them; `out`: (tokens, out), to which is added: zeros, a residual, or
///   a shared expert. All experts have one shape; their formats may differ.
/// - **Numerics**: the bits of [`PackedWeights::multiply`](crate::quant::PackedWeights::multiply) with the
///   biases and activations, rounded as there, then for each element one chain of fused multiply-adds
///   `out = fma(weight, result, out)` over the list of the token. A token has the bits that it has alone,
///   whatever others chose and in whatever order they come.
/// - **Errors**: `Shape` for an index beyond the experts, and for experts of different shapes; `Option` for a
///   transposed `x`, for weights with an order of k (GPTQ's act-order), and for an up that some experts have;
///   `Workspace`; nothing is changed then.
/// - **Cost**: reads the chosen experts' weights once for each 512 tokens; activations are quantised once;
///   five parallel regions; allocates nothing. Weights of floats run one expert after the other.
/// - **Source**: own; Shazeer et al. 2017.
#[allow(clippy::too_many_arguments)] // three inputs and an output
pub fn multiply_experts(
    ctx: &Context,
    ws: &mut Workspace,
    options: &ExpertOptions,
    experts: &[Expert<'_>],
    x: MatRef<'_>,
    indices: &[u32],
    weights: &[f32],
    out: MatMut<'_>,
) -> Result<()> {
    multiply_experts_of(ctx, ws, options, (experts.len(), &|i| experts[i]), x, indices, weights, out)
}

/// [`multiply_experts`] with experts that are looked up.
#[allow(clippy::too_many_arguments)] // as there
pub(crate) fn multiply_experts_of<'a>(
    ctx: &Context,
    ws: &mut Workspace,
    options: &ExpertOptions,
    (count, expert): (usize, &(dyn Fn(usize) -> Expert<'a> + Sync)),
    x: MatRef<'_>,
    indices: &[u32],
    weights: &[f32],
    mut out: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let shape = Shape::of(count, expert)?;
    shape.check(options)?;
    let tokens = x.rows();
    equal("x.cols", x.cols(), "must equal the experts' hidden size =", shape.hidden)?;
    x.require_plain("x", "plain: rows are quantised as they lie")?;
    equal("out.rows", out.rows(), "must equal x.rows =", tokens)?;
    equal("out.cols", out.cols(), "must equal the experts' output size =", shape.out)?;
    let chosen = indices.len() / tokens.max(1);
    let want = product("tokens * chosen", &[tokens, chosen])?;
    equal("indices.len", indices.len(), "must be a multiple of x.rows, such as", want)?;
    equal("weights.len", weights.len(), "must equal indices.len =", indices.len())?;
    if let Some(&index) = indices.iter().find(|&&index| index as usize >= count) {
        let relation = "must be below the experts =";
        return Err(Error::Shape { what: "indices", got: index as usize, relation, want: count });
    }
    let sizes = Sizes::of(ctx, options, &shape, expert, tokens.min(TOKENS), chosen)?;
    let need = sizes.bytes()?;
    ws.arena(need)?;
    if chosen == 0 {
        return Ok(());
    }
    for first in (0..tokens).step_by(TOKENS) {
        let rows = TOKENS.min(tokens - first);
        let pairs = first * chosen..(first + rows) * chosen;
        let part = Part {
            ctx,
            options,
            shape: &shape,
            sizes: &sizes,
            expert,
            x: MatRef::new(x.from(first, 0), rows, x.cols(), x.strides().0)?,
            indices: &indices[pairs.clone()],
            weights: &weights[pairs],
            chosen,
        };
        part.run(ws.arena(need)?, out.tile(first, 0, rows, shape.out))?;
    }
    Ok(())
}
