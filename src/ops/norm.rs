//! Norms of rows: layer and RMS norm, lengths, with gates and in groups.

use super::{for_each_row, same_shape};
use crate::context::Context;
use crate::epilogue::Activation;
use crate::error::{Error, Result, equal, option};
use crate::fp_mode;
use crate::kernels::{self, Norm};
use crate::view::{MatMut, MatRef};

/// What [`norm`] divides a row by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps)` (Zhang & Sennrich 2019).
    #[default]
    Rms = 0,
    /// `(x - mean(x)) / sqrt(var(x) + eps)` (Ba, Kiros & Hinton 2016).
    Layer = 1,
    /// `x / sqrt(sum(x^2) + eps)`: the keys and queries of delta nets.
    L2 = 2,
    /// `x / max(sqrt(sum(x^2)), eps)`: embeddings of length 1.
    Unit = 3,
}

impl NormKind {
    fn kernel(self) -> kernels::NormKind {
        match self {
            NormKind::Rms => kernels::NormKind::Rms,
            NormKind::Layer => kernels::NormKind::Layer,
            NormKind::L2 => kernels::NormKind::L2,
            NormKind::Unit => kernels::NormKind::Unit,
        }
    }
}

/// A second input of [`norm`], whose activation the row is multiplied by.
#[derive(Debug, Clone, Copy)]
struct NormGate<'a> {
    activation: Activation,
    z: MatRef<'a>,
    first: bool,
}

/// Options of [`norm`].
#[derive(Debug, Clone, Copy)]
pub struct NormOptions<'a> {
    kind: NormKind,
    eps: f32,
    gain: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    gate: Option<NormGate<'a>>,
    groups: usize,
}

impl<'a> NormOptions<'a> {
    /// A norm alone, without gain, bias and gate.
    pub fn new(kind: NormKind, eps: f32) -> NormOptions<'a> {
        NormOptions { kind, eps, gain: None, bias: None, gate: None, groups: 1 }
    }

    /// Multiplies the normalised elements: (n), or (n / groups), the same for each group.
    pub fn gain(mut self, gain: &'a [f32]) -> Self {
        self.gain = Some(gain);
        self
    }

    /// Adds to the elements after the gain, in layer norms: as long as a gain may be.
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Multiplies the result by `act(z)`, z being of the shape of x: the gated norm of Qwen3-Next
    /// ([`Activation::Silu`]) and of Kimi Linear ([`Activation::Sigmoid`]).
    pub fn gate(mut self, activation: Activation, z: MatRef<'a>) -> Self {
        self.gate = Some(NormGate { activation, z, first: false });
        self
    }

    /// Multiplies x by `act(z)` before the norm: Mamba-2.
    pub fn gate_first(mut self, activation: Activation, z: MatRef<'a>) -> Self {
        self.gate = Some(NormGate { activation, z, first: true });
        self
    }

    /// Cuts each row into so many parts of equal length, each with a norm of its own: heads, or the groups of
    /// Mamba-2. 1 without this call.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// The shapes fit rows of `n`.
    fn check(&self, n: usize) -> Result<()> {
        if self.groups == 0 || !n.is_multiple_of(self.groups) {
            let relation = "must be a multiple of groups =";
            return Err(Error::Shape { what: "x.cols", got: n, relation, want: self.groups });
        }
        let width = n / self.groups;
        for (what, part) in [("gain.len", self.gain), ("bias.len", self.bias)] {
            let len = part.map_or(n, <[f32]>::len);
            if len != width {
                equal(what, len, "must equal x.cols =", n)?;
            }
        }
        let only_layer = self.bias.is_none() || self.kind == NormKind::Layer;
        option(only_layer, "bias", "one of a norm without mean", "left out")
    }
}

/// `y = norm(x) * gain + bias`, row by row, with `act(z)` as a factor before or after, and each part where
/// [`NormOptions`] have it.
///
/// - **Formula**: [`NormKind`] for each group of a row; `norm(x) * gain * act(z)`, or
///   `norm(x * act(z)) * gain` with [`NormOptions::gate_first`].
/// - **Shapes**: `x`, `y`, `z`: (rows, n), n a multiple of the groups.
/// - **Numerics**: [`NormKind::Layer`] as [`layer_norm`], the others as [`rms_norm`], for L2 and Unit with
///   the sum in the place of the mean: within `(n / 32 + 6) * 2^-24` relative. Unit multiplies by
///   `1 / sqrt(max(sum, eps * eps))`. Without a gain the bits are those of a gain of ones. A gate is one
///   product of [`Activation`]'s result, rounded once. A row (or group) of zeros gives zeros.
/// - **Errors**: `Shape`; `Option` for a transposed `x` or `z`, an `eps` that is negative or not finite, and
///   a bias of a norm without mean; nothing is changed then.
/// - **Cost**: the passes of the norm, and one for the gate, over rows that stay in the L1 cache; allocates
///   nothing.
pub fn norm(ctx: &Context, options: &NormOptions<'_>, x: MatRef<'_>, y: MatMut<'_>) -> Result<()> {
    let good = options.eps.is_finite() && options.eps >= 0.0;
    option(good, "eps", options.eps, "finite and not negative")?;
    run(ctx, options, x, y)
}

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
    run(ctx, &NormOptions::new(NormKind::Layer, eps).gain(gain).bias(bias), x, y)
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
    run(ctx, &NormOptions::new(NormKind::Rms, eps).gain(gain), x, y)
}

fn run<'a>(ctx: &Context, options: &NormOptions<'a>, x: MatRef<'_>, y: MatMut<'_>) -> Result<()> {
    let _mode = fp_mode::default_mode();
    same_shape(["x.rows", "x.cols", "x"], x, &y)?;
    options.check(x.cols())?;
    let &NormOptions { kind, eps, gain, bias, gate, groups } = options;
    if let Some(gate) = gate {
        same_shape(["gate.rows", "gate.cols", "gate"], gate.z, &y)?;
    }
    let kernels = ctx.kernels();
    let whole = Norm { kind: kind.kernel(), eps, gain, bias };
    let width = x.cols() / groups;
    for_each_row(ctx, y, &|i, y| {
        let Some(x) = x.row(i) else { return };
        if groups == 1 && gate.is_none() {
            return kernels.norm(&whole, Some(x), y);
        }
        for (start, y) in (0..).step_by(width).zip(y.chunks_exact_mut(width)) {
            let part = start..start + width;
            // What is as long as a group serves each of them.
            let own = |row: &'a [f32]| if row.len() == width { row } else { &row[part.clone()] };
            let norm = Norm { gain: whole.gain.map(own), bias: whole.bias.map(own), ..whole };
            let x = &x[part.clone()];
            match gate.and_then(|gate| Some((gate, &gate.z.row(i)?[part.clone()]))) {
                None => kernels.norm(&norm, Some(x), y),
                Some((NormGate { activation, first: true, .. }, z)) => {
                    kernels.gate(activation, z, Some(x), y);
                    kernels.norm(&norm, None, y);
                }
                Some((NormGate { activation, .. }, z)) => {
                    kernels.norm(&norm, Some(x), y);
                    kernels.gate(activation, z, None, y);
                }
            }
        }
    });
    Ok(())
}
