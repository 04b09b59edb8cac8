//! The tokenizers that a model may have: words, or pieces of words.

use anyhow::Result;
use serde::{Deserialize, Serialize};

#[cfg(feature = "bpe")]
use super::pieces::Pieces;
use super::tokenizer::Tokenizer;

/// A tokenizer of either kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Vocabulary {
    /// Words between white space.
    Words(Tokenizer),
    /// Pieces of words, by byte-pair encoding.
    #[cfg(feature = "bpe")]
    Pieces(Pieces),
}

impl Vocabulary {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::Words(words) => words.vocabulary(),
            #[cfg(feature = "bpe")]
            Self::Pieces(pieces) => pieces.vocabulary(),
        }
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// When the library of the pieces fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Words(words) => Ok(words.encode(text)),
            #[cfg(feature = "bpe")]
            Self::Pieces(pieces) => pieces.encode(text),
        }
    }

    /// The text of ids. Words are joined by one space; bytes that are no character are replaced.
    ///
    /// # Errors
    /// When an id is not below [`Vocabulary::len`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match self {
            Self::Words(words) => words.decode(ids),
            #[cfg(feature = "bpe")]
            Self::Pieces(pieces) => pieces.decode(ids),
        }
    }
}
