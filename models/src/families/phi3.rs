//! Phi-3, Phi-4 (Abdin et al. 2024): Llama with one tensor for queries, keys and values, and one for gate and
//! up. Long contexts by LongRoPE, which may turn a part of each head only.

use super::llama::{Config, Design, load_design};
use super::mistral::Window;
use crate::engine::Decoder;
use crate::error::Result;
use crate::experts::FeedForward;
use crate::feed_forward::{GatedFeedForward, activation};
use crate::loader::Loader;

/// Loads `model_type` phi3.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let Window { sliding_window } = root.checkpoint().config_as()?;
    let (n, hidden) = (config.hidden_size, config.intermediate_size);
    let activation = activation(&config.hidden_act)?;
    let feed_forward = move |at: &Loader<'_>, _| {
        let at = at.at("mlp");
        let rows = at.at("gate_up_proj").tensor("weight", &[hidden.saturating_mul(2), n])?;
        let (gate, up) = rows.split_at(rows.len() / 2);
        let map = |rows| at.pack(rows, (hidden, n), None);
        let down = at.linear("down_proj", (n, hidden), false)?;
        Ok(FeedForward::Gated(GatedFeedForward { gate: map(gate)?, up: map(up)?, down, activation }))
    };
    let design = Design {
        fused_qkv: true,
        window: Box::new(move |_| sliding_window),
        feed_forward: Box::new(feed_forward),
        ..Design::llama(&config)
    };
    load_design(root, &config, &design)
}
