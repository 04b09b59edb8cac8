//! Options of `train` and `run`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::model::{ModelArgs, VOCABULARY};
use super::parsers::{positive, range};
use crate::train::Recipe;

/// A text to train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextArg {
    /// The seed's corpus of uniform words
    Seed,
    /// The generated language of known entropy
    Language,
}

/// Kind of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenizerArg {
    /// A word between white space
    Word,
    /// A piece of a word, by byte-pair encoding
    #[cfg(feature = "bpe")]
    Bpe,
}

/// Options of `train`.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// Text to train on
    #[arg(long, value_enum, default_value_t = TextArg::Seed)]
    pub text: TextArg,
    /// A text file of your own (UTF-8) instead
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub corpus: Option<PathBuf>,
    /// Kind of tokens of the file (`bpe` in builds with the feature `bpe`)
    #[arg(long, value_enum, default_value_t = TokenizerArg::Word, requires = "corpus")]
    pub tokenizer: TokenizerArg,
    /// Most tokens in the vocabulary of the file
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "corpus")]
    #[arg(value_parser = range(300..=65_536), allow_negative_numbers = true)]
    pub vocabulary: usize,
    /// Number of steps
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = range(1..=10_000_000), allow_negative_numbers = true)]
    pub steps: usize,
    /// Stop after this step and write a checkpoint, to be resumed later
    #[arg(long, value_name = "N")]
    #[arg(value_parser = range(1..=10_000_000), allow_negative_numbers = true)]
    pub stop_after: Option<usize>,
    /// Continue from the checkpoint in --out
    #[arg(long)]
    pub resume: bool,
    /// Write a checkpoint after every N steps as well
    #[arg(long, value_name = "N")]
    #[arg(value_parser = range(1..=10_000_000), allow_negative_numbers = true)]
    pub checkpoint_every: Option<usize>,
    /// Sequences in a batch
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = range(1..=4096), allow_negative_numbers = true)]
    pub batch: usize,
    /// Tokens in a sequence
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = range(1..=8192), allow_negative_numbers = true)]
    pub seq: usize,
    /// Learning rate after the warm-up
    #[arg(long, value_name = "X", default_value_t = 1e-3, value_parser = positive)]
    pub lr: f64,
    /// Steps over which the learning rate rises
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = range(0..=10_000_000), allow_negative_numbers = true)]
    pub warmup: usize,
    /// Decay the learning rate linearly to zero over the steps
    #[arg(long)]
    pub decay: bool,
    /// Limit of the norm of all gradients
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive)]
    pub clip: f64,
    /// Threads of the training; the weights do not depend on them
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = range(1..=256), allow_negative_numbers = true)]
    pub train_threads: usize,
    /// Size and seed of the model.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Values that one batch may have: 4 GiB of activations in f32.
const MAX_ACTIVATIONS: u64 = 1 << 30;

impl TrainArgs {
    /// Checks the limits that relate several options.
    ///
    /// # Errors
    /// As [`ModelArgs::check`], and when the sequences are longer than the context, or a batch is too large.
    pub fn check(&self) -> Result<()> {
        self.model.check()?;
        let Self { batch, seq, .. } = *self;
        let ModelArgs { dim, heads, ffn, layers, context, .. } = self.model;
        ensure!(seq <= context, "--seq {seq} is more than --context {context}");
        let vocabulary = if self.corpus.is_some() { self.vocabulary } else { VOCABULARY };
        let block = 8 * dim + 2 * ffn + heads * seq;
        let values = (batch * seq) as u64 * (layers * block + 8 * dim + vocabulary) as u64;
        ensure!(
            values <= MAX_ACTIVATIONS,
            "--batch {batch} and --seq {seq} give {values} activations; the limit is {MAX_ACTIVATIONS}"
        );
        Ok(())
    }

    /// The recipe of these options.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            batch: self.batch,
            seq: self.seq,
            lr: self.lr,
            warmup: self.warmup as u64,
            clip: self.clip,
            decay: self.decay.then_some(self.steps as u64),
            seed: self.model.seed,
        }
    }

    /// The seed's training: 100 steps on the seed's corpus.
    pub fn of_seed(model: &ModelArgs) -> Self {
        Self {
            text: TextArg::Seed,
            corpus: None,
            tokenizer: TokenizerArg::Word,
            vocabulary: 4096,
            steps: 100,
            stop_after: None,
            resume: false,
            checkpoint_every: None,
            batch: 4,
            seq: 64,
            lr: 1e-3,
            warmup: 10,
            decay: false,
            clip: 1.0,
            train_threads: 2,
            model: model.clone(),
        }
    }

    /// A training on the generated language that comes near its entropy.
    pub fn of_language(model: &ModelArgs) -> Self {
        Self {
            text: TextArg::Language,
            steps: 1500,
            batch: 16,
            lr: 5e-3,
            warmup: 20,
            decay: true,
            ..Self::of_seed(model)
        }
    }
}

/// Options of `run`, `test-idem`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RunArgs {
    /// Steps of both trainings [default: 100 on the seed's words, 1500 on the language]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = range(1..=10_000_000), allow_negative_numbers = true)]
    pub steps: Option<usize>,
    /// Threads of the trainings; the weights do not depend on them
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = range(1..=256), allow_negative_numbers = true)]
    pub train_threads: usize,
    /// Size and seed of the model.
    #[command(flatten)]
    pub model: ModelArgs,
}

impl Default for RunArgs {
    fn default() -> Self {
        Self { steps: None, train_threads: 2, model: ModelArgs::default() }
    }
}

impl RunArgs {
    /// The trainings of a run: on the seed's words and on the language.
    pub fn trainings(&self) -> [TrainArgs; 2] {
        [TrainArgs::of_seed(&self.model), TrainArgs::of_language(&self.model)].map(|args| TrainArgs {
            steps: self.steps.unwrap_or(args.steps),
            train_threads: self.train_threads,
            ..args
        })
    }
}
