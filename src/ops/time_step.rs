//! The steps and decays of recurrent states.

use super::{for_each_row, same_shape};
use crate::context::Context;
use crate::epilogue::Activation;
use crate::error::{Result, equal, option};
use crate::fp_mode;
use crate::kernels::Binary;
use crate::view::{MatMut, MatRef};

/// What [`time_step`] does around its softplus.
#[derive(Debug, Clone, Copy)]
pub struct TimeStepOptions<'a> {
    bias: Option<&'a [f32]>,
    factor: Option<&'a [f32]>,
    limits: (f32, f32),
}

impl Default for TimeStepOptions<'_> {
    fn default() -> Self {
        TimeStepOptions { bias: None, factor: None, limits: (f32::NEG_INFINITY, f32::INFINITY) }
    }
}

impl<'a> TimeStepOptions<'a> {
    /// Adds a number to each column first: `dt_bias`, (n).
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Multiplies each column at the end, (n): by `-exp(A_log)` a step becomes the logarithm of a decay.
    pub fn factor(mut self, factor: &'a [f32]) -> Self {
        self.factor = Some(factor);
        self
    }

    /// Keeps the softplus in `least..=most`: the limits of Mamba-2's steps.
    pub fn limits(mut self, least: f32, most: f32) -> Self {
        self.limits = (least, most);
        self
    }
}

/// `y[i][j] = factor[j] * clamp(softplus(x[i][j] + bias[j]), least, most)`: the steps of Mamba-2, and, with a
/// factor, the decays of the delta nets: `g = -exp(A_log) * softplus(a + dt_bias)`.
///
/// - **Shapes**: `x`, `y`: (rows, n); `bias`, `factor`: (n).
/// - **Numerics**: one addition, [`Activation::Softplus`], the limits, one multiplication. NaN stays NaN.
/// - **Errors**: `Shape`; `Option` for a transposed `x`, and for limits that are NaN or in the wrong order;
///   nothing is changed then.
/// - **Cost**: one pass; allocates nothing.
pub fn time_step(ctx: &Context, options: &TimeStepOptions<'_>, x: MatRef<'_>, y: MatMut<'_>) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let &TimeStepOptions { bias, factor, limits: (least, most) } = options;
    same_shape(["x.rows", "x.cols", "x"], x, &y)?;
    let n = x.cols();
    equal("bias.len", bias.map_or(n, <[f32]>::len), "must equal x.cols =", n)?;
    equal("factor.len", factor.map_or(n, <[f32]>::len), "must equal x.cols =", n)?;
    option(least <= most, "limits", format_args!("{least}..={most}"), "in ascending order")?;
    let kernels = ctx.kernels();
    for_each_row(ctx, y, &|i, y| {
        let Some(x) = x.row(i) else { return };
        y.copy_from_slice(x);
        if let Some(bias) = bias {
            kernels.binary(Binary::Add, y, bias);
        }
        kernels.activate(Activation::Softplus, y);
        if (least, most) != (f32::NEG_INFINITY, f32::INFINITY) {
            y.iter_mut().for_each(|y| *y = y.clamp(least, most));
        }
        if let Some(factor) = factor {
            kernels.binary(Binary::Gate(Activation::Identity), y, factor);
        }
    });
    Ok(())
}
