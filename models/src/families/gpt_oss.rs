//! gpt-oss (OpenAI 2025): Llama with biases of all products, a learnt sink of each head, a window in every
//! second layer, YaRN, and experts with a clamped gate. Softmax over the logits of the chosen experts alone.
//!
//! ```text
//! g = min(gate, limit);  u = max(-limit, min(up, limit))
//! expert(x) = W_down ((u + 1) g sigmoid(alpha g)) + b
//! ```

use super::llama::{Config, Design, load_design};
use crate::attention::Windows;
use crate::engine::Decoder;
use crate::error::Result;
use crate::experts::{ExpertShape, Experts, FeedForward, FusedExperts, Mixture, Router};
use crate::linear::COMPUTE;
use crate::loader::Loader;
use kvern::ops::RouterScore;
use kvern::quant::ExpertOptions;
use serde::Deserialize;

/// Every second layer sees all tokens.
const PERIOD: usize = 2;

/// Matrices are stored as (inputs, outputs), and outputs of gate and up alternate.
const NAMES: FusedExperts = FusedExperts {
    gate_up: "experts.gate_up_proj",
    down: "experts.down_proj",
    alternating: true,
    transposed: true,
    bias: true,
};

#[derive(Deserialize)]
struct Sizes {
    num_local_experts: usize,
    num_experts_per_tok: usize,
    #[serde(default = "alpha")]
    swiglu_alpha: f32,
    #[serde(default = "limit")]
    swiglu_limit: f32,
}

fn alpha() -> f32 {
    1.702
}

fn limit() -> f32 {
    7.0
}

/// Loads `model_type` gpt_oss.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let windows: Windows = root.checkpoint().config_as()?;
    let sizes: Sizes = root.checkpoint().config_as()?;
    let (experts, chosen) = (sizes.num_local_experts, sizes.num_experts_per_tok);
    let shape = ExpertShape { experts, n: config.hidden_size, hidden: config.intermediate_size };
    let options = ExpertOptions::swiglu_oai(COMPUTE, sizes.swiglu_alpha, sizes.swiglu_limit);
    let feed_forward = move |at: &Loader<'_>, _| {
        let at = at.at("mlp");
        let score = RouterScore::SoftmaxOfChosen;
        let router = Router::load(&at, "router", (experts, shape.n), true, chosen, score)?;
        let experts = Experts::load_fused(&at, NAMES, shape, options)?;
        Ok(FeedForward::Mixture(Mixture { router, experts, shared: None }))
    };
    let design = Design {
        sinks: true,
        window: Box::new(move |layer| windows.of(layer, PERIOD)),
        feed_forward: Box::new(feed_forward),
        ..Design::llama(&config)
    };
    load_design(root, &config, &design)
}
