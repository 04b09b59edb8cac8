//! Checkpoints: weights, moments, vocabulary and recipe in one file of the format safetensors
//! (<https://github.com/huggingface/safetensors>).
//!
//! The tensors are those of [`Weights::names`], their moments under `adam.m.` and `adam.v.`, and the held-out
//! ids as `held_out`. The metadata has one entry, a JSON object: the format writes several in the order of a
//! hash map, which differs from run to run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use super::adam::Adam;
use super::recipe::Recipe;
use crate::model::{Shape, Weights};
use crate::text::Vocabulary;

/// Key of the metadata's only entry.
const KEY: &str = "mini";

/// The metadata of a checkpoint: everything but the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the text.
    pub text: String,
    /// SHA-256 over the ids that are trained on.
    pub text_sha256: String,
    /// Entropy of the text's source in nats a token, where it is known.
    pub entropy: Option<f64>,
    /// Hyperparameters of the training.
    pub recipe: Recipe,
    /// Updates so far.
    pub step: u64,
    /// Width of the model.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Longest context in tokens.
    pub context: usize,
    /// The tokenizer.
    pub tokenizer: Vocabulary,
}

impl Header {
    /// The sizes.
    pub fn shape(&self) -> Shape {
        let Self { dim, heads, ffn, layers, context, .. } = *self;
        Shape { vocabulary: self.tokenizer.len(), dim, heads, ffn, layers, context }
    }
}

/// The state of a training between two steps.
pub struct Checkpoint {
    /// The metadata of a checkpoint: everything but the tensors.
    pub header: Header,
    /// The weights.
    pub weights: Weights,
    /// Their moments.
    pub adam: Adam,
    /// Ids to evaluate on.
    pub held_out: Vec<u32>,
}

/// A tensor on its way into a file.
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Rows and columns of the tensor `name` with `len` values.
fn sides(header: &Header, name: &str, len: usize) -> Vec<usize> {
    let columns = match name {
        name if name.ends_with(".down.weight") => header.ffn,
        name if name.ends_with(".weight") || name.ends_with("embedding") => header.dim,
        _ => return vec![len],
    };
    vec![len / columns.max(1), columns]
}

impl Checkpoint {
    /// Writes the file: the same bytes for the same training. A file that is there is replaced whole or not
    /// at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        let parts = [("", &self.weights), ("adam.m.", &self.adam.first), ("adam.v.", &self.adam.second)];
        for (prefix, weights) in parts {
            for (name, values) in weights.names().into_iter().zip(weights.tensors()) {
                let shape = sides(&self.header, &name, values.len());
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                tensors.push((format!("{prefix}{name}"), Tensor { dtype: Dtype::F32, shape, bytes }));
            }
        }
        let bytes = self.held_out.iter().flat_map(|id| id.to_le_bytes()).collect();
        let held_out = Tensor { dtype: Dtype::U32, shape: vec![self.held_out.len()], bytes };
        tensors.push(("held_out".to_owned(), held_out));
        let write = || -> Result<()> {
            let header = HashMap::from([(KEY.to_owned(), serde_json::to_string(&self.header)?)]);
            let bytes = safetensors::serialize(tensors, Some(header))?;
            let unfinished = path.with_extension("safetensors.part");
            fs::write(&unfinished, bytes)?;
            Ok(fs::rename(&unfinished, path)?)
        };
        write().with_context(|| format!("cannot write the checkpoint {}", path.display()))
    }

    /// Reads a file that [`Checkpoint::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is no checkpoint of this program, or its parts do not fit together; the
    /// message names the file and the part.
    pub fn load(path: &Path) -> Result<Self> {
        let cannot_read = || format!("cannot read the checkpoint {}", path.display());
        let bytes = fs::read(path).with_context(cannot_read)?;
        Self::parse(&bytes).with_context(cannot_read)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let text = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY));
        let header: Header = serde_json::from_str(text.context("no metadata of this program")?)
            .context("the metadata is not of this program")?;
        // The checks below multiply sizes. Sizes within the limits of the options cannot overflow.
        for size in [header.dim, header.heads, header.ffn, header.layers, header.context] {
            ensure!((1..=1 << 17).contains(&size), "a size of {size} is not in 1..=131072");
        }
        let shape = header.shape();
        shape.check()?;
        let tensors = SafeTensors::deserialize(bytes)?;
        let read = |prefix: &str| -> Result<Weights> {
            let mut weights = Weights::zeros(&shape);
            let names = weights.names();
            for (name, values) in names.iter().zip(weights.tensors_mut()) {
                fill(&tensors, &format!("{prefix}{name}"), &sides(&header, name, values.len()), values)?;
            }
            Ok(weights)
        };
        let held_out = tensors.tensor("held_out").context("held_out")?;
        ensure!(held_out.dtype() == Dtype::U32, "held_out is no tensor of u32");
        let (ids, _) = held_out.data().as_chunks::<4>();
        let held_out: Vec<u32> = ids.iter().map(|id| u32::from_le_bytes(*id)).collect();
        ensure!(
            held_out.iter().all(|&id| (id as usize) < shape.vocabulary),
            "held_out has ids beyond the vocabulary"
        );
        let adam = Adam { first: read("adam.m.")?, second: read("adam.v.")?, step: header.step };
        Ok(Self { weights: read("")?, adam, held_out, header })
    }
}

/// Fills `values` with the f32 tensor `name`.
fn fill(tensors: &SafeTensors<'_>, name: &str, shape: &[usize], values: &mut [f32]) -> Result<()> {
    let tensor = tensors.tensor(name).with_context(|| name.to_owned())?;
    ensure!(tensor.dtype() == Dtype::F32, "{name} is no tensor of f32");
    ensure!(tensor.shape() == shape, "{name} has the shape {:?}, not {shape:?}", tensor.shape());
    let (chunks, _) = tensor.data().as_chunks::<4>();
    values.iter_mut().zip(chunks).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
    Ok(())
}
