//! `kvern-perf`: the machine's ceilings, and kvern's share of them beside its peers.
//!
//! Everything that is compared runs interleaved in one process, and every figure is a median or a best of
//! many: these numbers are for ratios, not for absolute claims.

mod ceilings;
mod peers;
mod speed;
mod timing;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
    /// kvern and its peers on the shapes of transformers
    Speed {
        #[command(subcommand)]
        what: Speed,
    },
}

#[derive(Subcommand)]
enum Speed {
    /// f32, f16 and bf16 matrix products
    Matmul(speed::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Ceilings { threads } => {
            ceilings::print(usize::from(threads));
            Ok(())
        }
        Command::Speed { what: Speed::Matmul(options) } => speed::matmul::run(&options),
    }
}
