//! Mixtral (Jiang et al. 2024): Mistral, whose feed-forward layers are experts. Softmax over the logits of
//! all experts, the best of them, their weights divided by the sum.

use super::llama::{Config, Design, load_design};
use super::mistral::Window;
use crate::engine::Decoder;
use crate::error::Result;
use crate::experts::{ExpertNames, ExpertShape, Experts, FeedForward, Mixture, Router};
use crate::feed_forward::activation;
use crate::linear::COMPUTE;
use crate::loader::Loader;
use kvern::ops::RouterScore;
use kvern::quant::ExpertOptions;
use serde::Deserialize;

#[derive(Deserialize)]
struct Sizes {
    num_local_experts: usize,
    num_experts_per_tok: usize,
}

/// Loads `model_type` mixtral.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let Window { sliding_window } = root.checkpoint().config_as()?;
    let Sizes { num_local_experts: experts, num_experts_per_tok: chosen } = root.checkpoint().config_as()?;
    let (n, hidden) = (config.hidden_size, config.intermediate_size);
    let options = ExpertOptions::new(COMPUTE, activation(&config.hidden_act)?);
    let feed_forward = move |at: &Loader<'_>, _| {
        let at = at.at("block_sparse_moe");
        let mut router = Router::load(&at, "gate", (experts, n), false, chosen, RouterScore::Softmax)?;
        router.renormalize = Some(0.0);
        let shape = ExpertShape { experts, n, hidden };
        let experts = Experts::load(&at, ExpertNames::NUMBERS, shape, options)?;
        Ok(FeedForward::Mixture(Mixture { router, experts, shared: None }))
    };
    let design = Design {
        window: Box::new(move |_| sliding_window),
        feed_forward: Box::new(feed_forward),
        ..Design::llama(&config)
    };
    load_design(root, &config, &design)
}
