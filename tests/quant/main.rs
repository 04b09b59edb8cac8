//! Quantised weights: blocks, files, imports and products of every format.

#[path = "../support/mod.rs"]
mod support;

mod definition;
mod experts;
mod files;
mod float8;
mod formats;
mod groups;
mod heads;
mod import;
mod magnitudes;
mod products;
mod rows;
mod scales;
mod weights;
