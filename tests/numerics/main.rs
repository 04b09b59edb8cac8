//! Products and row operations: the same bits at every tier, bounded by f64; goldens; guard pages.

#[path = "../support/mod.rs"]
mod support;

mod gated;
mod golden;
#[cfg(unix)]
mod guard_pages;
mod matmul;
mod norms;
mod ops;
mod packed_files;
mod rope;
