//! Convolutions as products: the inputs of each output are gathered into a row.

use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::{Activation, MatRef};
use serde::Deserialize;

/// Inputs of an output of [`Convolution`], along the time.
const TAPS: usize = 3;

/// A convolution along the time, of three inputs, with zeros before the first and behind the last one:
/// `y[t] = sum over j of W[:, :, j] x[t * stride + j - 1] + bias`.
#[derive(Debug, Clone)]
pub struct Convolution {
    map: Linear, // (outputs, 3 * inputs)
    stride: usize,
}

impl Convolution {
    /// Loads `name.weight`, (outputs, inputs, 3), and `name.bias`, (outputs).
    ///
    /// **Errors**: as [`Loader::tensor`] and [`Loader::pack`].
    pub fn load(
        at: &Loader<'_>,
        name: &str,
        (outputs, inputs): (usize, usize),
        stride: usize,
    ) -> Result<Convolution> {
        let at = at.at(name);
        let stored = at.tensor("weight", &[outputs, inputs, TAPS])?;
        // Rows hold whole neighbours side by side, so the taps go before the inputs.
        let width = TAPS.saturating_mul(inputs);
        let mut rows = vec![0.0; stored.len()];
        for (stored, row) in stored.chunks_exact(width.max(1)).zip(rows.chunks_exact_mut(width.max(1))) {
            for (input, taps) in stored.chunks_exact(TAPS).enumerate() {
                for (tap, &weight) in taps.iter().enumerate() {
                    row[tap * inputs + input] = weight;
                }
            }
        }
        let map = at.pack(&rows, (outputs, width), Some(at.tensor("bias", &[outputs])?))?;
        Ok(Convolution { map, stride: stride.max(1) })
    }

    /// `act(y)`.
    ///
    /// **Shapes**: `x`: (frames, inputs); the result (frames / stride, rounded up; outputs). **Errors**:
    /// those of the product.
    pub fn apply(&self, rt: &mut Runtime, x: &Rows, activation: Activation) -> Result<Rows> {
        self.map.activate(rt, neighbours(x, self.stride).view()?, activation)
    }
}

/// Row t is the rows `t * stride - 1`, `t * stride` and `t * stride + 1` of `x` side by side.
fn neighbours(x: &Rows, stride: usize) -> Rows {
    let n = x.cols();
    let mut out = Rows::zeros(x.rows().div_ceil(stride), TAPS.saturating_mul(n));
    if n > 0 {
        let rows: Vec<&[f32]> = x.as_slice().chunks_exact(n).collect();
        for (t, out) in out.as_mut_slice().chunks_exact_mut(TAPS * n).enumerate() {
            for (tap, out) in out.chunks_exact_mut(n).enumerate() {
                let at = (t * stride + tap).checked_sub(1);
                if let Some(row) = at.and_then(|at| rows.get(at)) {
                    out.copy_from_slice(row);
                }
            }
        }
    }
    out
}

/// Which images a vision encoder takes, in fields of its configuration.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ImageConfig {
    /// Pixels of a side of an image.
    pub image_size: usize,
    /// Pixels of a side of a patch.
    pub patch_size: usize,
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
}

fn three() -> usize {
    3
}

impl ImageConfig {
    /// Patches of a side; pixels beyond the last whole one are left out.
    ///
    /// **Errors**: `Config` for patches that are larger than the image or empty.
    pub fn side(&self) -> Result<usize> {
        match self.image_size.checked_div(self.patch_size) {
            Some(side) if side > 0 => Ok(side),
            _ => {
                let allowed = format!("at least 1 and at most image_size = {}", self.image_size);
                Err(Error::field("patch_size", self.patch_size, &allowed))
            }
        }
    }
}

/// A linear map of the patches of an image (Dosovitskiy et al. 2021).
#[derive(Debug, Clone)]
pub struct Patches {
    map: Linear, // (n, channels * patch^2)
    config: ImageConfig,
    side: usize,
}

impl Patches {
    /// Loads `name.weight`, (n, channels, patch, patch), and with `bias` also `name.bias`, (n).
    ///
    /// **Errors**: as [`Loader::tensor`], [`Loader::pack`] and [`ImageConfig::side`].
    pub fn load(at: &Loader<'_>, name: &str, n: usize, config: ImageConfig, bias: bool) -> Result<Patches> {
        let (at, side, patch) = (at.at(name), config.side()?, config.patch_size);
        if n == 0 {
            return Err(Error::field("hidden_size", n, "at least 1"));
        }
        let rows = at.tensor("weight", &[n, config.num_channels, patch, patch])?;
        let bias = bias.then(|| at.tensor("bias", &[n])).transpose()?;
        let width = config.num_channels.saturating_mul(patch).saturating_mul(patch);
        let map = at.pack(&rows, (n, width), bias)?;
        Ok(Patches { map, config, side })
    }

    /// Patches of an image.
    pub fn count(&self) -> usize {
        self.side.saturating_mul(self.side)
    }

    /// The images that are taken.
    pub fn config(&self) -> ImageConfig {
        self.config
    }

    /// The patches of each image, from left to right, then down.
    ///
    /// **Shapes**: `pixels`: (images, channels, size, size); the result (images * patches, n). **Errors**:
    /// those of the product.
    pub fn apply(&self, rt: &mut Runtime, pixels: &[f32]) -> Result<Rows> {
        let ImageConfig { image_size: size, patch_size: patch, num_channels } = self.config;
        let mut rows = Vec::new();
        for image in pixels.chunks_exact((num_channels * size * size).max(1)) {
            for (y, x) in (0..self.side).flat_map(|y| (0..self.side).map(move |x| (y * patch, x * patch))) {
                for line in (0..num_channels).flat_map(|c| (0..patch).map(move |i| c * size + y + i)) {
                    rows.extend_from_slice(&image[line * size + x..][..patch]);
                }
            }
        }
        let width = self.map.inputs();
        let x = MatRef::dense(&rows, rows.len().checked_div(width).unwrap_or(0), width)?;
        self.map.apply(rt, x)
    }
}
