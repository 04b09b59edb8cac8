//! Measuring: time, memory, statistics of samples, and progress bars.

mod interleaved;
pub mod peak;
pub mod progress;
pub mod stats;

pub use interleaved::{Effort, interleaved};
