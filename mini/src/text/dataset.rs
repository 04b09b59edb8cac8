//! Datasets: token ids to train on, and held-out ids to evaluate on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::corpus;
use super::language::Language;
use super::tokenizer::Tokenizer;
use super::vocabulary::Vocabulary;

/// Seed of the generated language.
pub const LANGUAGE_SEED: u64 = 42;

/// Ids at the end of the seed's corpus that are evaluated and not trained on.
const HELD_OUT: usize = 4097;

/// The most ids of a file that are held out; a tenth of shorter ones.
const MOST_HELD_OUT: usize = 16_385;

/// Token ids to train on and to evaluate on, with their vocabulary.
pub struct Dataset {
    /// `seed`, `language` or `file`: the stem of the dataset's output files.
    pub name: &'static str,
    /// Words to ids and back.
    pub tokenizer: Vocabulary,
    /// Ids to train on.
    pub training: Vec<u32>,
    /// Ids to evaluate on, which are not trained on.
    pub held_out: Vec<u32>,
    /// Entropy of the source in nats a token, where it is known.
    pub entropy: Option<f64>,
}

impl Dataset {
    /// The seed's corpus: words drawn uniformly, each alone, so that nothing before a word says anything
    /// about it.
    pub fn seed() -> Self {
        let text = corpus::generate();
        let tokenizer = Tokenizer::from_text(&text);
        let mut training = tokenizer.encode(&text);
        let held_out = training.split_off(training.len().saturating_sub(HELD_OUT));
        let entropy = Some(libm::log(f64::from(corpus::DISTINCT_WORDS)));
        let tokenizer = Vocabulary::Words(tokenizer);
        Self { name: "seed", tokenizer, training, held_out, entropy }
    }

    /// The generated language.
    pub fn language() -> Self {
        let language = Language::new(LANGUAGE_SEED);
        let text = language.training_text();
        let tokenizer = Tokenizer::from_text(&text);
        Self {
            name: "language",
            training: tokenizer.encode(&text),
            held_out: tokenizer.encode(&language.held_out_text()),
            tokenizer: Vocabulary::Words(tokenizer),
            entropy: Some(Language::entropy()),
        }
    }

    /// A file of the user's. Its last tenth (16,385 tokens at most) is held out; `vocabulary` makes the
    /// vocabulary from the rest.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8, or has fewer than 20 tokens, or `vocabulary` fails.
    pub fn file(path: &Path, vocabulary: impl FnOnce(&str) -> Result<Vocabulary>) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read --corpus {}", path.display()))?;
        // The vocabulary is made before the held-out part is read, so that it cannot contain words from it.
        let cut = text.len() / 10 * 9;
        let mut spaces = text.char_indices().filter(|(_, c)| c.is_whitespace()).map(|(i, _)| i);
        let cut = spaces.rfind(|&i| i <= cut).unwrap_or(0);
        let (known, rest) = text.split_at(cut);
        let tokenizer = vocabulary(known)?;
        let training = tokenizer.encode(known)?;
        let mut held_out = tokenizer.encode(rest)?;
        held_out.truncate(MOST_HELD_OUT);
        ensure!(
            training.len() >= 18 && held_out.len() >= 2,
            "--corpus {} has {} tokens to train on and {} to evaluate on; 18 and 2 are needed",
            path.display(),
            training.len(),
            held_out.len()
        );
        Ok(Self { name: "file", tokenizer, training, held_out, entropy: None })
    }
}
