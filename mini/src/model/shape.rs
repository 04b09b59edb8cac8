//! The sizes of a model, their limits, and the number of parameters that they give.

use anyhow::{Result, ensure};

use super::quant::Quant;

/// Base of the angles of RoPE.
pub const ROPE_BASE: f64 = 10_000.0;

/// Added to the variance by every LayerNorm.
pub const NORM_EPSILON: f32 = 1e-5;

/// Head sizes are multiples of this many values.
pub const HEAD_SIZE_STEP: usize = 8;

/// Limit of the parameters and of the cached values of a model: 4 GiB in f32.
pub const MAX_VALUES: u64 = 1 << 30;

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Different tokens.
    pub vocabulary: usize,
    /// Width of the model.
    pub dim: usize,
    /// Attention heads, each with keys and values of its own.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Longest context in tokens.
    pub context: usize,
}

impl Shape {
    /// The default sizes, with the vocabulary of the corpus.
    pub const DEFAULT: Self =
        Self { vocabulary: 1004, dim: 128, heads: 4, ffn: 512, layers: 1, context: 512 };

    /// Checks the limits that relate several options.
    ///
    /// # Errors
    /// When the heads do not divide the width, the head size is no multiple of [`HEAD_SIZE_STEP`], or the
    /// parameters or the KV cache are more than [`MAX_VALUES`] values.
    pub fn check(&self) -> Result<()> {
        let Self { dim, heads, .. } = *self;
        ensure!(heads > 0 && dim.is_multiple_of(heads), "--heads {heads} does not divide --dim {dim}");
        let size = dim / heads;
        ensure!(
            size > 0 && size.is_multiple_of(HEAD_SIZE_STEP),
            "--dim {dim} over --heads {heads} gives a head size of {size}, \
             which is no multiple of {HEAD_SIZE_STEP}"
        );
        let parameters = self.parameters();
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
        let Some(format) = quant.format() else { return Ok(()) };
        let block = format.block_len();
        for (option, inputs) in [("--dim", self.dim), ("--ffn", self.ffn)] {
            ensure!(
                inputs.is_multiple_of(block),
                "{option} {inputs} is no multiple of {block}, the block of {}",
                quant.config()
            );
        }
        Ok(())
    }

    /// Values in one attention head.
    pub fn head_size(&self) -> usize {
        self.dim / self.heads
    }

    /// Parameters of the model: embedding and untied output head with bias; in each block four attention
    /// projections and two feed-forward ones, all with bias, and two LayerNorms.
    pub fn parameters(&self) -> u64 {
        let [dim, ffn, layers, vocabulary] =
            [self.dim, self.ffn, self.layers, self.vocabulary].map(|n| n as u64);
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

    #[test]
    fn parameters_of_the_default_model() {
        let model = Shape::DEFAULT;
        assert_eq!(model.parameters(), 456_300);
        assert_eq!(model.head_size(), 32);
    }

    #[test]
    fn only_quantized_formats_need_whole_blocks() {
        let model = Shape { dim: 40, ffn: 100, ..Shape::DEFAULT };
        assert!(model.check_blocks(Quant::Fp32).is_ok());
        let error = model.check_blocks(Quant::Int8).unwrap_err().to_string();
        assert_eq!(error, "--dim 40 is no multiple of 32, the block of Int8");
        let model = Shape { dim: 128, ..model };
        let error = model.check_blocks(Quant::Int4).unwrap_err().to_string();
        assert_eq!(error, "--ffn 100 is no multiple of 32, the block of Int4");
        assert!(Shape::DEFAULT.check_blocks(Quant::Int4).is_ok());
    }

    #[test]
    fn zeros_set_in_code_are_refused_too() {
        for model in [Shape { heads: 0, ..Shape::DEFAULT }, Shape { dim: 0, ..Shape::DEFAULT }] {
            assert!(model.check().is_err());
        }
    }
}
