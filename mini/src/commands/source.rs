//! The weights that a command runs: those of a checkpoint, or the initial ones.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cli::ModelArgs;
use crate::model::{Shape, Weights};
use crate::report::outputs::Outputs;
use crate::text::{Tokenizer, Vocabulary, corpus};
use crate::train::Checkpoint;

/// Ids of the seed's corpus that initial weights are evaluated on.
const INITIAL_IDS: usize = 4097;

/// Weights, with the vocabulary and the held-out text that belong to them.
pub struct Source {
    /// The sizes.
    pub shape: Shape,
    /// The weights.
    pub weights: Weights,
    /// Words to ids and back.
    pub tokenizer: Vocabulary,
    /// Ids to evaluate on.
    pub held_out: Vec<u32>,
    /// Predictions in a window of the evaluation: the sequence length of the training.
    pub window: usize,
    /// File of the weights; `None` for the initial ones.
    pub file: Option<PathBuf>,
    /// Steps of training.
    pub steps: u64,
}

impl Source {
    /// The initial weights of a seed, with the words of the seed's corpus.
    pub fn initial(args: &ModelArgs) -> Self {
        let text = corpus::generate();
        let tokenizer = Tokenizer::from_text(&text);
        let mut held_out = tokenizer.encode(&text);
        held_out.truncate(INITIAL_IDS);
        let shape = args.shape();
        Self {
            shape,
            weights: Weights::initial(&shape, args.seed),
            tokenizer: Vocabulary::Words(tokenizer),
            held_out,
            window: shape.context.min(INITIAL_IDS - 1),
            file: None,
            steps: 0,
        }
    }

    /// The weights of a checkpoint. The context is that of the options, because no weight depends on it.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn load(path: &Path, context: usize) -> Result<Self> {
        let Checkpoint { header, weights, held_out, .. } = Checkpoint::load(path)?;
        Ok(Self {
            shape: Shape { context, ..header.shape() },
            weights,
            held_out,
            window: header.recipe.seq.min(context),
            file: Some(path.to_owned()),
            steps: header.step,
            tokenizer: header.tokenizer,
        })
    }

    /// The weights of `file` if it is given; else those trained on the language in this output directory, if
    /// their sizes are those of the options; else the initial ones.
    ///
    /// # Errors
    /// When a checkpoint is there and cannot be read.
    pub fn choose(file: Option<&Path>, args: &ModelArgs, outputs: &Outputs) -> Result<Self> {
        if let Some(file) = file {
            return Self::load(file, args.context);
        }
        let trained = outputs.checkpoint("language");
        if trained.try_exists()? {
            let source = Self::load(&trained, args.context)?;
            if source.shape == args.shape() {
                return Ok(source);
            }
        }
        Ok(Self::initial(args))
    }

    /// Describes the origin of the weights, for people.
    pub fn describe(&self) -> String {
        match &self.file {
            Some(file) => format!("{} ({} steps of training)", file.display(), self.steps),
            None => "initial, not trained: every text is noise".into(),
        }
    }
}
