//! Inference: generation, sampling, beam search, and the evaluation of weight formats.

mod beam;
mod evaluate;
mod generate;
mod sampling;

pub use beam::{Beam, Search, search};
pub use evaluate::{Quality, evaluate};
pub use generate::{Generation, LogitsHash, generate, generate_hashed, generate_with};
pub use sampling::Sampler;
