//! `mini train`: train a model, with a checkpoint, a loss curve and the quality on held-out text.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use kvern::Context;
use sha2::{Digest, Sha256};

use crate::cli::{GlobalArgs, TextArg, TokenizerArg, TrainArgs};
use crate::hashes::hex;
use crate::infer::{Quality, evaluate};
use crate::measure::progress;
use crate::model::Quant;
use crate::model::{Model, Session, Shape, Weights};
use crate::plots;
use crate::report::outputs::Outputs;
use crate::report::{
    FormatMetrics, LossRow, TextMetrics, TrainingRow, read_metrics, read_rows, write_metrics, write_rows,
};
use crate::setup;
use crate::text::{Dataset, Tokenizer, Vocabulary};
use crate::train::{Adam, Batches, Schedule, Trainer};
use crate::train::{Checkpoint, Header};

/// Trains as the options say.
///
/// # Errors
/// When the options do not fit together, the text or the checkpoint cannot be read, the training diverges, or
/// a file cannot be written.
pub fn run(args: &TrainArgs, global: &GlobalArgs, outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    args.check()?;
    outputs.create()?;
    let ctx = setup::context(global.isa, args.train_threads)?;
    let data = dataset(args)?;
    let path = outputs.checkpoint(data.name);
    let begun = begin(args, &data, outputs)?;
    let first = begun.header.step;
    let end = args.stop_after.map_or(args.steps, |stop| stop.min(args.steps)) as u64;
    ensure!(first <= end, "{} is at step {first} already, beyond step {end}", path.display());

    let shape = begun.header.shape();
    writeln!(
        log,
        "{}: {} tokens to train on, {} held out, vocabulary {}",
        data.name,
        data.training.len(),
        data.held_out.len(),
        shape.vocabulary
    )?;
    let mut losses = if first > 0 { earlier_losses(outputs, data.name, first)? } else { Vec::new() };
    let start = Instant::now();
    let finished = train(&ctx, args, begun, &data, end, &mut losses, outputs)?;
    let seconds = start.elapsed().as_secs_f64();
    let hash = finished.weights.sha256();
    finished.save(&path)?;
    write_losses(outputs, &data, &losses)?;

    let steps = end - first;
    let milliseconds = if steps == 0 { 0.0 } else { seconds * 1e3 / steps as f64 };
    let row = TrainingRow { text: data.name.into(), steps, seconds, ms_per_step: milliseconds };
    outputs.create_timings()?;
    write_rows(&outputs.training_time(data.name), &[row])?;
    if let (Some(a), Some(b)) = (losses.first(), losses.last()) {
        writeln!(log, "steps {} to {}: loss {:.4} to {:.4}", a.step, b.step, a.loss, b.loss)?;
    }
    writeln!(log, "{seconds:.2} s, {milliseconds:.2} ms per step ({})", setup::describe(&ctx))?;
    writeln!(log, "weights sha256: {hash}")?;
    quality(&ctx, &finished, args, outputs, log)?;
    writeln!(log, "{}", path.display())?;
    Ok(())
}

fn dataset(args: &TrainArgs) -> Result<Dataset> {
    match (&args.corpus, args.text) {
        (Some(path), _) => Dataset::file(path, |text| vocabulary(args, text)),
        (None, TextArg::Seed) => Ok(Dataset::seed()),
        (None, TextArg::Language) => Ok(Dataset::language()),
    }
}

/// The vocabulary of a file.
fn vocabulary(args: &TrainArgs, text: &str) -> Result<Vocabulary> {
    match args.tokenizer {
        TokenizerArg::Word => Ok(Vocabulary::Words(Tokenizer::most_frequent(text, args.vocabulary))),
        #[cfg(feature = "bpe")]
        TokenizerArg::Bpe => Ok(Vocabulary::Pieces(crate::text::Pieces::train(text, args.vocabulary)?)),
    }
}

/// The checkpoint to start from: that of the output directory with `--resume`, else the initial one.
fn begin(args: &TrainArgs, data: &Dataset, outputs: &Outputs) -> Result<Checkpoint> {
    let mut ids = Sha256::new();
    data.training.iter().for_each(|id| ids.update(id.to_le_bytes()));
    let model = &args.model;
    let header = Header {
        text: data.name.into(),
        text_sha256: hex(&ids.finalize()),
        entropy: data.entropy,
        recipe: args.recipe(),
        step: 0,
        dim: model.dim,
        heads: model.heads,
        ffn: model.ffn,
        layers: model.layers,
        context: model.context,
        tokenizer: data.tokenizer.clone(),
    };
    if !args.resume {
        let shape = header.shape();
        let weights = Weights::to_train(&shape, model.seed);
        let adam = Adam::new(&shape);
        return Ok(Checkpoint { header, weights, adam, held_out: data.held_out.clone() });
    }
    let path = outputs.checkpoint(data.name);
    let found = Checkpoint::load(&path).context("nothing to --resume")?;
    let expected = Header { step: found.header.step, ..header };
    ensure!(
        found.header.recipe == expected.recipe,
        "{} was trained otherwise: {:?}, not {:?}",
        path.display(),
        found.header.recipe,
        expected.recipe
    );
    ensure!(found.header == expected, "{} has another text or other sizes", path.display());
    Ok(found)
}

