//! A checkpoint: `config.json` and the tensors of safetensors files, by name.

use crate::error::{Error, Result};
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The names that a checkpoint of one file may have.
const SINGLE: [&str; 2] = ["model.safetensors", "weights.safetensors"];

/// The table that names the files of a checkpoint of several.
const INDEX: &str = "model.safetensors.index.json";

/// One safetensors file in memory.
#[derive(Debug)]
struct Shard {
    metadata: Metadata,
    bytes: Vec<u8>,
    /// Where the elements begin.
    start: usize,
}

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    config: Value,
    shards: Vec<Shard>,
}

impl Checkpoint {
    /// Reads the folder `dir`: `config.json`, and `model.safetensors`, `weights.safetensors` or the files
    /// that `model.safetensors.index.json` names.
    ///
    /// **Errors**: `Io` for a file that cannot be read, `Format` for one that is no JSON or no safetensors.
    /// **Panics**: never. **Cost**: reads all files into memory.
    pub fn open(dir: &Path) -> Result<Checkpoint> {
        let config = json(&dir.join("config.json"))?;
        let shards = files(dir)?.iter().map(|path| shard(path)).collect::<Result<_>>()?;
        Ok(Checkpoint { config, shards })
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
        self.find(name).is_some()
    }

    /// The shape of a tensor.
    ///
    /// **Errors**: `MissingTensor`.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        let (info, _) = self.find(name).ok_or_else(|| Error::MissingTensor { name: name.into() })?;
        Ok(&info.shape)
    }

    /// A tensor in f32, the last dimension together; f16 and bf16 are widened exactly.
    ///
    /// **Errors**: `MissingTensor`, `TensorShape`, `TensorType`.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (info, bytes) = self.find(name).ok_or_else(|| Error::MissingTensor { name: name.into() })?;
        if info.shape != shape {
            let (got, want) = (info.shape.clone(), shape.to_vec());
            return Err(Error::TensorShape { name: name.into(), got, want });
        }
        let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match info.dtype {
            Dtype::F32 => {
                Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            Dtype::F16 => Ok(pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect()),
            Dtype::BF16 => Ok(pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect()),
            other => Err(Error::TensorType { name: name.into(), got: format!("{other:?}") }),
        }
    }

    fn find(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        self.shards.iter().find_map(|shard| {
            let info = shard.metadata.info(name)?;
            let (begin, end) = info.data_offsets;
            Some((info, shard.bytes.get(shard.start..)?.get(begin..end)?))
        })
    }
}

/// A file of JSON.
fn json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&read(path)?).map_err(|error| format_error(path, error))
}

/// The safetensors files of a folder.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join(INDEX).exists() {
        let index = json(&dir.join(INDEX))?;
        let map = index.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| format_error(&dir.join(INDEX), "weight_map is missing"))?;
        let names: BTreeSet<_> = map.values().filter_map(Value::as_str).collect();
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let found = SINGLE.iter().map(|name| dir.join(name)).find(|path| path.exists());
    Ok(vec![found.unwrap_or_else(|| dir.join(SINGLE[0]))])
}

fn shard(path: &Path) -> Result<Shard> {
    let bytes = read(path)?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| format_error(path, error))?;
    // The length of the header is stored before it, in 8 bytes.
    let start = header.saturating_add(8);
    Ok(Shard { metadata, bytes, start })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::Io { path: path.into(), source })
}

fn format_error(path: &Path, reason: impl ToString) -> Error {
    Error::Format { path: path.into(), reason: reason.to_string() }
}
