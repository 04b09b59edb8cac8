//! `mini`: a small transformer with KV cache and quantised weights, from corpus to plots.
//!
//! It is the reference application of `kvern` and uses the public API only. The folders, from the top down;
//! each imports only from folders below it:
//!
//! ```text
//! commands   one file for each subcommand
//! cli        the arguments: names, defaults, limits
//! plots      PNG files drawn from the tables
//! report     the output directory, tables and JSON files
//! train      forward and backward pass, Adam, checkpoints
//! infer      generation, sampling, beam search, evaluation
//! model      shapes, weight formats, weights, sessions
//! text       corpus, generated language, tokenizers, datasets
//! measure    timing, peak memory, statistics, progress bars
//! hashes, random, setup   SHA-256 of files, seeded numbers, the compute context
//! ```
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod hashes;
pub mod infer;
pub mod measure;
pub mod model;
pub mod plots;
pub mod random;
pub mod report;
pub mod setup;
pub mod text;
pub mod train;
