//! The one error type: each variant names the file, tensor or field, and the numbers that disagree.

use std::fmt;
use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a checkpoint cannot be loaded, or a pass cannot run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    Format {
        /// The file.
        path: PathBuf,
        /// The part that is wrong.
        reason: String,
    },
    /// `config.json` lacks a field, or holds a value that no engine of this crate knows.
    Config {
        /// The field, its value where there is one, and what is allowed.
        reason: String,
    },
    /// No family has this `model_type`.
    UnknownModel {
        /// `model_type` of `config.json`.
        model_type: String,
        /// Those that are known.
        known: String,
    },
    /// The checkpoint lacks a tensor.
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than `config.json` asks for.
    TensorShape {
        /// Its name.
        name: String,
        /// The shape in the file.
        got: Vec<usize>,
        /// The shape that the configuration gives.
        want: Vec<usize>,
    },
    /// A tensor's element type is not f32, f16 or bf16.
    TensorType {
        /// Its name.
        name: String,
        /// Its element type.
        got: String,
    },
    /// A token is not in the vocabulary.
    Token {
        /// The token.
        id: u32,
        /// Tokens of the vocabulary.
        vocabulary: usize,
    },
    /// A sequence has no room for the tokens.
    Full {
        /// Tokens of the sequence.
        len: usize,
        /// Tokens that were to be added.
        adding: usize,
        /// Tokens that fit.
        capacity: usize,
    },
    /// A call of the library was refused.
    Kvern(kvern::Error),
}

impl Error {
    /// A field of `config.json` with a value that is not allowed.
    pub fn field(name: &str, got: impl fmt::Display, allowed: &str) -> Error {
        Error::Config { reason: format!("{name} = {got} must be {allowed}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Format { path, reason } => write!(f, "{}: {reason}", path.display()),
            Error::Config { reason } => write!(f, "config.json: {reason}"),
            Error::UnknownModel { model_type, known } => {
                write!(f, "config.json: model_type = {model_type} must be one of {known}")
            }
            Error::MissingTensor { name } => write!(f, "tensor {name} is missing"),
            Error::TensorShape { name, got, want } => {
                write!(f, "tensor {name}: shape = {got:?} must equal {want:?}")
            }
            Error::TensorType { name, got } => write!(f, "tensor {name}: {got} must be F32, F16 or BF16"),
            Error::Token { id, vocabulary } => {
                write!(f, "token {id} must be below vocabulary = {vocabulary}")
            }
            Error::Full { len, adding, capacity } => {
                write!(f, "sequence holds {len} tokens, adding {adding} exceeds capacity = {capacity}")
            }
            Error::Kvern(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Kvern(error) => Some(error),
            _ => None,
        }
    }
}

impl From<kvern::Error> for Error {
    fn from(error: kvern::Error) -> Error {
        Error::Kvern(error)
    }
}
