//! Convolutions: of spectrograms along the time, and of images patch by patch.

use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::matmul::{Extent, Patches, Window};
use kvern::{Activation, Epilogue, MatRef, PackedB};
use serde::Deserialize;

/// `y[p] = act(sum over the places j of the kernel of W[:, :, j] x[p * stride + j - padding] + bias)`, with
/// weights in f32 whatever the format of the linear maps.
#[derive(Debug)]
pub struct Convolution {
    weights: PackedB, // (places * inputs, outputs)
    bias: Option<Vec<f32>>,
    window: Window,
}

impl Convolution {
    /// A convolution along the time, of three neighbours, with zeros before the first and behind the last
    /// one: `name.weight`, (outputs, inputs, 3), and `name.bias`, (outputs).
    ///
    /// **Errors**: as [`Loader::tensor`] and [`PackedB::pack`].
    pub fn along_time(
        at: &Loader<'_>,
        name: &str,
        (outputs, inputs): (usize, usize),
        stride: usize,
    ) -> Result<Convolution> {
        let window = Window { kernel: (1, 3), stride: (1, stride), padding: (0, 1) };
        Convolution::load(&at.at(name), [outputs, inputs, 3], window, true)
    }

    /// A convolution whose places side by side cover an image: `name.weight`, (outputs, inputs, patch,
    /// patch), and with `bias` also `name.bias`, (outputs).
    ///
    /// **Errors**: as [`Convolution::along_time`].
    pub fn of_patches(
        at: &Loader<'_>,
        name: &str,
        (outputs, inputs): (usize, usize),
        patch: usize,
        bias: bool,
    ) -> Result<Convolution> {
        let window = Window { kernel: (patch, patch), stride: (patch, patch), padding: (0, 0) };
        Convolution::load(&at.at(name), [outputs, inputs, patch, patch], window, bias)
    }

    fn load<const N: usize>(
        at: &Loader<'_>,
        shape: [usize; N],
        window: Window,
        bias: bool,
    ) -> Result<Convolution> {
        let (outputs, inputs) = (shape[0], shape[1]);
        let stored = at.tensor("weight", &shape)?;
        let bias = bias.then(|| at.tensor("bias", &[outputs])).transpose()?;
        // A patch has the inputs of a place together, so the places go before the inputs.
        let places = shape[2..].iter().copied().fold(1, usize::saturating_mul);
        let width = places.saturating_mul(inputs);
        let mut rows = vec![0.0; stored.len()];
        for (stored, row) in stored.chunks_exact(width.max(1)).zip(rows.chunks_exact_mut(width.max(1))) {
            for (input, stored) in stored.chunks_exact(places).enumerate() {
                let row = row.iter_mut().skip(input).step_by(inputs);
                row.zip(stored).for_each(|(weight, stored)| *weight = *stored);
            }
        }
        let weights = PackedB::pack(at.ctx(), MatRef::dense(&rows, outputs, width)?.t())?;
        Ok(Convolution { weights, bias, window })
    }

    /// The convolved pixels, or frames.
    ///
    /// **Shapes**: `x`: (images * height * width, inputs), `size`: (height, width), with a height of 1 for a
    /// sequence; the result (images * places of the kernel, outputs). **Errors**: as [`Patches::new`] and
    /// [`PackedB::convolve`].
    pub fn apply(&self, rt: &mut Runtime, x: &Rows, size: Extent, activation: Activation) -> Result<Rows> {
        let patches = Patches::new(x.view()?, size, self.window)?;
        rt.reserve(self.weights.workspace_bytes(&rt.ctx, patches.rows())?)?;
        let mut y = Rows::zeros(patches.rows(), self.weights.n());
        let mut epilogue = Epilogue::default().activation(activation);
        if let Some(bias) = &self.bias {
            epilogue = epilogue.bias(bias);
        }
        self.weights.convolve(&rt.ctx, &mut rt.ws, &patches, y.view_mut()?, &epilogue)?;
        Ok(y)
    }
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

/// A linear map of the patches of images (Dosovitskiy et al. 2021).
#[derive(Debug)]
pub struct PatchEmbedding {
    map: Convolution,
    config: ImageConfig,
    count: usize,
}

impl PatchEmbedding {
    /// Loads [`Convolution::of_patches`] for rows of `n`; pixels beyond the last whole patch are left out.
    ///
    /// **Errors**: as [`Convolution::of_patches`]; `Config` for patches that are larger than the image or
    /// empty, and for rows of nothing.
    pub fn load(
        at: &Loader<'_>,
        name: &str,
        n: usize,
        config: ImageConfig,
        bias: bool,
    ) -> Result<PatchEmbedding> {
        let ImageConfig { image_size, patch_size, num_channels } = config;
        let side = image_size.checked_div(patch_size).unwrap_or(0);
        if side == 0 {
            let allowed = format!("at least 1 and at most image_size = {image_size}");
            return Err(Error::field("patch_size", patch_size, &allowed));
        }
        if n == 0 || num_channels == 0 {
            return Err(Error::Config {
                reason: format!("hidden_size = {n} and num_channels = {num_channels} must be at least 1"),
            });
        }
        let map = Convolution::of_patches(at, name, (n, num_channels), patch_size, bias)?;
        Ok(PatchEmbedding { map, config, count: side.saturating_mul(side) })
    }

    /// Patches of an image.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The images that are taken.
    pub fn config(&self) -> ImageConfig {
        self.config
    }

    /// The patches of each image, from left to right, then down.
    ///
    /// **Shapes**: `pixels`: (images, channels, size, size); the result (images * patches, n). **Errors**:
    /// as [`Convolution::apply`].
    pub fn apply(&self, rt: &mut Runtime, pixels: &[f32]) -> Result<Rows> {
        let ImageConfig { image_size: size, num_channels: channels, .. } = self.config;
        let plane = size.saturating_mul(size);
        // One pixel a row: its channels together.
        let mut rows = Rows::zeros(pixels.len() / channels, channels);
        let images = rows.as_mut_slice().chunks_exact_mut(plane.saturating_mul(channels));
        for (image, pixels) in images.zip(pixels.chunks_exact(plane.saturating_mul(channels))) {
            for (channel, pixels) in pixels.chunks_exact(plane).enumerate() {
                let image = image.iter_mut().skip(channel).step_by(channels);
                image.zip(pixels).for_each(|(to, from)| *to = *from);
            }
        }
        self.map.apply(rt, &rows, (size, size), Activation::Identity)
    }
}
