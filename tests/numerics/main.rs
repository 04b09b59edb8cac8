//! Products and row operations: the same bits at every tier, bounded by f64; goldens; guard pages.

#[path = "../support/pages.rs"]
mod pages;
#[path = "../support/mod.rs"]
mod support;

mod elementwise;
mod fast_bounds;
mod gated;
mod golden;
mod guard_pages;
mod matmul;
mod no_c_library;
mod norm_options;
mod norms;
mod ops;
mod packed_files;
mod patches;
mod recurrent;
mod rope;
mod rope_axes;
mod rope_models;
mod router;
mod rust_examples;
mod stored;
mod tokens;
mod top_k;
mod zero_dimensions;
