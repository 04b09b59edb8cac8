//! Granite 3: Llama with four factors: of the embeddings, of the scores, of what each part adds to the
//! stream, and (a divisor) of the logits.

use super::llama::{Config, Design, load_design};
use crate::engine::Decoder;
use crate::error::Result;
use crate::loader::Loader;
use serde::Deserialize;

#[derive(Deserialize)]
struct Factors {
    embedding_multiplier: f32,
    attention_multiplier: f32,
    residual_multiplier: f32,
    logits_scaling: f32,
}

/// Loads `model_type` granite.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let factors: Factors = root.checkpoint().config_as()?;
    let design = Design {
        embedding_scale: factors.embedding_multiplier,
        score_scale: Some(factors.attention_multiplier),
        residual_scale: factors.residual_multiplier,
        logit_scale: 1.0 / factors.logits_scaling,
        ..Design::llama(&config)
    };
    load_design(root, &config, &design)
}
