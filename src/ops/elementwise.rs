//! Element-wise operators: activations, gated products, sums, scales, soft caps.

use super::{for_each_row, same_shape};
use crate::context::Context;
use crate::error::{Result, option, positive};
use crate::fp_mode;
use crate::kernels::{Binary, KernelSet};
use crate::matmul::Activation;
use crate::view::{MatMut, MatRef};

/// `x = act(x)`, in place.
///
/// - **Numerics**: see [`Activation`].
/// - **Cost**: one pass, allocates nothing.
pub fn activate(ctx: &Context, activation: Activation, x: MatMut<'_>) {
    if activation != Activation::Identity {
        unary(ctx, x, |kernels, x| kernels.activate(activation, x));
    }
}

/// `x = act(x) * z`, in place: the gate of an MLP (Shazeer 2020), SwiGLU with [`Activation::Silu`], GeGLU
/// with [`Activation::Gelu`] or [`Activation::GeluErf`], ReGLU with [`Activation::Relu`], and an output gate
/// with [`Activation::Sigmoid`].
///
/// - **Shapes**: `x`, `z`: (rows, n).
/// - **Numerics**: see [`Activation`]; the product is rounded once.
/// - **Errors**: `Shape`, `Option` for a transposed `z`.
/// - **Cost**: one pass.
pub fn activate_mul(ctx: &Context, activation: Activation, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    binary(ctx, Binary::Gate(activation), x, z)
}

/// `x = silu(x) * z`, in place: [`activate_mul`] with [`Activation::Silu`].
///
/// - **Shapes**: `x`, `z`: (rows, n).
/// - **Errors**: `Shape`, `Option` for a transposed `z`.
/// - **Cost**: one pass.
pub fn silu_mul(ctx: &Context, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    activate_mul(ctx, Activation::Silu, x, z)
}

/// The gate of gpt-oss, in place: `x = g sigmoid(alpha g) (u + 1)` with `g = min(x, limit)` and
/// `u = max(-limit, min(z, limit))`; `alpha` is 1.702 and `limit` 7 in the published models.
///
/// - **Shapes**: `x` (gate), `z` (up): (rows, n).
/// - **Numerics**: relative error at most 5e-7, apart from the rounding of `u + 1`. NaN in either operand
///   gives NaN; `x = -inf` counts as -104, where the sigmoid is 0.
/// - **Errors**: `Shape`; `Option` for a transposed `z`, for an `alpha` that is not finite and at least 1,
///   and for a `limit` that is not positive and finite.
/// - **Cost**: one pass.
pub fn swiglu_oai(ctx: &Context, alpha: f32, limit: f32, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    option(alpha.is_finite() && alpha >= 1.0, "alpha", alpha, "finite and at least 1")?;
    positive("limit", limit)?;
    binary(ctx, Binary::SwigluOai { alpha, limit }, x, z)
}

/// `x = x * z`, in place, element by element.
///
/// - **Shapes**: `x`, `z`: (rows, n).
/// - **Errors**: `Shape`, `Option` for a transposed `z`.
/// - **Cost**: one pass.
pub fn mul(ctx: &Context, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    activate_mul(ctx, Activation::Identity, x, z)
}

/// `x = x + z`, in place: the residual addition.
///
/// - **Shapes**: `x`, `z`: (rows, n).
/// - **Errors**: `Shape`, `Option` for a transposed `z`.
/// - **Cost**: one pass.
pub fn add(ctx: &Context, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    binary(ctx, Binary::Add, x, z)
}

/// `x = x + by * z`, in place: a residual with a factor (Granite), or the weighted sum of experts.
///
/// - **Shapes**: `x`, `z`: (rows, n).
/// - **Numerics**: `fma(by, z, x)`, rounded once.
/// - **Errors**: `Shape`, `Option` for a transposed `z`.
/// - **Cost**: one pass.
pub fn add_scaled(ctx: &Context, x: MatMut<'_>, by: f32, z: MatRef<'_>) -> Result<()> {
    binary(ctx, Binary::AddScaled(by), x, z)
}

/// `x = x * by`, in place: the factor of embeddings (Gemma, Granite) or of logits.
///
/// - **Cost**: one pass.
pub fn scale(ctx: &Context, x: MatMut<'_>, by: f32) {
    unary(ctx, x, |kernels, x| kernels.scale_in_place(by, x));
}

/// `x = cap * tanh(x / cap)`, in place: the soft cap of Gemma's logits.
///
/// - **Numerics**: relative error at most 5e-7 where `x / cap` is a normal number; odd to the bit; infinities
///   give `cap` with their sign; NaN stays NaN.
/// - **Errors**: `Option` for a `cap` that is not positive and finite.
/// - **Cost**: one pass.
pub fn softcap(ctx: &Context, cap: f32, x: MatMut<'_>) -> Result<()> {
    positive("cap", cap)?;
    unary(ctx, x, |kernels, x| kernels.softcap(cap, x));
    Ok(())
}

fn unary(ctx: &Context, x: MatMut<'_>, f: impl Fn(&KernelSet, &mut [f32]) + Sync) {
    let _mode = fp_mode::default_mode();
    let kernels = ctx.kernels();
    for_each_row(ctx, x, &|_, x| f(kernels, x));
}

fn binary(ctx: &Context, f: Binary, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    let _mode = fp_mode::default_mode();
    same_shape(["z.rows", "z.cols", "z"], z, &x)?;
    let kernels = ctx.kernels();
    for_each_row(ctx, x, &|i, x| {
        if let Some(z) = z.row(i) {
            kernels.binary(f, x, z);
        }
    });
    Ok(())
}
