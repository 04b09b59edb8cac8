//! `mini bench-quant`: size, quality, latency and memory of each weight format.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kvern::Context;

use super::bench::{PROMPT, TOKENS, check};
use super::peak_memory;
use super::source::Source;
use super::train::qualities;
use crate::cli::{GlobalArgs, ModelArgs};
use crate::infer::Quality;
use crate::infer::generate;
use crate::measure::stats;
use crate::measure::{Effort, interleaved};
use crate::model::Quant;
use crate::model::{Model, Session};
use crate::report::outputs::Outputs;
use crate::report::{MemoryRow, QuantRow, accuracy_drops, write_accuracy, write_rows};
use crate::setup;

const LATENCY: Effort = Effort { budget: Duration::from_millis(2000), least: 5, most: 400 };

const MIB: f64 = (1 << 20) as f64;

/// Writes `bench_quant.csv`, `memory_usage.csv` and `accuracy_drop.json`. `program` is the executable of this
/// crate: peak memory is that of a fresh process for each format.
///
/// # Errors
/// When the options do not fit together or the machine, a file cannot be written, a process cannot be run, or
/// a format is not smaller than the one before it.
pub fn run(
    args: &ModelArgs,
    global: &GlobalArgs,
    program: &Path,
    outputs: &Outputs,
    log: &mut impl Write,
) -> Result<Vec<QuantRow>> {
    check(args)?;
    Quant::ALL.into_iter().try_for_each(|quant| args.check_blocks(quant))?;
    outputs.create()?;
    let ctx = setup::context(global.isa, global.threads)?;
    let source = Source::choose(None, args, outputs)?;
    let models = Quant::ALL
        .into_iter()
        .map(|quant| Model::pack(&ctx, source.shape, source.weights.clone(), quant))
        .collect::<Result<Vec<_>>>()?;

    let qualities =
        qualities(&ctx, source.shape, &source.weights, &source.held_out, source.window, &Quant::ALL)?;
    let (latencies, held) = latencies(&ctx, &models)?;
    let mut rows = Vec::new();
    for ((model, quality), sample) in models.iter().zip(qualities).zip(&latencies) {
        rows.push(row(model, quality, sample, peak_memory::of_child(program, args, global, model.quant())?)?);
    }
    let memory: Vec<_> = rows
        .iter()
        .zip(held)
        .map(|(row, held)| MemoryRow { config: row.config.clone(), memory_mb: held as f64 / MIB })
        .collect();
    write_rows(&outputs.bench_quant(), &rows)?;
    write_rows(&outputs.memory_usage(), &memory)?;
    write_accuracy(&outputs.accuracy_drop(), &accuracy_drops(&rows)?)?;

    writeln!(log, "weights: {}", source.describe())?;
    write_table(&rows, &memory, log)?;
    verdict(&rows, log)?;
    Ok(rows)
}

/// A sample of generation times with cache for each model, in milliseconds, and the bytes held by each model
/// with its session.
fn latencies(ctx: &Context, models: &[Model]) -> Result<(Vec<Vec<f64>>, Vec<usize>)> {
    let mut sessions =
        models.iter().map(|model| Session::new(ctx, model, PROMPT.len())).collect::<Result<Vec<_>>>()?;
    let samples = interleaved("latency", LATENCY, models.len(), |case| {
        Ok(generate(&mut sessions[case], &PROMPT, TOKENS, true, |_| ())?.elapsed)
    })?;
    let held = sessions.iter().map(|session| session.model().bytes() + session.bytes()).collect();
    Ok((samples, held))
}

fn row(model: &Model, quality: Quality, sample: &[f64], peak: Option<u64>) -> Result<QuantRow> {
    Ok(QuantRow {
        config: model.quant().config().into(),
        size_mb: model.bytes() as f64 / MIB,
        perplexity: quality.perplexity,
        loss: quality.loss,
        latency_ms: stats::median(sample).context("no samples")?,
        latency_std: stats::sample_std(sample).context("no samples")?,
        bytes_streamed: model.bytes_streamed()? as u64,
        max_abs_logit_err: quality.max_abs_logit_err,
        top1_agreement: quality.top1_agreement,
        peak_memory_mb: peak.unwrap_or(0) as f64 / MIB,
    })
}

