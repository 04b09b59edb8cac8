//! The vision encoder of SigLIP (Zhai et al. 2023): no class token; a learnt query pools the patches (the
//! attention pooling of Zhai et al. 2022, "Scaling vision transformers", and Lee et al. 2019).
//!
//! ```text
//! x = W patches + position;  pre-norm layers;  x = norm(x)
//! p = W_o attention(W_q probe, W_k x, W_v x)
//! pooled = p + W_down gelu(W_up norm(p))
//! ```

use crate::convolution::{ImageConfig, PatchEmbedding};
use crate::embedding::{Embedding, positions};
use crate::encoder::{Encoding, ImageEncoder};
use crate::encoder_layer::{EncoderLayer, FeedForward, StackConfig};
use crate::engine::Runtime;
use crate::error::Result;
use crate::layer_norm::LayerNorm;
use crate::loader::Loader;
use crate::multi_head::{MultiHead, heads};
use crate::rows::Rows;
use serde::Deserialize;

/// The fields of `config.json`, or of its `vision_config`.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(flatten)]
    image: ImageConfig,
    #[serde(flatten)]
    stack: StackConfig,
}

#[derive(Debug, Deserialize)]
struct Pair {
    vision_config: Config,
}

struct Siglip {
    patches: PatchEmbedding,
    positions: Embedding,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    head: Option<Head>,
}

/// What pools the patches.
struct Head {
    probe: Vec<f32>, // (n)
    attention: MultiHead,
    norm: LayerNorm,
    feed_forward: FeedForward,
}

/// Loads `model_type` siglip_vision_model, or the images' half of siglip. Published checkpoints have the
/// names below `vision_model`.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn ImageEncoder>> {
    let checkpoint = root.checkpoint();
    let config: Config = match checkpoint.config().get("vision_config") {
        Some(_) => checkpoint.config_as::<Pair>()?.vision_config,
        None => checkpoint.config_as()?,
    };
    let named = root.has("vision_model.embeddings.patch_embedding.weight");
    let at = if named { root.at("vision_model") } else { root.clone() };
    let n = config.stack.hidden_size;
    let patches = PatchEmbedding::load(&at, "embeddings.patch_embedding", n, config.image, true)?;
    let head = at.has("head.probe").then(|| Head::load(&at.at("head"), &config.stack)).transpose()?;
    Ok(Box::new(Siglip {
        positions: Embedding::load(&at, "embeddings.position_embedding", (patches.count(), n))?,
        patches,
        layers: config.stack.layers(&at, false)?,
        norm: config.stack.norm(&at, "post_layernorm")?,
        head,
    }))
}

impl Head {
    fn load(at: &Loader<'_>, stack: &StackConfig) -> Result<Head> {
        let (n, attention) = (stack.hidden_size, at.at("attention"));
        // Queries, keys and values are one tensor: its thirds.
        let fused = n.saturating_mul(3);
        let rows = attention.tensor("in_proj_weight", &[fused, n])?;
        let bias = attention.tensor("in_proj_bias", &[fused])?;
        let third = |i: usize| {
            let bias = bias[i * n..(i + 1) * n].to_vec();
            at.pack(&rows[i * n * n..(i + 1) * n * n], (n, n), Some(bias))
        };
        Ok(Head {
            probe: at.tensor("probe", &[1, 1, n])?,
            attention: MultiHead {
                q: third(0)?,
                k: third(1)?,
                v: third(2)?,
                output: attention.linear("out_proj", (n, n), true)?,
                options: heads(n, stack.num_attention_heads)?.causal(false),
            },
            norm: stack.norm(at, "layernorm")?,
            feed_forward: stack.feed_forward(&at.at("mlp"))?,
        })
    }

    /// One row for each image.
    fn pool(&self, rt: &mut Runtime, x: &Rows, starts: &[usize]) -> Result<Rows> {
        let images = starts.len() - 1;
        let mut probes = Rows::zeros(images, x.cols());
        probes.as_mut_slice().chunks_exact_mut(x.cols()).for_each(|row| row.copy_from_slice(&self.probe));
        let one_each: Vec<usize> = (0..=images).collect();
        let mut pooled = self.attention.across(rt, (&probes, &one_each), (x, starts))?;
        let h = self.norm.apply(rt, pooled.view()?)?;
        self.feed_forward.add_to(rt, h.view()?, &mut pooled)?;
        Ok(pooled)
    }
}

impl ImageEncoder for Siglip {
    fn channels(&self) -> usize {
        self.patches.config().num_channels
    }

    fn size(&self) -> usize {
        self.patches.config().image_size
    }

    fn run(&self, rt: &mut Runtime, pixels: &[f32]) -> Result<Encoding> {
        let mut x = self.patches.apply(rt, pixels)?;
        let count = self.patches.count();
        let starts: Vec<usize> = (0..=x.rows() / count).map(|image| image * count).collect();
        self.positions.add_to(rt, &positions(&starts), &mut x)?;
        for layer in &self.layers {
            layer.apply(rt, &starts, &mut x)?;
        }
        let hidden = self.norm.apply(rt, x.view()?)?;
        let pooled = self.head.as_ref().map(|head| head.pool(rt, &hidden, &starts)).transpose()?;
        Ok(Encoding { hidden, starts, pooled })
    }
}
