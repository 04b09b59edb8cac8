//! kvern and ggml (the library inside llama.cpp) on the same cases, interleaved in one process: what ran
//! next to each other on a noisy machine can be compared.
//!
//! The table has the columns of `kvern-perf speed`; see perf/README.md.
#![deny(unsafe_code)]

mod attention;
mod check;
#[allow(unsafe_code)]
mod ggml;
mod quant;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kvern_perf::speed::Options;

#[derive(Parser)]
#[command(version, about = "kvern beside ggml, interleaved in one process")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Products with quantised weights
    Quant(Options),
    /// Attention over a cache: one query, and prompts
    Attention(Options),
}

fn main() -> Result<()> {
    match Cli::parse().what {
        What::Quant(options) => quant::run(&options),
        What::Attention(options) => attention::run(&options),
    }
}
