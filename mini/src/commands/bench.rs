//! `mini bench`: latency with and without the KV cache, and equal logits with both.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kvern::Context;

use super::source::Source;
use crate::cli::{GlobalArgs, ModelArgs};
use crate::infer::{generate, generate_hashed};
use crate::measure::progress;
use crate::measure::stats;
use crate::measure::{Effort, interleaved};
use crate::model::Quant;
use crate::model::{Model, Session};
use crate::report::outputs::Outputs;
use crate::report::{BenchRow, ContextRow, NO_CACHE, WITH_CACHE, write_rows};
use crate::setup;
use crate::text::BOS;

/// Tokens that are generated in one measurement.
pub const TOKENS: usize = 50;

/// Prompt of the measurements.
pub const PROMPT: [u32; 1] = [BOS];

const CONTEXTS: [usize; 6] = [16, 32, 64, 128, 256, 512];
const GENERATION: Effort = Effort { budget: Duration::from_millis(1500), least: 5, most: 200 };
const ONE_CONTEXT: Effort = Effort { budget: Duration::from_millis(200), least: 5, most: 500 };

/// Results of [`run`].
#[derive(Clone, Debug)]
pub struct Findings {
    /// Latency without cache over latency with cache.
    pub speed_up: f64,
    /// Each format with the SHA-256 of its logits, the same with and without cache at every number of
    /// threads.
    pub hashes: Vec<(Quant, String)>,
}

/// Writes `bench.csv` and `bench_context.csv` for FP32 and compares the logits of every format with and
/// without cache, at 1 and 2 threads.
///
/// # Errors
/// When the options do not fit together or the machine, a file cannot be written, or logits differ.
pub fn run(
    args: &ModelArgs,
    global: &GlobalArgs,
    outputs: &Outputs,
    log: &mut impl Write,
) -> Result<Findings> {
    check(args)?;
    Quant::ALL.into_iter().try_for_each(|quant| args.check_blocks(quant))?;
    outputs.create()?;
    let ctx = setup::context(global.isa, global.threads)?;
    let source = Source::choose(None, args, outputs)?;
    let model = Model::pack(&ctx, source.shape, source.weights.clone(), Quant::Fp32)?;
    writeln!(log, "weights: {}", source.describe())?;

    let rows = generation(&ctx, &model)?;
    write_rows(&outputs.bench(), &rows)?;
    writeln!(log, "{TOKENS} tokens, FP32, {}:", setup::describe(&ctx))?;
    for BenchRow { config, mean_ms, std_ms } in &rows {
        writeln!(log, "  {config:<11}{mean_ms:>9.3} ms +- {std_ms:.3}")?;
    }
    let speed_up = rows[1].mean_ms / rows[0].mean_ms;
    writeln!(log, "  speed-up   {speed_up:>9.2} x")?;

    let rows = contexts(&ctx, &model, &source.held_out)?;
    write_rows(&outputs.bench_context(), &rows)?;
    writeln!(log, "one token, in ms:\n  {:>7}{:>12}{:>12}", "context", "with cache", "no cache")?;
    for ContextRow { context, with_cache_ms, no_cache_ms } in &rows {
        writeln!(log, "  {context:>7}{with_cache_ms:>12.4}{no_cache_ms:>12.4}")?;
    }
    Ok(Findings { speed_up, hashes: hashes(&source, global, log)? })
}

/// As [`ModelArgs::check`], and that the context has room for a measurement.
///
/// # Errors
/// When it has not; the message has both numbers.
pub fn check(args: &ModelArgs) -> Result<()> {
    args.check()?;
    let need = PROMPT.len() + TOKENS;
    ensure!(
        args.context >= need,
        "--context {} is less than {need}: the prompt and the {TOKENS} tokens of a measurement",
        args.context
    );
    Ok(())
}

