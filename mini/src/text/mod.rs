//! Texts and tokens: the corpus, the generated language, tokenizers, and the datasets made from them.

pub mod corpus;
mod dataset;
pub mod language;
#[cfg(feature = "bpe")]
mod pieces;
pub mod token_file;
mod tokenizer;
mod vocabulary;

pub use dataset::{Dataset, LANGUAGE_SEED};
#[cfg(feature = "bpe")]
pub use pieces::Pieces;
pub use tokenizer::{BOS, EOS, PAD, SPECIAL, Tokenizer, UNK};
pub use vocabulary::Vocabulary;
