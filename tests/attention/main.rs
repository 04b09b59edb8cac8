//! Attention and the key-value cache: against f64, at every tier, over every cache, split and whole.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod cache_attention;
mod cache_fast;
mod cache_files;
mod call;
mod cases;
mod finite_masks;
mod fused;
mod latent;
mod options;
mod prepared_append;
mod ragged;
mod restores;
mod rings;
mod sequences;
mod stack;
