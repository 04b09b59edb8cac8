//! SmolLM3: Llama, some of whose layers do not turn queries and keys (every fourth one, as published).

use super::llama::{Config, Design, load_design};
use crate::engine::Decoder;
use crate::error::Result;
use crate::loader::Loader;
use serde::Deserialize;

#[derive(Deserialize)]
struct Rotations {
    /// 1 for each layer that rotates, 0 for one that does not.
    no_rope_layers: Option<Vec<u8>>,
    /// Where there is no list: the last layer of each group of so many does not rotate.
    #[serde(default = "four")]
    no_rope_layer_interval: usize,
}

fn four() -> usize {
    4
}

impl Rotations {
    fn of(&self, layer: usize) -> bool {
        match &self.no_rope_layers {
            Some(list) => list.get(layer).is_none_or(|&rotates| rotates != 0),
            None => !(layer + 1).is_multiple_of(self.no_rope_layer_interval),
        }
    }
}

/// Loads `model_type` smollm3.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let rotations: Rotations = root.checkpoint().config_as()?;
    let design = Design { rotates: Box::new(move |layer| rotations.of(layer)), ..Design::llama(&config) };
    load_design(root, &config, &design)
}
