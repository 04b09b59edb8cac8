//! Operations over the tokens of a sequence: pooling, cumulative sums, causal convolution.

use super::rows::{Grid, for_each_block};
use super::{for_each_row, same_shape};
use crate::context::Context;
use crate::epilogue::Activation;
use crate::error::{Error, Result, equal, option, product};
use crate::fp_mode;
use crate::kernels::{Binary, MAX_TAPS};
use crate::view::{MatMut, MatRef};

/// Columns of a work item: 1 KiB a row, so that sums and taps stay in the L1 cache.
const COLUMNS: usize = 256;

/// Rows of a work item of a convolution.
const TOKENS: usize = 16;

/// `out[i] = mean of the rows starts[i]..starts[i + 1] of x that are seen`: one vector for each sequence of a
/// batch, as text encoders give. A sequence of which nothing is seen gives zeros.
///
/// - **Shapes**: `x`: (tokens, n); `starts`: (sequences + 1), ascending, the last one at most `tokens`;
///   `seen`: (tokens); `out`: (sequences, n). Sequences follow each other without padding, or, of equal
///   length, with padding that `seen` hides.
/// - **Numerics**: for each column one chain of additions over the tokens ascending, from +0.0, then one
///   division: within `tokens * 2^-24 * mean(|x|)`. A hidden token adds nothing, not even NaN.
/// - **Errors**: `Shape`; `Option` for a transposed `x`; nothing is changed then.
/// - **Cost**: one pass over `x`; allocates nothing.
pub fn mean_pool(
    ctx: &Context,
    x: MatRef<'_>,
    starts: &[usize],
    seen: Option<&[bool]>,
    out: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let bounds = out.rows().checked_add(1).ok_or(Error::Overflow { what: "out.rows + 1" })?;
    equal("starts.len", starts.len(), "must equal out.rows + 1 =", bounds)?;
    equal("x.cols", x.cols(), "must equal out.cols =", out.cols())?;
    equal("seen.len", seen.map_or(x.rows(), <[bool]>::len), "must equal x.rows =", x.rows())?;
    x.require_plain("x", "plain: operations go row by row")?;
    let shape = |got, relation, want| Err(Error::Shape { what: "starts", got, relation, want });
    if let Some(pair) = starts.windows(2).find(|pair| pair[0] > pair[1]) {
        return shape(pair[0], "must be at most the next one =", pair[1]);
    }
    if let Some(&last) = starts.last().filter(|last| **last > x.rows()) {
        return shape(last, "must be at most x.rows =", x.rows());
    }
    let kernels = ctx.kernels();
    let grid = Grid { tile_rows: 1, tile_cols: COLUMNS };
    for_each_block(ctx, x.rows().saturating_mul(x.cols()), out, grid, &|at, mut out| {
        let out = out.row(0);
        out.fill(0.0);
        let mut count = 0usize;
        for token in (starts[at.row]..starts[at.row + 1]).filter(|&i| seen.is_none_or(|seen| seen[i])) {
            if let Some(x) = x.row(token) {
                kernels.binary(Binary::Add, out, &x[at.col..at.col + out.len()]);
                count += 1;
            }
        }
        kernels.divide(out, count as f32);
    });
    Ok(())
}

/// The direction of [`cumulative_sum`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum Along {
    /// Along each row: from one element of a token to the next one.
    Row = 0,
    /// Down each column: from token to token.
    Column = 1,
}

/// Replaces each element by the sum of it and of all before it, along rows or down columns.
///
/// - **Shapes**: `x`: (rows, n).
/// - **Numerics**: one chain of additions from +0.0, each sum the last one plus the element.
/// - **Cost**: one pass; down columns with vectors, along rows one addition after the other, as the order
///   demands; allocates nothing.
pub fn cumulative_sum(ctx: &Context, along: Along, x: MatMut<'_>) {
    let _mode = fp_mode::default_mode();
    if along == Along::Row {
        return for_each_row(ctx, x, &|_, x| {
            let mut sum = 0.0;
            for x in x {
                sum += *x;
                *x = sum;
            }
        });
    }
    let kernels = ctx.kernels();
    let elements = x.rows().saturating_mul(x.cols());
    let grid = Grid { tile_rows: x.rows().max(1), tile_cols: COLUMNS };
    for_each_block(ctx, elements, x, grid, &|_, mut x| {
        let mut sums = [0.0; COLUMNS];
        let sums = &mut sums[..x.cols()];
        for i in 0..x.rows() {
            kernels.binary(Binary::Add, sums, x.row(i));
            x.row(i).copy_from_slice(sums);
        }
    });
}

