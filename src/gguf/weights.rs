//! Tensors of a file as packed weights.

use super::file::Gguf;
use crate::blob::wrong;
use crate::context::Context;
use crate::error::Result;
use crate::quant::PackedWeights;

impl PackedWeights {
    /// [`PackedWeights::from_gguf_on`] on the calling thread.
    pub fn from_gguf(file: &Gguf, tensor: &str) -> Result<PackedWeights> {
        PackedWeights::from_gguf_on(&Context::serial(), file, tensor)
    }

    /// Packs a tensor of a GGUF file.
    ///
    /// **Shapes**: `[k, n]`, or `[k]` for n = 1. **Errors**: `Option` for a tensor that is not there; `Blob`
    /// for one of several matrices and for a type that kvern does not compute with; as
    /// [`PackedWeights::from_blocks_on`]. **Cost**: one pass over the data of the tensor.
    pub fn from_gguf_on(ctx: &Context, file: &Gguf, tensor: &str) -> Result<PackedWeights> {
        let found = file.tensor(tensor)?;
        match found.experts() {
            1 => PackedWeights::from_gguf_expert_on(ctx, file, tensor, 0),
            experts => wrong("number of matrices", format_args!("{experts} of {}", found.shown()), 1),
        }
    }

    /// [`PackedWeights::from_gguf_expert_on`] on the calling thread.
    pub fn from_gguf_expert(file: &Gguf, tensor: &str, expert: usize) -> Result<PackedWeights> {
        PackedWeights::from_gguf_expert_on(&Context::serial(), file, tensor, expert)
    }

    /// Packs one of the matrices of a tensor, such as those of a mixture of experts.
    ///
    /// **Shapes**: `[k, n, experts]`. **Errors**: as [`PackedWeights::from_gguf_on`], but that several
    /// matrices are none; `Shape` for an expert that is not there. **Cost**: one pass over its data.
    pub fn from_gguf_expert_on(
        ctx: &Context,
        file: &Gguf,
        tensor: &str,
        expert: usize,
    ) -> Result<PackedWeights> {
        let (format, n, k, blocks) = file.tensor(tensor)?.matrix(expert)?;
        PackedWeights::from_blocks_on(ctx, format, n, k, blocks)
    }
}
