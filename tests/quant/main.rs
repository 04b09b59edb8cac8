//! Quantised weights: blocks, files, imports and products of every format.

#[path = "../support/mod.rs"]
mod support;

mod definition;
mod experts;
mod files;
mod formats;
mod heads;
mod import;
mod magnitudes;
mod products;
mod rows;
mod scales;
mod weights;
