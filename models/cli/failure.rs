//! The one error type: each variant names the file, and the tensor where there is one.

use crate::report::Shown;
use std::fmt;
use std::path::PathBuf;

/// `Result` with this program's [`Failure`].
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command ended.
#[derive(Debug)]
pub enum Failure {
    /// The file to write is the one to read, or one of its parts.
    SameFile {
        /// The file to write.
        output: PathBuf,
        /// The file to read.
        input: PathBuf,
    },
    /// A file was refused.
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: kvern::Error,
    },
    /// A tensor was refused.
    Tensor {
        /// The file that has it.
        path: PathBuf,
        /// Its name.
        name: String,
        /// The reason.
        source: kvern::Error,
    },
    /// The system gave no threads.
    Threads(kvern::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::SameFile { output, input } => {
                write!(f, "{} must be another file than {}", output.display(), input.display())
            }
            // It names the file itself, which may be a later part of a split one.
            Failure::File { source: source @ kvern::Error::Io { .. }, .. } => source.fmt(f),
            Failure::File { path, source } => write!(f, "{}: {source}", path.display()),
            Failure::Tensor { path, name, source } => {
                write!(f, "{}: tensor {}: {source}", path.display(), Shown(name))
            }
            Failure::Threads(source) => source.fmt(f),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::SameFile { .. } => None,
            Failure::File { source, .. } | Failure::Tensor { source, .. } | Failure::Threads(source) => {
                Some(source)
            }
        }
    }
}
