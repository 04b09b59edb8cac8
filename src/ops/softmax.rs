//! Softmax as an operation of its own, and argmax.

use super::{for_each_row, same_shape};
use crate::context::Context;
use crate::error::{Error, Result, equal, option, positive};
use crate::fp_mode;
use crate::kernels::Adjust;
use crate::view::{MatMut, MatRef};

/// Options of [`softmax_with`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SoftmaxOptions<'a> {
    /// Factor of the elements; 1 by default.
    pub scale: f32,
    /// Soft cap: `cap * tanh(scale * x / cap)` instead of `scale * x`. Positive and finite, and so is
    /// `scale / cap`.
    pub softcap: Option<f32>,
    /// Added to the elements after scale and cap: (x.rows, n), or fewer rows that x.rows is a multiple of,
    /// and row i of x takes row `i mod mask.rows` (heads over one mask of queries; one row for all). An
    /// element of -inf is left out whatever x holds there, NaN included.
    pub mask: Option<MatRef<'a>>, // (rows of one period, n)
}

impl Default for SoftmaxOptions<'_> {
    fn default() -> Self {
        SoftmaxOptions { scale: 1.0, softcap: None, mask: None }
    }
}

impl<'a> SoftmaxOptions<'a> {
    /// Sets the factor of the elements.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// Sets the soft cap.
    pub fn softcap(mut self, cap: f32) -> Self {
        self.softcap = Some(cap);
        self
    }

    /// Sets the additive mask.
    pub fn mask(mut self, mask: MatRef<'a>) -> Self {
        self.mask = Some(mask);
        self
    }
}

/// Checks a soft cap, and the factor that it leaves of the scores.
pub(crate) fn check_softcap(cap: Option<f32>, scale: f32) -> Result<()> {
    let Some(cap) = cap else { return Ok(()) };
    positive("softcap", cap)?;
    let got = format_args!("{scale:e} / {cap:e}");
    option((scale / cap).is_finite(), "scale / softcap", got, FINITE)
}

/// What a factor has to be: 0 times an infinite one is NaN.
pub(crate) const FINITE: &str = "finite in f32";

/// `y = softmax(cap * tanh(scale * x / cap) + mask)`, row by row; without a soft cap `scale * x`, without a
/// mask no sum.
///
/// - **Shapes**: `x`, `y`: (rows, n) with any row strides; the mask as [`SoftmaxOptions::mask`] says.
/// - **Numerics**: `fl(scale * x)` (with a cap `fl(x * fl(scale / cap))`, tanh within 3e-7, one product), one
///   addition of the mask, then as [`softmax`]. A row that is masked everywhere becomes zeros.
/// - **Errors**: `Shape` for a mask of another width or period, `Option` for a transposed view, a cap that is
///   not positive and finite, or one for which `scale / cap` is not finite; nothing is changed then.
/// - **Cost**: five passes over each row, allocates nothing.
pub fn softmax_with(ctx: &Context, options: &SoftmaxOptions<'_>, x: MatRef<'_>, y: MatMut<'_>) -> Result<()> {
    let _mode = fp_mode::default_mode();
    same_shape(["x.rows", "x.cols", "x"], x, &y)?;
    check_softcap(options.softcap, options.scale)?;
    if let Some(mask) = options.mask {
        equal("mask.cols", mask.cols(), "must equal x.cols =", x.cols())?;
        if mask.rows() == 0 || !x.rows().is_multiple_of(mask.rows()) {
            let relation = "must be a multiple of mask.rows =";
            return Err(Error::Shape { what: "x.rows", got: x.rows(), relation, want: mask.rows() });
        }
        mask.require_plain("mask", "plain: operations go row by row")?;
    }
    let cap = options.softcap.unwrap_or(0.0);
    let factor = options.softcap.map_or(options.scale, |cap| options.scale / cap);
    let adjusts = cap != 0.0 || options.mask.is_some();
    let kernels = ctx.kernels();
    for_each_row(ctx, y, &|i, y| {
        if let Some(x) = x.row(i) {
            kernels.scale(x, factor, y);
        }
        if adjusts {
            let mask = options.mask.and_then(|mask| mask.row(i % mask.rows()));
            kernels.adjust(y, &Adjust { cap, mask, mask_factor: 1.0, ..Adjust::default() });
        }
        kernels.softmax(y);
    });
    Ok(())
}

/// `x = exp(x - max(x)) / sum`, in place, row by row. A row of -inf becomes zeros.
///
/// - **Shapes**: `x`: (rows, n).
/// - **Numerics**: the sum by 16 lanes; one exact division an element; NaN spreads over its row.
/// - **Cost**: three passes over each row, allocates nothing.
pub fn softmax(ctx: &Context, x: MatMut<'_>) {
    let _mode = fp_mode::default_mode();
    let kernels = ctx.kernels();
    for_each_row(ctx, x, &|_, x| kernels.softmax(x));
}

/// The index of the greatest element, the first of equals; NaN is left out, so `None` for an empty slice or
/// one of NaN only.
///
/// - **Cost**: one vector pass for the maximum and one up to it.
pub fn argmax(ctx: &Context, x: &[f32]) -> Option<usize> {
    let _mode = fp_mode::default_mode();
    const CHUNK: usize = 64;
    let max = ctx.kernels().max(x);
    // Whole chunks are compared without an exit, which the compiler vectorises; a plain `position` looks at
    // one element at a time, half of the cost of the call.
    let has = |chunk: &[f32]| chunk.iter().fold(false, |any, &x| any | (x == max));
    let chunk = x.chunks(CHUNK).position(has)? * CHUNK;
    x[chunk..].iter().position(|&x| x == max).map(|i| chunk + i)
}
