//! `mini run`: everything in order, and a summary.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::generate::UNTRAINED;
use super::{bench, bench_quant, corpus, generate, plot, tokenize, verify};
use crate::cli::{GenerateArgs, GlobalArgs, ModelArgs, Quant, VOCABULARY};
use crate::outputs::Outputs;
use crate::report::QuantRow;
use crate::setup;

/// Runs all steps and prints what they found.
///
/// # Errors
/// The first one of a step. The options are checked before the first step.
pub fn run(
    args: &ModelArgs,
    global: &GlobalArgs,
    program: &Path,
    outputs: &Outputs,
    log: &mut impl Write,
) -> Result<()> {
    bench::check(args)?;
    Quant::ALL.into_iter().try_for_each(|quant| args.check_blocks(quant))?;
    setup::context(global.isa, global.threads)?;

    section(log, "corpus")?;
    corpus::run(outputs, log)?;
    verify::run(outputs, log)?;
    section(log, "tokens")?;
    tokenize::run(outputs, log)?;
    section(log, "generate")?;
    generate::run(&sample(args), global, log)?;
    section(log, "bench")?;
    let findings = bench::run(args, global, outputs, log)?;
    section(log, "bench-quant")?;
    let rows = bench_quant::run(args, global, program, outputs, log)?;
    section(log, "plots")?;
    plot::run(outputs, log)?;
    section(log, "summary")?;
    summary(args, global, outputs, &findings, &rows, log)
}

fn section(log: &mut impl Write, name: &str) -> Result<()> {
    Ok(writeln!(log, "\n== {name} ==")?)
}

/// A generation that fits every context that the measurements fit.
fn sample(args: &ModelArgs) -> GenerateArgs {
    GenerateArgs { prompt: None, tokens: 24, quant: Quant::Fp32, no_cache: false, model: args.clone() }
}

fn summary(
    args: &ModelArgs,
    global: &GlobalArgs,
    outputs: &Outputs,
    findings: &bench::Findings,
    rows: &[QuantRow],
    log: &mut impl Write,
) -> Result<()> {
    let ctx = setup::context(global.isa, global.threads)?;
    let kernels: Vec<_> = ctx.kernel_names().iter().map(|(_, kernel)| *kernel).collect();
    writeln!(log, "corpus      SHA-256 {}", crate::corpus::read_sha256(&outputs.corpus_sha256())?)?;
    writeln!(log, "model       {} parameters, seed {}", args.parameters(VOCABULARY), args.seed)?;
    writeln!(log, "compute     {}: {}", setup::describe(&ctx), kernels.join(", "))?;
    writeln!(log, "cache       {:.2}x faster at {} tokens (FP32)", findings.speed_up, bench::TOKENS)?;
    for (i, row) in rows.iter().enumerate() {
        writeln!(
            log,
            "{:<12}{:<5}{:>7.3} MiB{:>9.3} ms for {} tokens{:>10.2} perplexity",
            if i == 0 { "formats" } else { "" },
            row.config,
            row.size_mb,
            row.latency_ms,
            bench::TOKENS,
            row.perplexity
        )?;
    }
    for (i, (quant, hash)) in findings.hashes.iter().enumerate() {
        writeln!(log, "{:<12}{:<5}{hash}", if i == 0 { "logits" } else { "" }, quant.config())?;
    }
    writeln!(log, "{:<12}equal with and without cache, at 1 and 2 threads: yes", "")?;
    for (i, path) in outputs.all().iter().enumerate() {
        writeln!(log, "{:<12}{}", if i == 0 { "files" } else { "" }, path.display())?;
    }
    writeln!(log, "note        {UNTRAINED}")?;
    Ok(())
}
