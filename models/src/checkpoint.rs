//! A checkpoint: `config.json` and the tensors of safetensors files, by name.

use crate::error::{Error, Result};
use kvern::safetensors::{SafeTensors, Tensor};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The names that a checkpoint of one file may have.
const SINGLE: [&str; 2] = ["model.safetensors", "weights.safetensors"];

/// The table that names the files of a checkpoint of several.
const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    config: Value,
    tensors: SafeTensors,
}

impl Checkpoint {
    /// Reads the folder `dir`: `config.json`, and `model.safetensors`, `weights.safetensors` or the files
    /// that `model.safetensors.index.json` names.
    ///
    /// **Errors**: `Io` for a file that cannot be read; `Format` for one that is no JSON or no safetensors,
    /// and for an index that does not fit its files; `Kvern` where there is no memory.
    /// **Panics**: never. **Cost**: reads all files into memory.
    pub fn open(dir: &Path) -> Result<Checkpoint> {
        let config = json(&dir.join("config.json"))?;
        let path = weights(dir);
        // Read, not mapped: a mapping takes the promise that nobody writes to the folder.
        let tensors = SafeTensors::load(&path).map_err(|error| refused(&path, error))?;
        Ok(Checkpoint { config, tensors })
    }

    /// All of `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// `config.json` as the fields that a family reads.
    ///
    /// **Errors**: `Config`, which names the field that is missing or of another type.
    pub fn config_as<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.config).map_err(|error| Error::Config { reason: error.to_string() })
    }

    /// `model_type` of `config.json`.
    ///
    /// **Errors**: `Config` where there is none.
    pub fn model_type(&self) -> Result<&str> {
        let found = self.config.get("model_type").and_then(Value::as_str);
        found.ok_or_else(|| Error::Config { reason: "missing field `model_type`".into() })
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.find(name).is_some()
    }

    /// The shape of a tensor.
    ///
    /// **Errors**: `MissingTensor`.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(self.find(name)?.shape())
    }

    /// A tensor in f32, the last dimension together; f16 and bf16 are widened exactly.
    ///
    /// **Errors**: `MissingTensor`, `TensorShape`, `TensorType`; `Kvern` where there is no memory.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.find(name)?;
        if tensor.shape() != shape {
            let (got, want) = (tensor.shape().to_vec(), shape.to_vec());
            return Err(Error::TensorShape { name: name.into(), got, want });
        }
        if tensor.kind().format().is_none() {
            return Err(Error::TensorType { name: name.into(), got: tensor.kind().to_string() });
        }
        Ok(tensor.to_f32()?)
    }

    fn find(&self, name: &str) -> Result<Tensor<'_>> {
        self.tensors.find(name).ok_or_else(|| Error::MissingTensor { name: name.into() })
    }
}

/// A file of JSON.
fn json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| format_error(path, error))
}

/// The safetensors file of a folder, or the index of its several.
fn weights(dir: &Path) -> PathBuf {
    let names = [INDEX].into_iter().chain(SINGLE);
    let found = names.map(|name| dir.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| dir.join(SINGLE[0]))
}

/// Why the tensors of `path` were refused. An error of a file names it, which may be one of the index.
fn refused(path: &Path, error: kvern::Error) -> Error {
    match error {
        kvern::Error::Io { path, kind, .. } => Error::Io { path: path.into(), source: kind.into() },
        error @ kvern::Error::Resource { .. } => Error::Kvern(error),
        error => format_error(path, error),
    }
}

fn format_error(path: &Path, reason: impl ToString) -> Error {
    Error::Format { path: path.into(), reason: reason.to_string() }
}
