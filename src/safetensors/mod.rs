//! Safetensors files, read in place: one, or all that a `model.safetensors.index.json` names.
//!
//! ```text
//! file(s) --open, load--> SafeTensors --tensor--> Tensor --bytes--> elements in place
//!                                                    \--to_f32--> f32
//!                             \--PackedWeights::from_safetensors--> packed weights
//! ```
//! The package `safetensors` parses the headers; that types, shapes and offsets hold together and end inside
//! of the file is checked before anything is handed out. What may be hostile is the file;
//! [`Unchanged`](crate::buffer::Unchanged) is the promise that it stays as it is while it is mapped.
//!
//! The parser allocates what the header describes (at most 100 MB of text), and ends the process where there
//! is no memory for it. So the C ABI, none of whose calls ends the process, has no functions of these files.
//!
//! **Source**: <https://huggingface.co/docs/safetensors>.
//!
//! ```
//! use kvern::buffer::Unchanged;
//! use kvern::quant::{PackedWeights, WeightFormat};
//! use kvern::safetensors::SafeTensors;
//! use kvern::MatRef;
//! use std::path::Path;
//!
//! fn four_bits(folder: &Path, unchanged: Unchanged) -> kvern::Result<PackedWeights> {
//!     let file = SafeTensors::open(&folder.join("model.safetensors.index.json"), unchanged)?;
//!     let tensor = file.tensor("model.layers.0.self_attn.q_proj.weight")?;
//!     let &[n, k] = tensor.shape() else { return PackedWeights::from_safetensors(&file, tensor.name()) };
//!     PackedWeights::quantize(WeightFormat::Q4_0, MatRef::dense(&tensor.to_f32()?, n, k)?)
//! }
//! ```

mod element_type;
mod file;
mod header;
mod index;
mod tensor;
mod weights;

pub use element_type::ElementType;
pub use file::SafeTensors;
pub use tensor::Tensor;
