//! One file a subcommand. Each has a `run` that writes its files into the
//! output directory and its findings to `log`.

pub mod corpus;
pub mod plot;
pub mod tokenize;
pub mod verify;
