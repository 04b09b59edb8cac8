//! `kvern-models`: work on model files, written on kvern's public API only.
//!
//! ```text
//! main.rs        which command, and the exit code
//!   arguments    the words of the command line
//!   quantize     the command: opens a file, plans, writes
//!     plan       each tensor: kept, or in which format
//!     file_type  the numbers of formats in the metadata
//!     convert    blocks of one format as blocks of another, on all CPUs
//!   report       a line for each tensor, on the standard output
//!   failure      the one error type
//! ```
//! Exit codes: 0 where all was done, 1 for an error, 2 for a command line that makes no sense.
#![forbid(unsafe_code)]

mod arguments;
mod convert;
mod failure;
mod file_type;
mod plan;
mod quantize;
mod report;

use arguments::Command;
use report::say;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            say(&mut io::stdout(), format_args!("{}", arguments::usage()));
            ExitCode::SUCCESS
        }
        Ok(Command::Quantize(job)) => match quantize::run(&job) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                say(&mut io::stderr(), format_args!("kvern-models: {failure}"));
                ExitCode::from(1)
            }
        },
        Err(reason) => {
            say(&mut io::stderr(), format_args!("kvern-models: {reason}\n\n{}", arguments::usage()));
            ExitCode::from(2)
        }
    }
}
