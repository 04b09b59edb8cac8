//! Mistral (Jiang et al. 2023): Llama, whose queries see the last `sliding_window` tokens in every layer.

use super::llama::{Config, Design, load_design};
use crate::engine::Decoder;
use crate::error::Result;
use crate::loader::Loader;
use serde::Deserialize;

/// The window of every layer.
#[derive(Deserialize)]
pub(super) struct Window {
    /// Tokens; absent or null in models that see all.
    pub sliding_window: Option<usize>,
}

/// Loads `model_type` mistral.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let Window { sliding_window } = root.checkpoint().config_as()?;
    let design = Design { window: Box::new(move |_| sliding_window), ..Design::llama(&config) };
    load_design(root, &config, &design)
}
