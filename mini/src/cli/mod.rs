//! Command-line arguments: their names, defaults and limits.
//!
//! Limits of one option are checked while parsing; those that relate several options, by the `check` of the
//! options (see [`ModelArgs::check`]). Either way the message names the option, the value and the limit.

mod generate;
mod model;
mod pack;
mod parsers;
mod peak;
mod program;
mod train;

pub use generate::GenerateArgs;
pub use model::{ModelArgs, VOCABULARY};
pub use pack::PackArgs;
pub use peak::PeakArgs;
pub use program::{Cli, Command, GlobalArgs};
pub use train::{RunArgs, TextArg, TokenizerArg, TrainArgs};
