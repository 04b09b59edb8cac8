//! The row-wise operators of decoders and encoders: norms, activations, rotary embedding, softmax, embedding
//! rows, pooling, sums and convolution along tokens, the greatest elements, the router of experts.
//!
//! Each operator works on the rows of a matrix view, in parallel over rows where there are enough of them,
//! and allocates nothing. A row has the same bits alone and among others, at every tier and on any number of
//! threads.

mod elementwise;
mod embedding;
mod norm;
mod rope;
mod rope_axes;
mod rope_table;
mod router;
mod rows;
mod select;
mod softmax;
mod time_step;
mod tokens;

pub use elementwise::{activate, activate_mul, add, add_scaled, mul, scale, silu_mul, softcap, swiglu_oai};
pub use embedding::{embedding, embedding_quantized};
pub use norm::{NormKind, NormOptions, layer_norm, norm, rms_norm};
pub(crate) use rope::check as check_rope;
pub use rope::{RopePairs, rope, rope_at};
pub use rope_axes::{rope_axes, rope_sections};
pub use rope_table::{RopeScaling, RopeTable};
pub use router::{GroupScore, RouterOptions, RouterScore, route};
pub use select::top_k;
pub(crate) use softmax::{FINITE, check_softcap};
pub use softmax::{SoftmaxOptions, argmax, softmax, softmax_with};
pub use time_step::{TimeStepOptions, time_step};
pub use tokens::{Along, ConvOptions, causal_conv, cumulative_sum, mean_pool};

use rows::same_shape;
pub(crate) use rows::{executor, for_each_row};
