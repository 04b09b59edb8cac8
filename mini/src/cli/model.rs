//! Size of the model: options, limits, parameter count.

use anyhow::Result;
use clap::Args;

use super::parsers::range;
use crate::model::{Quant, Shape};
use crate::text::{SPECIAL, corpus};

/// Tokens of the corpus and the special ones.
pub const VOCABULARY: usize = corpus::DISTINCT_WORDS as usize + SPECIAL.len();

/// Size and seed of the model.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Width of the model
    #[arg(long, value_name = "N", default_value_t = Shape::DEFAULT.dim)]
    #[arg(value_parser = range(1..=16_384), allow_negative_numbers = true)]
    pub dim: usize,
    /// Attention heads; they divide the width evenly
    #[arg(long, value_name = "N", default_value_t = Shape::DEFAULT.heads)]
    #[arg(value_parser = range(1..=256), allow_negative_numbers = true)]
    pub heads: usize,
    /// Width of the feed-forward layer
    #[arg(long, value_name = "N", default_value_t = Shape::DEFAULT.ffn)]
    #[arg(value_parser = range(1..=65_536), allow_negative_numbers = true)]
    pub ffn: usize,
    /// Transformer blocks
    #[arg(long, value_name = "N", default_value_t = Shape::DEFAULT.layers)]
    #[arg(value_parser = range(1..=256), allow_negative_numbers = true)]
    pub layers: usize,
    /// Longest context in tokens
    #[arg(long, value_name = "N", default_value_t = Shape::DEFAULT.context)]
    #[arg(value_parser = range(1..=131_072), allow_negative_numbers = true)]
    pub context: usize,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 42, allow_negative_numbers = true)]
    pub seed: u64,
}

impl Default for ModelArgs {
    fn default() -> Self {
        let Shape { dim, heads, ffn, layers, context, .. } = Shape::DEFAULT;
        Self { dim, heads, ffn, layers, context, seed: 42 }
    }
}

impl ModelArgs {
    /// Checks the limits that relate several options.
    ///
    /// # Errors
    /// As [`Shape::check`].
    pub fn check(&self) -> Result<()> {
        self.shape().check()
    }

    /// Checks that the inputs of every product fill whole blocks of `quant`.
    ///
    /// # Errors
    /// As [`Shape::check_blocks`].
    pub fn check_blocks(&self, quant: Quant) -> Result<()> {
        self.shape().check_blocks(quant)
    }

    /// The sizes as the model takes them, with the corpus's vocabulary.
    pub fn shape(&self) -> Shape {
        let Self { dim, heads, ffn, layers, context, .. } = *self;
        Shape { vocabulary: VOCABULARY, dim, heads, ffn, layers, context }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Tokenizer;

    #[test]
    fn the_vocabulary_is_that_of_the_corpus() {
        assert_eq!(Tokenizer::from_text(&corpus::generate()).vocabulary(), VOCABULARY);
        assert_eq!(ModelArgs::default().shape(), Shape::DEFAULT);
    }
}
