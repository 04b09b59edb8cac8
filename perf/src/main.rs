//! `kvern-perf`: the machine's ceilings, kvern's share of them beside its peers, and the ledger of
//! instruction counts with its gate.

mod bytes;
mod ledger;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kvern_perf::{ceilings, crowd, regions, speed};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "Measures kvern against the machine's limits and against its peers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Peaks of FMA, int8 and bf16 dot products, and read bandwidth by threads and page size
    Ceilings {
        /// Measure bandwidth with 1 to N threads
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
        threads: u16,
    },
    /// Cost of an empty parallel region, beside rayon's entry points
    Regions {
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
        threads: u16,
    },
    /// Cost of more threads than CPUs: time, CPU time and context switches of two small products
    Crowd {
        /// CPUs to stay on (0: all)
        #[arg(long, default_value_t = 1)]
        cpus: usize,
    },
    /// kvern and its peers on the shapes of transformers
    Speed {
        #[command(subcommand)]
        what: Speed,
    },
    /// Count instructions and compare with the committed ledger (0 ok, 1 tools, 3 regression, 4 stale)
    Gate(ledger::Options),
    /// Count instructions and rewrite the ledger
    Bless(ledger::Options),
    /// Bytes that each operation streams: the model beside what the library holds
    Bytes,
    /// Markdown table of the ledger against a revision, and a chart of its history
    Report(ledger::ReportOptions),
}

#[derive(Subcommand)]
enum Speed {
    /// f32, f16 and bf16 matrix products
    Matmul(speed::Options),
    /// Decode and prefill over the caches of a layer
    Attention(speed::Options),
    /// Products with weights in every format
    Quant(speed::Options),
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Bytes => bytes::print()?,
        Command::Ceilings { threads } => ceilings::print(usize::from(threads)),
        Command::Regions { threads } => regions::print(usize::from(threads))?,
        Command::Crowd { cpus } => crowd::print(cpus)?,
        Command::Speed { what: Speed::Matmul(options) } => speed::matmul::run(&options)?,
        Command::Speed { what: Speed::Attention(options) } => speed::attention::run(&options)?,
        Command::Speed { what: Speed::Quant(options) } => speed::quant::run(&options)?,
        Command::Gate(options) => return ledger::gate(&options),
        Command::Bless(options) => return ledger::bless(&options),
        Command::Report(options) => ledger::report(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}
