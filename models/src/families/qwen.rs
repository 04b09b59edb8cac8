//! Qwen2, Qwen2.5: Llama with biases of queries, keys and values. Qwen3: Llama with an RMS norm of each head
//! of queries and keys before the rotation. Both may have a window in some layers.

use super::llama::{Config, Design, load_design};
use crate::engine::Decoder;
use crate::error::Result;
use crate::loader::Loader;
use serde::Deserialize;

/// The windows of layers, in the words of Qwen's configurations.
#[derive(Deserialize)]
pub(super) struct Windows {
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    /// `sliding_attention` for each layer with a window.
    layer_types: Option<Vec<String>>,
    /// Layers from this one on have the window, in configurations without `layer_types`.
    max_window_layers: Option<usize>,
}

impl Windows {
    /// The window of a layer, in tokens.
    pub fn of(&self, layer: usize) -> Option<usize> {
        let slides = match &self.layer_types {
            Some(types) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            None => self.max_window_layers.is_none_or(|first| layer >= first),
        };
        self.sliding_window.filter(|_| self.use_sliding_window && slides)
    }
}

/// Loads `model_type` qwen2.
pub(super) fn load_2(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    load(root, |design| design.qkv_bias = true)
}

/// Loads `model_type` qwen3.
pub(super) fn load_3(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    load(root, |design| design.head_norms = true)
}

fn load(root: &Loader<'_>, change: impl FnOnce(&mut Design)) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let windows: Windows = root.checkpoint().config_as()?;
    let mut design = Design { window: Box::new(move |layer| windows.of(layer)), ..Design::llama(&config) };
    change(&mut design);
    load_design(root, &config, &design)
}
