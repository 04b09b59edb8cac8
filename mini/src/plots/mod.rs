//! The plots of the measurements, as PNG files of 1200 x 700 pixels.
//!
//! Nothing is taken from the machine: the font is part of the program, so equal measurements give equal
//! bytes.

mod bars;
mod context;
mod latency;
mod lines;
mod loss;
mod memory;
mod quant;
mod style;

pub use context::context;
pub use latency::latency;
pub use loss::loss;
pub use memory::memory;
pub use quant::quant;
