//! Tensors of a file as packed weights.

use super::file::SafeTensors;
use crate::blob::wrong;
use crate::context::Context;
use crate::error::Result;
use crate::names::Shown;
use crate::quant::PackedWeights;

impl PackedWeights {
    /// [`PackedWeights::from_safetensors_on`] on the calling thread.
    pub fn from_safetensors(file: &SafeTensors, tensor: &str) -> Result<PackedWeights> {
        PackedWeights::from_safetensors_on(&Context::serial(), file, tensor)
    }

    /// Packs a tensor of a safetensors file in its own type. [`PackedWeights::quantize_on`] makes weights of
    /// fewer bits from its [`to_f32`](crate::safetensors::Tensor::to_f32).
    ///
    /// **Shapes**: (n, k). **Errors**: `Option` for a tensor that is not there; `Blob` for one that is no
    /// matrix, and for another type than F32, F16 and BF16; as [`PackedWeights::from_blocks_on`]. **Cost**:
    /// one pass over the elements; copies them first where they are not aligned.
    pub fn from_safetensors_on(ctx: &Context, file: &SafeTensors, tensor: &str) -> Result<PackedWeights> {
        let tensor = file.tensor(tensor)?;
        let format = tensor.format()?;
        match *tensor.shape() {
            [n, k] => PackedWeights::from_blocks_on(ctx, format, n, k, tensor.bytes()),
            ref other => wrong(
                "dimensions of a tensor",
                format_args!("{} of {}", other.len(), Shown(tensor.name())),
                2,
            ),
        }
    }
}
