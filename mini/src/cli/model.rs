//! Size of the model: options, limits, parameter count.

use anyhow::{Result, ensure};
use clap::Args;

use super::{Quant, range};
use crate::corpus;
use crate::model::Shape;
use crate::tokenizer::SPECIAL;

/// Head sizes are multiples of this many values.
pub const HEAD_SIZE_STEP: usize = 8;

/// Limit of the parameters and of the cached values of a model: 4 GiB in f32.
pub const MAX_VALUES: u64 = 1 << 30;

/// Tokens of the corpus and the special ones.
pub const VOCABULARY: usize = corpus::DISTINCT_WORDS as usize + SPECIAL.len();

/// Size and seed of the model.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Width of the model
    #[arg(long, value_name = "N", default_value_t = 128)]
    #[arg(value_parser = range(1..=16_384), allow_negative_numbers = true)]
    pub dim: usize,
    /// Attention heads; they divide the width evenly
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = range(1..=256), allow_negative_numbers = true)]
    pub heads: usize,
    /// Width of the feed-forward layer
    #[arg(long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = range(1..=65_536), allow_negative_numbers = true)]
    pub ffn: usize,
    /// Transformer blocks
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = range(1..=256), allow_negative_numbers = true)]
    pub layers: usize,
    /// Longest context in tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = range(1..=131_072), allow_negative_numbers = true)]
    pub context: usize,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 42, allow_negative_numbers = true)]
    pub seed: u64,
}

impl Default for ModelArgs {
    fn default() -> Self {
        Self { dim: 128, heads: 4, ffn: 512, layers: 1, context: 512, seed: 42 }
    }
}

impl ModelArgs {
    /// Checks the limits that relate several options.
    ///
    /// # Errors
    /// When the heads do not divide the width, the head size is no multiple
    /// of [`HEAD_SIZE_STEP`], or the parameters or the KV cache are more than
    /// [`MAX_VALUES`] values.
    pub fn check(&self) -> Result<()> {
        let Self { dim, heads, .. } = *self;
        ensure!(heads > 0 && dim.is_multiple_of(heads), "--heads {heads} does not divide --dim {dim}");
        let size = dim / heads;
        ensure!(
            size > 0 && size.is_multiple_of(HEAD_SIZE_STEP),
            "--dim {dim} over --heads {heads} gives a head size of {size}, \
             which is no multiple of {HEAD_SIZE_STEP}"
        );
        let parameters = self.parameters(VOCABULARY);
        ensure!(
            parameters <= MAX_VALUES,
            "--dim {dim}, --ffn {} and --layers {} give {parameters} parameters; \
             the limit is {MAX_VALUES}",
            self.ffn,
            self.layers
        );
        let cached = 2 * self.layers as u64 * self.context as u64 * dim as u64;
        ensure!(
            cached <= MAX_VALUES,
            "--dim {dim}, --layers {} and --context {} give a KV cache of {cached} values; \
             the limit is {MAX_VALUES}",
            self.layers,
            self.context
        );
        Ok(())
    }

    /// Checks that the inputs of every product fill whole blocks of `quant`.
    ///
    /// # Errors
    /// When one does not; the message names the option, its value and the block.
    pub fn check_blocks(&self, quant: Quant) -> Result<()> {
        let block = kvern::quant::WeightFormat::Q8_0.block_len();
        for (option, inputs) in [("--dim", self.dim), ("--ffn", self.ffn)] {
            ensure!(
                quant == Quant::Fp32 || inputs.is_multiple_of(block),
                "{option} {inputs} is no multiple of {block}, the block of {}",
                quant.config()
            );
        }
        Ok(())
    }

    /// The sizes as the model takes them, with the corpus's vocabulary.
    pub fn shape(&self) -> Shape {
        let Self { dim, heads, ffn, layers, context, .. } = *self;
        Shape { vocabulary: VOCABULARY, dim, heads, ffn, layers, context }
    }

    /// Values in one attention head.
    pub fn head_size(&self) -> usize {
        self.dim / self.heads
    }

    /// Parameters of the model: embedding and untied output head with bias;
    /// in each block four attention projections and two feed-forward ones,
    /// all with bias, and two LayerNorms.
    pub fn parameters(&self, vocabulary: usize) -> u64 {
        let [dim, ffn, layers, vocabulary] = [self.dim, self.ffn, self.layers, vocabulary].map(|n| n as u64);
        let linear = |inputs: u64, outputs: u64| inputs * outputs + outputs;
        let attention = 4 * linear(dim, dim);
        let feed_forward = linear(dim, ffn) + linear(ffn, dim);
        let norms = 2 * 2 * dim;
        vocabulary * dim + layers * (attention + feed_forward + norms) + linear(dim, vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn parameters_of_the_default_model() {
        let model = ModelArgs::default();
        assert_eq!(model.parameters(1004), 456_300);
        assert_eq!(model.head_size(), 32);
    }

    #[test]
    fn the_vocabulary_is_that_of_the_corpus() {
        assert_eq!(Tokenizer::from_text(&corpus::generate()).vocabulary(), VOCABULARY);
    }

    #[test]
    fn only_quantised_formats_need_whole_blocks() {
        let model = ModelArgs { dim: 40, ffn: 100, ..ModelArgs::default() };
        assert!(model.check_blocks(Quant::Fp32).is_ok());
        let error = model.check_blocks(Quant::Int8).unwrap_err().to_string();
        assert_eq!(error, "--dim 40 is no multiple of 32, the block of Int8");
        let model = ModelArgs { dim: 128, ..model };
        let error = model.check_blocks(Quant::Int4).unwrap_err().to_string();
        assert_eq!(error, "--ffn 100 is no multiple of 32, the block of Int4");
        assert!(ModelArgs::default().check_blocks(Quant::Int4).is_ok());
    }

    #[test]
    fn zeros_set_in_code_are_refused_too() {
        for model in
            [ModelArgs { heads: 0, ..ModelArgs::default() }, ModelArgs { dim: 0, ..ModelArgs::default() }]
        {
            assert!(model.check().is_err());
        }
    }
}