/// The taps of [`causal_conv`] and what follows them.
#[derive(Debug, Clone, Copy)]
pub struct ConvOptions<'a> {
    weights: MatRef<'a>,
    bias: Option<&'a [f32]>,
    activation: Activation,
}

impl<'a> ConvOptions<'a> {
    /// Weights (taps, channels), the tap of the oldest token first: the transpose of the (channels, taps)
    /// that checkpoints store. 2 to 8 taps.
    pub fn new(weights: MatRef<'a>) -> ConvOptions<'a> {
        ConvOptions { weights, bias: None, activation: Activation::Identity }
    }

    /// Adds a number to each channel: (channels).
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Applies a function after the bias, usually [`Activation::Silu`].
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }
}

/// Convolves each channel along the tokens: the short convolution of Mamba-2, of the delta nets and of LFM2.
///
/// - **Formula**: `y[t][c] = act(sum over j of weights[j][c] * x[t - taps + 1 + j][c] + bias[c])`; what lies
///   before the first token is `state`, which ends as the last `taps - 1` inputs. A new sequence starts from
///   zeros.
/// - **Shapes**: `x`, `y`: (tokens, channels); `state`: (taps - 1, channels) without gaps, the oldest first.
/// - **Numerics**: for each element one chain of fused multiply-adds over the taps, the oldest first, from
///   +0.0; then one addition of the bias, then [`Activation`]. So tokens have the same bits one at a time, in
///   chunks of any length, and all at once.
/// - **Errors**: `Shape`; `Option` for taps beyond 2..=8 or a transposed view; nothing is changed then.
/// - **Cost**: one pass; allocates nothing.
pub fn causal_conv(
    ctx: &Context,
    options: &ConvOptions<'_>,
    x: MatRef<'_>,
    state: &mut [f32],
    y: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let &ConvOptions { weights, bias, activation } = options;
    let (taps, channels) = (weights.rows(), x.cols());
    same_shape(["x.rows", "x.cols", "x"], x, &y)?;
    option((2..=MAX_TAPS).contains(&taps), "weights.rows", taps, "2..=8: one row for each tap")?;
    equal("weights.cols", weights.cols(), "must equal x.cols =", channels)?;
    weights.require_plain("weights", "plain: one row for each tap")?;
    equal("bias.len", bias.map_or(channels, <[f32]>::len), "must equal x.cols =", channels)?;
    let kept = product("state", &[taps - 1, channels])?;
    equal("state.len", state.len(), "must equal (taps - 1) * channels =", kept)?;
    let kernels = ctx.kernels();
    let before: &[f32] = state;
    let grid = Grid { tile_rows: TOKENS, tile_cols: COLUMNS };
    for_each_block(ctx, x.rows().saturating_mul(channels), y, grid, &|at, mut y| {
        let columns = at.col..at.col + y.cols();
        // Row i of the state and the tokens behind it.
        let row = |i: usize| match i.checked_sub(taps - 1) {
            None => &before[i * channels..][columns.clone()],
            Some(token) => x.row(token).map_or(&[][..], |x| &x[columns.clone()]),
        };
        let weights = (weights.from(0, at.col), weights.strides().0);
        let bias = bias.map(|bias| &bias[columns.clone()]);
        for i in 0..y.rows() {
            let y = y.row(i);
            kernels.convolve((at.row + i..at.row + i + taps).map(row), weights, bias, y);
            if activation != Activation::Identity {
                kernels.activate(activation, y);
            }
        }
    });
    let new = x.rows().min(taps - 1);
    state.copy_within(new * channels.., 0);
    for (to, token) in state[kept - new * channels..].chunks_exact_mut(channels.max(1)).zip(x.rows() - new..)
    {
        if let Some(x) = x.row(token) {
            to.copy_from_slice(x);
        }
    }
    Ok(())
}
