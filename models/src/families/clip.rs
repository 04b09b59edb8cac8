//! CLIP (Radford et al. 2021): texts and images in one space.
//!
//! ```text
//! text:   x = word[tokens] + position;  causal pre-norm layers;  x = norm(x)
//!         t = W_t x[end of text]
//! image:  x = norm([class, W patches] + position);  pre-norm layers
//!         i = W_i norm(x[class])
//! logits = exp(s) * (t / |t|) (i / |i|)^T
//! ```

use crate::convolution::{ImageConfig, PatchEmbedding};
use crate::embedding::{Embedding, positions};
use crate::encoder::{DualEncoder, Encoding, ImageEncoder, TextEncoder, unit_rows};
use crate::encoder_layer::{EncoderLayer, StackConfig};
use crate::engine::Runtime;
use crate::error::Result;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::{Epilogue, matmul, ops};
use serde::Deserialize;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    projection_dim: usize,
    text_config: TextConfig,
    vision_config: VisionConfig,
}

#[derive(Debug, Deserialize)]
struct TextConfig {
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(flatten)]
    stack: StackConfig,
}

#[derive(Debug, Deserialize)]
struct VisionConfig {
    #[serde(flatten)]
    image: ImageConfig,
    #[serde(flatten)]
    stack: StackConfig,
}

struct Clip {
    text: Text,
    image: Image,
    logit_scale: f32,
}

struct Text {
    words: Embedding,
    positions: Embedding,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    projection: Linear, // (space, n)
    tokens: usize,
}

struct Image {
    patches: PatchEmbedding,
    class: Vec<f32>, // (n)
    positions: Embedding,
    first_norm: LayerNorm,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    projection: Linear, // (space, n)
}

/// Loads both halves of `model_type` clip.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn DualEncoder>> {
    let (text, image) = (Text::load(root)?, Image::load(root)?);
    let logarithm = root.tensor("logit_scale", &[])?;
    // One number for all logits, so its exponential is rounded once, from f64.
    let logit_scale = logarithm.iter().map(|&x| libm::exp(f64::from(x)) as f32).product();
    Ok(Box::new(Clip { text, image, logit_scale }))
}

/// Loads the texts' half of `model_type` clip.
pub(super) fn load_text(root: &Loader<'_>) -> Result<Box<dyn TextEncoder>> {
    Ok(Box::new(Text::load(root)?))
}

/// Loads the images' half of `model_type` clip.
pub(super) fn load_image(root: &Loader<'_>) -> Result<Box<dyn ImageEncoder>> {
    Ok(Box::new(Image::load(root)?))
}

impl Text {
    fn load(root: &Loader<'_>) -> Result<Text> {
        let Config { projection_dim, text_config: config, .. } = root.checkpoint().config_as()?;
        let (n, at) = (config.stack.hidden_size, root.at("text_model"));
        let (words, places) = (config.vocab_size, config.max_position_embeddings);
        Ok(Text {
            words: Embedding::load(&at, "embeddings.token_embedding", (words, n))?,
            positions: Embedding::load(&at, "embeddings.position_embedding", (places, n))?,
            layers: config.stack.layers(&at, true)?,
            norm: config.stack.norm(&at, "final_layer_norm")?,
            projection: root.linear("text_projection", (projection_dim, n), false)?,
            tokens: root.options().tokens.min(places),
        })
    }
}

impl TextEncoder for Text {
    fn vocabulary(&self) -> usize {
        self.words.ids()
    }

    fn capacity(&self) -> usize {
        self.tokens
    }

    fn run(&self, rt: &mut Runtime, tokens: &[u32], starts: Vec<usize>) -> Result<Encoding> {
        let mut x = self.words.rows(rt, tokens)?;
        self.positions.add_to(rt, &positions(&starts), &mut x)?;
        for layer in &self.layers {
            layer.apply(rt, &starts, &mut x)?;
        }
        let hidden = self.norm.apply(rt, x.view()?)?;
        let ends: Vec<u32> = starts.windows(2).map(|pair| end_of_text(tokens, pair[0], pair[1])).collect();
        let pooled = project(rt, &self.projection, &rows_at(rt, &hidden, &ends)?)?;
        Ok(Encoding { hidden, starts, pooled: Some(pooled) })
    }
}

