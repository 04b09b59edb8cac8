//! Recurrent states beside the cache: the gated delta rule (Qwen3-Next, Qwen3.5, Kimi Linear), the selective
//! scan (Mamba-2), and the last inputs of their short convolutions.
//!
//! A [`RecurrentState`] stands beside a [`KvCache`](crate::attention::KvCache). Its size does not grow
//! with the tokens, and a token that it took cannot be taken out again: what a later step may come back to is
//! kept by [`RecurrentState::fork`] into a spare sequence.
//!
//! Tokens are taken one after the other (NUMERICS rule 4), in prompts too: one call with all tokens, a call
//! for each, and any chunks between give the same bits, at every tier and on any number of threads.

mod file;
mod rules;
mod state;

pub use rules::{DeltaTokens, ScanTokens, delta_rule, selective_scan};
pub use state::{RecurrentState, StateOptions};
