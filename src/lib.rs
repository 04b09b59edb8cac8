//! kvern is the BLAS for transformers on CPUs: matrix products with f32, f16, bf16, int8 and int4 weights
//! (dequantised in registers), fused attention over a ring-buffer KV cache, and the row-wise operators of a
//! decoder layer. Results have the same bits on every machine: any instruction set, any number of threads,
//! any batch, prefilled or decoded, cached or recomputed, in any floating-point mode of the caller
//! (see [`Context`]).
//!
//! # Conventions
//! Matrices are row-major; strides are in elements and called `row_stride`; `C = A * B` is (m, k) x (k, n).
//! Weights of a layer are W (n output features, k input features), multiplied as `A * W^T`. Heads lie side by
//! side in a row: (tokens, heads * head_dim). Every compute call takes a [`Context`] (which kernels, which
//! threads) and, where it needs scratch, a [`Workspace`] that the caller sized by a query; it allocates
//! nothing, and returns an [`Error`] that names the argument and both numbers instead of panicking.
//!
//! # How data flows
//! ```text
//! your program -> matmul / quant / attention / recurrent / ops  safe API: checks shapes, plans
//!                    -> drivers                      loops, named as in the papers
//!                       -> kernels                   one algorithm each, one shell for each instruction set
//! C program ---> capi (feature `capi`) -> the same safe API
//! BLAS program -> cblas (feature `cblas`) -> matmul
//! ```
//!
//! Weights come from the caller's memory, from files that kvern saved, and from files of other programs: GGUF
//! (module `gguf`, on by default) and safetensors (module `safetensors`, with the feature of that name).
//!
//! # One decoder step
//! ```
//! use kvern::attention::{self, AttentionOptions, KvCache, KvCacheOptions, attend};
//! use kvern::quant::{Compute, PackedWeights, WeightFormat};
//! use kvern::{Context, Epilogue, MatMut, MatRef, Workspace};
//!
//! let ctx = Context::serial();
//! let (dim, heads) = (64, 2);
//! let w: Vec<f32> = (0..3 * dim * dim).map(|i| (i % 13) as f32 / 50.0 - 0.1).collect();
//!
//! // Once: pack the q, k, v projections as 4-bit weights, make a cache, size the workspace.
//! let qkv = PackedWeights::quantize(WeightFormat::Q4_0, MatRef::dense(&w, 3 * dim, dim)?)?;
//! let mut cache = KvCache::new(KvCacheOptions::new(heads, dim / heads, 128))?;
//! let options = AttentionOptions::new(heads);
//! let mut ws = Workspace::new(qkv.workspace_bytes(&ctx, 1, Compute::Int8)?)?;
//! ws.reserve(attention::workspace_bytes(&ctx, &options, &cache, 1)?)?;
//!
//! // Each token: project, append, attend.
//! let x = vec![0.5f32; dim];
//! let (mut y, mut out) = (vec![0.0f32; 3 * dim], vec![0.0f32; dim]);
//! let a = MatRef::dense(&x, 1, dim)?;
//! let c = MatMut::dense(&mut y, 1, 3 * dim)?;
//! qkv.multiply(&ctx, &mut ws, Compute::Int8, a, c, &Epilogue::default())?;
//! let part = |i: usize| MatRef::dense(&y[i * dim..(i + 1) * dim], 1, dim);
//! cache.append(part(1)?, part(2)?)?;
//! attend(&ctx, &mut ws, &options, part(0)?, &cache, MatMut::dense(&mut out, 1, dim)?)?;
//! # Ok::<(), kvern::Error>(())
//! ```
//!
//! # Unsafe code
//! is confined to eight modules: `kernels` (behind entries that check every bound), `view`, `tiles`,
//! `buffer`, the C interfaces `capi` and `cblas`, `parallel`, which has to hand a borrowed job to its threads
//! without allocating, and `fp_mode`, which reads and sets one register.
#![deny(unsafe_code)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("kvern needs atomic operations on 64 bits, which this target lacks");

pub mod attention;
mod blob;
#[allow(unsafe_code)]
pub mod buffer;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;
#[cfg(feature = "cblas")]
#[allow(unsafe_code)]
pub mod cblas;
mod context;
mod dtype;
mod epilogue;
mod error;
mod file;
mod fma;
#[allow(unsafe_code)]
mod fp_mode;
#[cfg(feature = "gguf")]
pub mod gguf;
#[cfg(any(feature = "gguf", feature = "safetensors"))]
mod input;
mod isa;
#[allow(unsafe_code)]
mod kernels;
pub mod matmul;
#[cfg(any(feature = "gguf", feature = "safetensors"))]
mod names;
pub mod ops;
#[allow(unsafe_code)]
pub mod parallel;
pub mod quant;
pub mod recurrent;
#[cfg(feature = "safetensors")]
pub mod safetensors;
#[allow(unsafe_code)]
mod tiles;
#[allow(unsafe_code)]
mod view;

pub use buffer::Workspace;
pub use context::{Context, ContextOptions};
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use isa::{Isa, IsaStatus};
pub use matmul::{Activation, Dtype, Epilogue, PackedB, Precision};
pub use parallel::{ParallelFor, Parallelism};
pub use view::{MatMut, MatRef};

// The sample of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
