//! The modules of `mini`, the reference application of `kvern`: a
//! Mini-Transformer with KV cache and quantisation, from corpus to plots.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod beam;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod corpus;
pub mod evaluate;
pub mod generate;
pub mod hashes;
pub mod language;
pub mod measure;
pub mod model;
pub mod outputs;
pub mod peak;
#[cfg(feature = "bpe")]
pub mod pieces;
pub mod plots;
pub mod progress;
pub mod random;
pub mod report;
pub mod sampling;
pub mod setup;
pub mod source;
pub mod stats;
pub mod text;
pub mod token_file;
pub mod tokenizer;
pub mod train;
pub mod vocabulary;
