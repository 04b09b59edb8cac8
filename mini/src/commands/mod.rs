//! One file a subcommand. Each has a `run` that writes its files into the output directory and its findings
//! to `log`.

pub mod bench;
pub mod bench_quant;
pub mod corpus;
pub mod generate;
pub mod hashes;
pub mod idem;
pub mod pack;
pub mod peak_memory;
pub mod plot;
pub mod run;
mod source;
pub mod tokenize;
pub mod train;
pub mod verify;
pub mod verify_corpus;