/// The rows of `bench.csv`, with the cache first.
fn generation(ctx: &Context, model: &Model) -> Result<Vec<BenchRow>> {
    let mut session = Session::new(ctx, model, PROMPT.len() + TOKENS)?;
    let samples = interleaved("generation", GENERATION, 2, |case| {
        Ok(generate(&mut session, &PROMPT, TOKENS, case == 0, |_| ())?.elapsed)
    })?;
    let row = |(config, sample): (&str, &Vec<f64>)| {
        Ok(BenchRow {
            config: config.into(),
            mean_ms: stats::mean(sample).context("no samples")?,
            std_ms: stats::sample_std(sample).context("no samples")?,
        })
    };
    [WITH_CACHE, NO_CACHE].into_iter().zip(&samples).map(row).collect()
}

/// The rows of `bench_context.csv`: time of the last of `context` tokens with the earlier ones in the cache,
/// and time of recomputing all of them.
fn contexts(ctx: &Context, model: &Model, ids: &[u32]) -> Result<Vec<ContextRow>> {
    let limit = model.shape().context.min(ids.len());
    let possible = CONTEXTS.into_iter().filter(|&context| context <= limit);
    let most = possible.clone().max().unwrap_or(1);
    let (mut cached, mut anew) = (Session::new(ctx, model, most)?, Session::new(ctx, model, most)?);
    let row = |context: usize| {
        let (before, last) = (&ids[..context - 1], &ids[context - 1..context]);
        cached.clear();
        cached.forward(before)?;
        let samples = interleaved("context", ONE_CONTEXT, 2, |case| {
            let start = if case == 0 {
                // In a sequence of single tokens the weights are in the CPU's caches. The pass over the whole
                // context displaced them; a step that does not count brings them back.
                cached.truncate(context - 1)?;
                cached.forward(last)?;
                cached.truncate(context - 1)?;
                let start = Instant::now();
                cached.forward(last)?;
                start
            } else {
                anew.clear();
                let start = Instant::now();
                anew.forward(&ids[..context])?;
                start
            };
            Ok(start.elapsed())
        })?;
        Ok(ContextRow {
            context: context as u64,
            with_cache_ms: stats::median(&samples[0]).context("no samples")?,
            no_cache_ms: stats::median(&samples[1]).context("no samples")?,
        })
    };
    possible.map(row).collect()
}

/// The hashes of the logits of each format, after comparing those with and without cache at 1 and 2 threads.
fn hashes(source: &Source, global: &GlobalArgs, log: &mut impl Write) -> Result<Vec<(Quant, String)>> {
    let contexts = [setup::context(global.isa, 1)?, setup::context(global.isa, 2)?];
    let bar = progress::bar(4 * Quant::ALL.len() as u64, "logits");
    let mut all = Vec::new();
    let mut differing = Vec::new();
    writeln!(log, "logits sha256, with and without cache, at 1 and 2 threads:")?;
    for quant in Quant::ALL {
        let model = Model::pack(&contexts[0], source.shape, source.weights.clone(), quant)?;
        let mut found = Vec::new();
        for ctx in &contexts {
            let mut session = Session::new(ctx, &model, PROMPT.len() + TOKENS)?;
            for cached in [true, false] {
                found.push(generate_hashed(&mut session, &PROMPT, TOKENS, cached)?.1);
                bar.inc(1);
            }
        }
        let equal = found.iter().all(|hash| *hash == found[0]);
        if equal {
            writeln!(log, "  {:<5}{}  equal", quant.config(), found[0])?;
        } else {
            writeln!(log, "  {:<5}{}  DIFFERENT", quant.config(), found.join(" "))?;
            differing.push(quant.config());
        }
        all.push((quant, found.swap_remove(0)));
    }
    bar.finish_and_clear();
    ensure!(differing.is_empty(), "the logits of {} depend on cache or threads", differing.join(", "));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_without_room_is_refused_with_both_numbers() {
        let args = ModelArgs { context: 50, ..ModelArgs::default() };
        let error = check(&args).unwrap_err().to_string();
        assert!(error.starts_with("--context 50 is less than 51"), "{error}");
        check(&ModelArgs { context: 51, ..args }).unwrap();
    }
}