/// Trains up to step `end`, adding a row a step.
fn train(
    ctx: &Context,
    args: &TrainArgs,
    begun: Checkpoint,
    data: &Dataset,
    end: u64,
    losses: &mut Vec<LossRow>,
    outputs: &Outputs,
) -> Result<Checkpoint> {
    let Checkpoint { mut header, weights, adam, held_out } = begun;
    let recipe = header.recipe.clone();
    let schedule = Schedule { rate: recipe.lr, warmup: recipe.warmup, decay: recipe.decay };
    let batches = Batches::new(&data.training, recipe.seed, recipe.batch, recipe.seq)?;
    let first = header.step;
    let shape = header.shape();
    let mut trainer = Trainer::new(ctx, shape, weights, adam, (recipe.batch, recipe.seq))?;
    let bar = progress::loss_bar(end - first, "training");
    for step in first..end {
        let (inputs, targets) = batches.get(step);
        let report = trainer.step((&inputs, &targets), &schedule, recipe.clip)?;
        losses.push(LossRow { step: step + 1, loss: report.loss, norm: report.norm, rate: report.rate });
        bar.set_message(format!("loss {:.4}", report.loss));
        bar.inc(1);
        let due = args.checkpoint_every.is_some_and(|every| (step + 1).is_multiple_of(every as u64));
        if due && step + 1 < end {
            header.step = step + 1;
            let (weights, adam) = (trainer.weights().clone(), trainer.adam().clone());
            Checkpoint { header: header.clone(), weights, adam, held_out: held_out.clone() }
                .save(&outputs.checkpoint(data.name))?;
            write_rows(&outputs.loss(data.name), losses)?;
        }
    }
    bar.finish_and_clear();
    header.step = end;
    let (weights, adam) = trainer.into_parts();
    Ok(Checkpoint { header, weights, adam, held_out })
}

/// The rows of the steps before the checkpoint, where they are still there.
fn earlier_losses(outputs: &Outputs, name: &str, step: u64) -> Result<Vec<LossRow>> {
    let path = outputs.loss(name);
    let mut rows: Vec<LossRow> = if path.try_exists()? { read_rows(&path)? } else { Vec::new() };
    rows.retain(|row| row.step <= step);
    Ok(rows)
}

fn write_losses(outputs: &Outputs, data: &Dataset, losses: &[LossRow]) -> Result<()> {
    if losses.is_empty() {
        return Ok(());
    }
    write_rows(&outputs.loss(data.name), losses)?;
    plots::loss(&outputs.plot_loss(data.name), data.name, losses, data.entropy)
}

/// Evaluates the weight formats on the held-out text, prints them and puts them into `metrics.json`.
fn quality(
    ctx: &Context,
    trained: &Checkpoint,
    args: &TrainArgs,
    outputs: &Outputs,
    log: &mut impl Write,
) -> Result<()> {
    let shape = trained.header.shape();
    let formats: Vec<Quant> =
        Quant::ALL.into_iter().filter(|quant| args.model.check_blocks(*quant).is_ok()).collect();
    let found = qualities(ctx, shape, &trained.weights, &trained.held_out, args.seq, &formats)?;
    let floor = trained.header.entropy.map(libm::exp);
    writeln!(
        log,
        "held-out text, {} predictions in windows of {}:\n  {:<6}{:>11}{:>10}{:>9}{:>13}{:>10}{:>8}",
        trained.held_out.len().saturating_sub(1),
        args.seq,
        "",
        "perplexity",
        "of floor",
        "loss",
        "logit error",
        "KL",
        "top-1"
    )?;
    let mut metrics = read_metrics(&outputs.metrics())?;
    let mut by_format = std::collections::BTreeMap::new();
    for (quant, quality) in formats.iter().zip(&found) {
        writeln!(
            log,
            "  {:<6}{:>11.3}{:>10}{:>9.4}{:>13.5}{:>10.6}{:>8.4}",
            quant.config(),
            quality.perplexity,
            floor.map_or("-".into(), |floor| format!("{:.4}", quality.perplexity / floor)),
            quality.loss,
            quality.max_abs_logit_err,
            quality.kl,
            quality.top1_agreement
        )?;
        by_format.insert(quant.config().to_owned(), FormatMetrics::new(quality, floor));
    }
    let entry = TextMetrics {
        steps: trained.header.step,
        weights_sha256: trained.weights.sha256(),
        positions: trained.held_out.len().saturating_sub(1) as u64,
        floor_perplexity: floor,
        formats: by_format,
    };
    metrics.insert(trained.header.text.clone(), entry);
    write_metrics(&outputs.metrics(), &metrics)
}

/// The quality of each format, the first being the reference.
pub fn qualities(
    ctx: &Context,
    shape: Shape,
    weights: &Weights,
    held_out: &[u32],
    window: usize,
    formats: &[Quant],
) -> Result<Vec<Quality>> {
    let models = formats
        .iter()
        .map(|quant| Model::pack(ctx, shape, weights.clone(), *quant))
        .collect::<Result<Vec<_>>>()?;
    let window = window.min(held_out.len().saturating_sub(1)).max(1);
    let mut sessions =
        models.iter().map(|model| Session::new(ctx, model, window)).collect::<Result<Vec<_>>>()?;
    let windows = held_out.len().saturating_sub(1).div_ceil(window) as u64;
    let bar = progress::bar(windows, "perplexity");
    let found = evaluate(&mut sessions, held_out, window, || bar.inc(1));
    bar.finish_and_clear();
    found
}