/// The findings as a table for people.
fn write_table(rows: &[QuantRow], memory: &[MemoryRow], log: &mut impl Write) -> Result<()> {
    writeln!(log, "weight formats (MiB are 2^20 bytes; ms for {TOKENS} tokens with cache, median):")?;
    writeln!(
        log,
        "  {:<6}{:>8}{:>11}{:>8}{:>9}{:>8}{:>13}{:>12}{:>8}{:>10}{:>10}",
        "",
        "MiB",
        "perplexity",
        "loss",
        "ms",
        "+-",
        "bytes/token",
        "logit error",
        "top-1",
        "held MiB",
        "peak MiB"
    )?;
    for (row, memory) in rows.iter().zip(memory) {
        writeln!(
            log,
            "  {:<6}{:>8.3}{:>11.2}{:>8.4}{:>9.3}{:>8.3}{:>13}{:>12.5}{:>8.4}{:>10.3}{:>10.2}",
            row.config,
            row.size_mb,
            row.perplexity,
            row.loss,
            row.latency_ms,
            row.latency_std,
            row.bytes_streamed,
            row.max_abs_logit_err,
            row.top1_agreement,
            memory.memory_mb,
            row.peak_memory_mb
        )?;
    }
    if rows.iter().any(|row| row.peak_memory_mb == 0.0) {
        writeln!(log, "  note: this system does not tell the peak memory of a process")?;
    }
    Ok(())
}

/// Says whether the formats are in order of size and latency.
///
/// # Errors
/// When they are not in order of size, which is a defect. Latencies depend on the machine and its load, so
/// their order is no error.
fn verdict(rows: &[QuantRow], log: &mut impl Write) -> Result<()> {
    let [fp32, int8, int4] = rows else { return Ok(()) };
    let says = |holds: bool| if holds { "yes" } else { "NO" };
    let smaller = int4.size_mb < int8.size_mb && int8.size_mb < fp32.size_mb;
    let faster = int4.latency_ms <= int8.latency_ms && int8.latency_ms < fp32.latency_ms;
    writeln!(
        log,
        "verdict: size Int4 {:.3} < Int8 {:.3} < FP32 {:.3} MiB: {}; \
         latency Int4 {:.3} <= Int8 {:.3} < FP32 {:.3} ms: {}",
        int4.size_mb,
        int8.size_mb,
        fp32.size_mb,
        says(smaller),
        int4.latency_ms,
        int8.latency_ms,
        fp32.latency_ms,
        says(faster)
    )?;
    ensure!(smaller, "the quantised weights are not smaller");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(sizes: [f64; 3], latencies: [f64; 3]) -> Vec<QuantRow> {
        let row = |i: usize| QuantRow {
            config: Quant::ALL[i].config().into(),
            size_mb: sizes[i],
            perplexity: 1000.0,
            loss: 6.9,
            latency_ms: latencies[i],
            latency_std: 0.0,
            bytes_streamed: 1,
            max_abs_logit_err: 0.0,
            top1_agreement: 1.0,
            peak_memory_mb: 0.0,
        };
        (0..3).map(row).collect()
    }

    fn verdict_of(sizes: [f64; 3], latencies: [f64; 3]) -> (String, bool) {
        let mut log = Vec::new();
        let good = verdict(&rows(sizes, latencies), &mut log).is_ok();
        (String::from_utf8(log).unwrap(), good)
    }

    #[test]
    fn only_the_order_of_sizes_can_fail() {
        let (text, good) = verdict_of([3.0, 2.0, 1.0], [3.0, 2.0, 2.0]);
        assert!(good && !text.contains("NO"), "{text}");
        let (text, good) = verdict_of([3.0, 2.0, 1.0], [2.0, 2.0, 1.0]);
        assert!(good && text.contains("ms: NO"), "{text}");
        let (text, good) = verdict_of([3.0, 2.0, 2.0], [3.0, 2.0, 1.0]);
        assert!(!good && text.contains("MiB: NO"), "{text}");
    }

    #[test]
    fn a_peak_that_is_not_known_has_a_note() {
        let mut log = Vec::new();
        let memory = [MemoryRow { config: "FP32".into(), memory_mb: 1.0 }];
        write_table(&rows([3.0, 2.0, 1.0], [1.0; 3]), &memory, &mut log).unwrap();
        assert!(String::from_utf8(log).unwrap().contains("note:"));
    }
}
