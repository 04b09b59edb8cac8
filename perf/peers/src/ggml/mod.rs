//! As much of ggml as the comparison needs, behind safe types.
//!
//! A [`Session`] holds tensors and graphs of one node each. A graph is planned once, with its work buffer,
//! and runs on [`Threads`] that stay alive, so that a call does nothing but compute.

mod layout;
mod rotation;
mod session;
mod threads;
mod types;

pub use layout::Layout;
pub use rotation::Rotation;
pub use session::{Graph, Session, Tensor};
pub use threads::Threads;
pub use types::{Type, dequantize, quantize};
