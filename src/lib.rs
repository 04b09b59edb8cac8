//! kvern
#![deny(unsafe_code)]

#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;

pub mod attention;
#[allow(unsafe_code)]
pub mod buffer;
mod context;
mod error;
mod isa;
#[allow(unsafe_code)]
mod kernels;
pub mod matmul;
pub mod ops;
#[allow(unsafe_code)]
pub mod parallel;
pub mod quant;
#[allow(unsafe_code)]
mod view;

pub use buffer::Workspace;
pub use context::{Context, ContextOptions};
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use isa::Isa;
pub use matmul::{Activation, Dtype, Epilogue, PackedB, Precision};
pub use parallel::{ParallelFor, Parallelism};
pub use view::{MatMut, MatRef};
