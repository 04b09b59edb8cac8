//! The network: a pre-norm decoder without a final norm.
//!
//! ```text
//! x = embedding[token]
//! x = x + Wo attention(rope(Wq ln1(x)), rope(Wk ln1(x)), Wv ln1(x))   in each block
//! x = x + W2 relu(W1 ln2(x))                                          in each block
//! logits = Whead x
//! ```
//! Every product has a bias; positions are rotated in halves of a head with base 10000. [`Weights`] are the
//! f32 source, [`Model`] is what the kernels read, and a [`Session`] runs it.

mod init;
mod linear;
mod network;
mod quant;
mod session;
mod shape;
mod weights;

pub use init::InitialWeights;
pub use linear::{Embedding, Linear};
pub use network::Model;
pub use quant::Quant;
pub use session::Session;
pub use shape::{HEAD_SIZE_STEP, MAX_VALUES, NORM_EPSILON, ROPE_BASE, Shape};
pub use weights::{BlockWeights, LinearWeights, NormWeights, Weights};