/// The row of the first token with the greatest id of a sequence: the end of the text, whatever fills the
/// sequence behind it.
fn end_of_text(tokens: &[u32], start: usize, end: usize) -> u32 {
    let first_greatest = |best: usize, i: usize| if tokens[i] > tokens[best] { i } else { best };
    (start..end).fold(start, first_greatest) as u32
}

impl Image {
    fn load(root: &Loader<'_>) -> Result<Image> {
        let Config { projection_dim, vision_config: config, .. } = root.checkpoint().config_as()?;
        let (n, at) = (config.stack.hidden_size, root.at("vision_model"));
        let patches = PatchEmbedding::load(&at, "embeddings.patch_embedding", n, config.image, false)?;
        let places = patches.count().saturating_add(1);
        Ok(Image {
            class: at.tensor("embeddings.class_embedding", &[n])?,
            positions: Embedding::load(&at, "embeddings.position_embedding", (places, n))?,
            patches,
            // The name is spelt like this in published checkpoints.
            first_norm: config.stack.norm(&at, "pre_layrnorm")?,
            layers: config.stack.layers(&at, false)?,
            norm: config.stack.norm(&at, "post_layernorm")?,
            projection: root.linear("visual_projection", (projection_dim, n), false)?,
        })
    }
}

impl ImageEncoder for Image {
    fn channels(&self) -> usize {
        self.patches.config().num_channels
    }

    fn size(&self) -> usize {
        self.patches.config().image_size
    }

    fn run(&self, rt: &mut Runtime, pixels: &[f32]) -> Result<Encoding> {
        let patches = self.patches.apply(rt, pixels)?;
        let (n, count) = (patches.cols(), self.patches.count());
        let images = patches.rows() / count;
        let starts: Vec<usize> = (0..=images).map(|image| image * (count + 1)).collect();

        // The class before the patches of each image.
        let mut x = Rows::zeros(images * (count + 1), n);
        let from = patches.as_slice().chunks_exact(count * n);
        for (image, patches) in x.as_mut_slice().chunks_exact_mut((count + 1) * n).zip(from) {
            image[..n].copy_from_slice(&self.class);
            image[n..].copy_from_slice(patches);
        }
        self.positions.add_to(rt, &positions(&starts), &mut x)?;
        x = self.first_norm.apply(rt, x.view()?)?;
        for layer in &self.layers {
            layer.apply(rt, &starts, &mut x)?;
        }
        let firsts: Vec<u32> = starts.iter().take(images).map(|&start| start as u32).collect();
        let class = rows_at(rt, &x, &firsts)?;
        let class = self.norm.apply(rt, class.view()?)?;
        let pooled = project(rt, &self.projection, &class)?;
        Ok(Encoding { hidden: x, starts, pooled: Some(pooled) })
    }
}

/// Some rows of `x`.
fn rows_at(rt: &Runtime, x: &Rows, rows: &[u32]) -> Result<Rows> {
    let mut chosen = Rows::zeros(rows.len(), x.cols());
    ops::embedding(&rt.ctx, x.view()?, rows, chosen.view_mut()?)?;
    Ok(chosen)
}

/// `W x / |W x|`: vectors of the space of texts and images.
fn project(rt: &mut Runtime, map: &Linear, x: &Rows) -> Result<Rows> {
    let y = map.apply(rt, x.view()?)?;
    unit_rows(rt, &y)
}

impl DualEncoder for Clip {
    fn text(&self) -> &dyn TextEncoder {
        &self.text
    }

    fn image(&self) -> &dyn ImageEncoder {
        &self.image
    }

    fn logits(&self, rt: &mut Runtime, texts: &Rows, images: &Rows) -> Result<Rows> {
        let (m, n, k) = (texts.rows(), images.rows(), texts.cols());
        rt.reserve(matmul::matmul_workspace_bytes(&rt.ctx, m, n, k)?)?;
        let (mut logits, epilogue) = (Rows::zeros(m, n), Epilogue::default().scaled(self.logit_scale, 0.0));
        let (t, i) = (texts.view()?, images.view()?.t());
        matmul::matmul(&rt.ctx, &mut rt.ws, t, i, logits.view_mut()?, &epilogue)?;
        Ok(logits)
    }
}
