//! The `speed` subcommands and the table that they share.

pub mod attention;
mod inputs;
#[cfg(feature = "peers")]
pub mod matmul;
pub mod quant;

use crate::ceilings::{self, Peaks};
use anyhow::Result;
use kvern::{Context, ContextOptions, Isa};
use std::time::Duration;

/// Options of every `speed` subcommand.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Threads of kvern and of the peers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Tab-separated output with a header line
    #[arg(long)]
    pub tsv: bool,
    /// Use no tier above this one: scalar, avx2, avx-vnni, avx512
    #[arg(long)]
    pub isa: Option<Isa>,
    /// Only cases whose name contains this
    #[arg(long)]
    pub filter: Option<String>,
    /// Milliseconds for each candidate of a case
    #[arg(long, default_value_t = 300)]
    pub budget_ms: u64,
}

impl Options {
    /// The tier asked for, or the best there is.
    pub fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::detect)
    }

    /// Time budget of each candidate of a case.
    pub fn budget(&self) -> Duration {
        Duration::from_millis(self.budget_ms)
    }

    /// Whether the filter lets this case pass.
    pub fn wants(&self, case: &str) -> bool {
        self.filter.as_ref().is_none_or(|f| case.contains(f.as_str()))
    }
}

/// One line of a table: one candidate on one case.
pub struct Row {
    /// Name of the case.
    pub case: String,
    /// Who computed it: a kernel of ours, or a peer.
    pub kernel: String,
    /// Of one call, median of all rounds.
    pub seconds: f64,
    /// Operations of a call, a multiply-add counting as two.
    pub operations: f64,
    /// Bytes that a call has to read from memory at least, 0 where caches hold them.
    pub bytes: f64,
    /// The best peer and how many times faster kvern is; `None` for the peers' own rows.
    pub best_peer: Option<(String, f64)>,
}

/// The machine's limits for this run.
pub struct Limits {
    /// Operations a second of one thread.
    pub peaks: Peaks,
    /// Bytes a second that all threads together read from memory.
    pub bandwidth: f64,
    threads: usize,
}

impl Limits {
    /// Measures the tier and the threads that the options ask for; takes about two seconds.
    pub fn measure(options: &Options) -> Limits {
        let threads = usize::from(options.threads);
        Limits {
            peaks: ceilings::peaks(options.isa()),
            bandwidth: ceilings::read_bandwidth(threads, true),
            threads,
        }
    }

    /// Seconds that the binding limit allows: `peak` operations a second a thread, or the bandwidth.
    pub fn floor(&self, operations: f64, bytes: f64, peak: f64) -> f64 {
        (operations / (peak * self.threads as f64)).max(bytes / self.bandwidth)
    }
}

/// Common start of the subcommands: creates the context, measures the limits, and prints the head of the
/// table.
pub fn start(options: &Options) -> Result<(Context, Limits, Table)> {
    let threads = usize::from(options.threads);
    let ctx = Context::new(&ContextOptions::default().isa_cap(options.isa()).threads(threads))?;
    let limits = Limits::measure(options);
    if !options.tsv {
        println!(
            "{threads} thread(s) at {}: int8 peak {:.1} GOP/s, FMA peak {:.1} GFLOP/s a thread, \
             read {:.1} GB/s (2 MiB pages)\n",
            ctx.isa(),
            limits.peaks.int8 / 1e9,
            limits.peaks.f32 / 1e9,
            limits.bandwidth / 1e9
        );
    }
    Ok((ctx, limits, Table::start(options)))
}

/// Prints rows as they come.
pub struct Table {
    tsv: bool,
    threads: u16,
}

impl Table {
    /// Prints the header.
    fn start(options: &Options) -> Table {
        if options.tsv {
            println!(
                "case\tkernel\tthreads\tus\tgflops\tgbps\tshare_of_ceiling\tbest_peer\tratio_to_best_peer"
            );
        } else {
            println!(
                "{:<36}{:<22}{:>11}{:>9}{:>8}{:>8}  best peer",
                "case", "kernel", "us", "GFLOP/s", "GB/s", "share"
            );
        }
        Table { tsv: options.tsv, threads: options.threads }
    }

    /// `floor`: what the ceiling allows, in seconds.
    pub fn row(&self, row: &Row, floor: f64) {
        let (us, gflops) = (row.seconds * 1e6, row.operations / row.seconds / 1e9);
        let (gbps, share) = (row.bytes / row.seconds / 1e9, floor / row.seconds);
        let (peer, ratio) = match &row.best_peer {
            Some((peer, ratio)) => (peer.as_str(), format!("{ratio:.3}")),
            None => ("", String::new()),
        };
        if self.tsv {
            println!(
                "{}\t{}\t{}\t{us:.3}\t{gflops:.2}\t{gbps:.2}\t{share:.4}\t{peer}\t{ratio}",
                row.case, row.kernel, self.threads
            );
        } else {
            println!(
                "{:<36}{:<22}{us:>11.2}{gflops:>9.1}{gbps:>8.1}{share:>8.3}  {peer} {ratio}",
                row.case, row.kernel
            );
        }
    }
}
