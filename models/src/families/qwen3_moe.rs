//! Qwen3-MoE (Qwen Team 2025): Qwen3, whose feed-forward layers are experts, all of them or every so many.
//! Softmax over the logits of all experts, the best of them, their weights divided by the sum.

use super::llama::{Config, Design, load_design};
use super::qwen::Windows;
use crate::engine::Decoder;
use crate::error::{Error, Result};
use crate::experts::{ExpertNames, ExpertShape, Experts, FeedForward, Mixture, Router};
use crate::feed_forward::activation;
use crate::linear::COMPUTE;
use crate::loader::Loader;
use kvern::Activation;
use kvern::ops::RouterScore;
use kvern::quant::ExpertOptions;
use serde::Deserialize;

/// The fields of `config.json` about experts.
#[derive(Deserialize)]
pub(super) struct Sizes {
    /// Published files say `num_experts`.
    num_experts: Option<usize>,
    num_local_experts: Option<usize>,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    #[serde(default)]
    norm_topk_prob: bool,
    /// Layers without experts.
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
    /// The last layer of each group of so many has experts.
    #[serde(default = "one")]
    decoder_sparse_step: usize,
}

fn one() -> usize {
    1
}

impl Sizes {
    /// Whether the feed-forward part of this layer is experts.
    pub fn has_experts(&self, layer: usize) -> bool {
        !self.mlp_only_layers.contains(&layer) && (layer + 1).is_multiple_of(self.decoder_sparse_step)
    }

    /// Loads the router and the experts of a layer from `mlp`, for rows of n elements.
    pub fn mixture(&self, at: &Loader<'_>, n: usize, act: Activation) -> Result<Mixture> {
        let missing = || Error::Config { reason: "missing field `num_experts`".into() };
        let experts = self.num_experts.or(self.num_local_experts).ok_or_else(missing)?;
        let shape = ExpertShape { experts, n, hidden: self.moe_intermediate_size };
        let chosen = self.num_experts_per_tok;
        let mut router = Router::load(at, "gate", (experts, n), false, chosen, RouterScore::Softmax)?;
        router.renormalize = self.norm_topk_prob.then_some(0.0);
        let options = ExpertOptions::new(COMPUTE, act);
        let experts = Experts::load(at, ExpertNames::PROJECTIONS, shape, options)?;
        Ok(Mixture { router, experts, shared: None })
    }
}

/// Loads `model_type` qwen3_moe.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let windows: Windows = root.checkpoint().config_as()?;
    let sizes: Sizes = root.checkpoint().config_as()?;
    let (n, act) = (config.hidden_size, activation(&config.hidden_act)?);
    let llama = Design::llama(&config);
    let dense = llama.feed_forward;
    let feed_forward = move |at: &Loader<'_>, layer| {
        if !sizes.has_experts(layer) {
            return dense(at, layer);
        }
        Ok(FeedForward::Mixture(sizes.mixture(&at.at("mlp"), n, act)?))
    };
    let design = Design {
        head_norms: true,
        window: Box::new(move |layer| windows.of(layer)),
        feed_forward: Box::new(feed_forward),
        ..llama
    };
    load_design(root, &config, &design)
}
