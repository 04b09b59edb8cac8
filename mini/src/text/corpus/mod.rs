//! The corpus of random words, and the file that holds it.

mod files;
mod generator;
mod mt19937;

pub use files::{Verification, read_sha256, verify, write, write_sha256};
pub use generator::{DISTINCT_WORDS, LENGTH, SHA256, WORDS, first_words, generate};
pub use mt19937::PythonRandom;
