//! The network: logits, gradients and trained weights, with the same bits at every tier and thread count.

mod generation;
mod gradients;
mod training;
