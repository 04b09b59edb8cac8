//! Experts: the feed-forward layers of a mixture, of which each token takes a few.
//!
//! ```text
//! indices --sort--> pairs (token, place), those of one expert together, in the order of tokens
//! x --quantise once--> rows of tokens --gather--> rows of pairs
//! rows of pairs x gate and up of every expert that has pairs    one region: an item is a tile of one expert
//!   -> act(gate) * up, quantised                                one region
//! rows of pairs x down of every expert that has pairs           one region
//!   -> out += weight * row, in the order of the token's list    one region
//! ```
//! A row of pairs meets its expert in the tiles that a row of a product of its own meets, so a token has the
//! bits that it has alone. With one token each expert has one row, and its weights are streamed as those of
//! any product of one row; of experts that nobody chose nothing is read. Prompts go in parts of 512
//! tokens, within which each expert's weights are read once.
//!
//! Rejected: one call of the product for each expert, which quantises a token as often as it has experts and
//! enters its regions for each of them. Rejected: gate and up in one tile, as gated products do; their rows
//! meet where they are quantised anyway, in one pass over what the L2 cache holds, and the clamps of gpt-oss
//! need no variant of the tile. Rejected: adding to the output in the tiles of down, where the order of a
//! token's sum would be that of the experts' numbers.

mod call;
mod part;
mod plan;
mod types;

#[cfg(feature = "capi")]
pub(crate) use call::{experts_bytes_of, multiply_experts_of};
pub use call::{experts_workspace_bytes, multiply_experts};
pub use types::{Expert, ExpertOptions};
