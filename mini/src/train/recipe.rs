//! The hyperparameters of a training.

use serde::{Deserialize, Serialize};

/// Hyperparameters of a training. Together with the text and the number of steps they decide the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Sequences in a batch.
    pub batch: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Limit of the gradients' norm.
    pub clip: f64,
    /// Step at which the rate reaches zero; `None` for a constant rate.
    pub decay: Option<u64>,
    /// Seed of the initial weights and of the batches.
    pub seed: u64,
}
