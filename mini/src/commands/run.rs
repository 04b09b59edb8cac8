//! `mini run`: everything in order, and a summary.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::{bench, bench_quant, corpus, generate, hashes, plot, tokenize, train, verify_corpus};
use crate::cli::{GenerateArgs, GlobalArgs, ModelArgs, RunArgs, TrainArgs};
use crate::model::Quant;
use crate::report::outputs::Outputs;
use crate::report::{FormatMetrics, Metrics, QuantRow, read_metrics};
use crate::setup;

/// Runs all steps and prints a summary.
///
/// # Errors
/// The first one of a step. The options are checked before the first step.
pub fn run(
    run: &RunArgs,
    global: &GlobalArgs,
    program: &Path,
    outputs: &Outputs,
    log: &mut impl Write,
) -> Result<()> {
    let args = &run.model;
    let trainings = run.trainings();
    trainings.iter().try_for_each(TrainArgs::check)?;
    bench::check(args)?;
    Quant::ALL.into_iter().try_for_each(|quant| args.check_blocks(quant))?;
    setup::context(global.isa, global.threads)?;

    section(log, "corpus")?;
    corpus::run(outputs, log)?;
    verify_corpus::run(outputs, log)?;
    section(log, "tokens")?;
    tokenize::run(outputs, log)?;
    for training in &trainings {
        section(log, "train")?;
        train::run(training, global, outputs, log)?;
    }
    section(log, "generate")?;
    generate::run(&sample(args), global, outputs, log)?;
    section(log, "bench")?;
    let findings = bench::run(args, global, outputs, log)?;
    section(log, "bench-quant")?;
    let rows = bench_quant::run(args, global, program, outputs, log)?;
    section(log, "plots")?;
    plot::run(outputs, log)?;
    hashes::run(global, outputs, log)?;
    section(log, "summary")?;
    summary(args, global, outputs, &findings, &rows, log)
}

fn section(log: &mut impl Write, name: &str) -> Result<()> {
    Ok(writeln!(log, "\n== {name} ==")?)
}

/// A generation that fits every context that the measurements fit.
fn sample(args: &ModelArgs) -> GenerateArgs {
    GenerateArgs { tokens: 24, ..GenerateArgs::new(args) }
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
    writeln!(log, "corpus      SHA-256 {}", crate::text::corpus::read_sha256(&outputs.corpus_sha256())?)?;
    writeln!(log, "model       {} parameters, seed {}", args.shape().parameters(), args.seed)?;
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
    perplexities(&read_metrics(&outputs.metrics())?, log)?;
    for (i, path) in outputs.all().iter().enumerate() {
        writeln!(log, "{:<12}{}", if i == 0 { "files" } else { "" }, path.display())?;
    }
    Ok(())
}

/// Perplexities against their floors, with a note on the corpus of uniform words.
fn perplexities(metrics: &Metrics, log: &mut impl Write) -> Result<()> {
    for (name, text) in metrics {
        let floor = text.floor_perplexity;
        let known = floor.map_or("no known floor".into(), |floor| format!("floor {floor:.2}"));
        write!(log, "{:<12}{name}, {} steps, {known}:", "perplexity", text.steps)?;
        for quant in Quant::ALL {
            if let Some(found) = text.formats.get(quant.config()) {
                write!(log, "  {} {:.2}{}", quant.config(), found.perplexity, above(found))?;
            }
        }
        writeln!(log)?;
        if name == "seed" {
            writeln!(
                log,
                "{:<12}the seed's words are drawn uniformly from 1000, each alone: no context tells the \
                 next one, so no model can get below 1000, and this figure says nothing about a format",
                ""
            )?;
        }
    }
    Ok(())
}

/// The distance to the floor: ` (+4.3 %)`.
fn above(found: &FormatMetrics) -> String {
    found.over_floor.map_or(String::new(), |ratio| format!(" ({:+.2} %)", (ratio - 1.0) * 100.0))
}
