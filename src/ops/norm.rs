//! Layer norm and RMS norm.

use super::{for_each_row, same_shape};
use crate::context::Context;
use crate::error::{Result, equal};
use crate::fp_mode;
use crate::view::{MatMut, MatRef};

/// `y = (x - mean) / sqrt(var + eps) * gain + bias`, row by row.
///
/// - **Shapes**: `x`, `y`: (rows, n); `gain`, `bias`: (n).
/// - **Numerics**: an element is within `2^-21 * ((1 + |d|) * |gain| + |bias|)` of the exact result, where d
///   is the normalised element, whatever the row's mean, its size and `eps`. Mean and variance (biased) are
///   16-lane sums of differences, first from `x[0]`, then from the mean, so that a large mean costs no
///   digits. A row of equal elements gives `bias`, with an `eps` of 0, too. A row whose squares would leave
///   the range of f32 is scaled by a power of two first. NaN or infinity in a row makes all of it NaN.
/// - **Errors**: `Shape`; `Option` for a transposed `x`.
/// - **Cost**: three passes over each row; allocates nothing.
/// - **Source**: Ba, Kiros & Hinton 2016; two-sum of Knuth (TAOCP 4.2.2).
pub fn layer_norm(
    ctx: &Context,
    x: MatRef<'_>,
    gain: &[f32],
    bias: &[f32],
    eps: f32,
    y: MatMut<'_>,
) -> Result<()> {
    equal("bias.len", bias.len(), "must equal x.cols =", x.cols())?;
    norm(ctx, true, x, gain, Some(bias), eps, y)
}

/// `y = x / sqrt(mean(x^2) + eps) * gain`, row by row.
///
/// - **Shapes**: `x`, `y`: (rows, n); `gain`: (n).
/// - **Numerics**: the sum of squares by 16 lanes of FMA; `(x * inv) * gain`. Where squares would leave the
///   range of f32, the row is scaled by a power of two first and `eps` by its square, which changes no bit
///   elsewhere. A row of zeros gives zeros, with an `eps` of 0, too.
/// - **Errors**: as [`layer_norm`].
/// - **Cost**: two passes over each row; allocates nothing.
/// - **Source**: Zhang & Sennrich 2019.
pub fn rms_norm(ctx: &Context, x: MatRef<'_>, gain: &[f32], eps: f32, y: MatMut<'_>) -> Result<()> {
    norm(ctx, false, x, gain, None, eps, y)
}

fn norm(
    ctx: &Context,
    subtract_mean: bool,
    x: MatRef<'_>,
    gain: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    y: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    same_shape(["x.rows", "x.cols", "x"], x, &y)?;
    equal("gain.len", gain.len(), "must equal x.cols =", x.cols())?;
    let kernels = ctx.kernels();
    for_each_row(ctx, y, &|i, y| {
        if let Some(x) = x.row(i) {
            kernels.norm(subtract_mean, x, gain, bias, eps, y);
        }
    });
    Ok(())
}
