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
//! ```no_run
//! use kvern::buffer::Unchanged;
//! use kvern::quant::{PackedWeights, WeightFormat};
//! use kvern::safetensors::SafeTensors;
//! use std::path::Path;
//!
//! // SAFETY: models of this folder are replaced, and never written to.
//! let unchanged = unsafe { Unchanged::promised() };
//! let file = SafeTensors::open(Path::new("model.safetensors.index.json"), unchanged)?;
//! let norm = file.tensor("model.norm.weight")?.to_f32()?;
//! let w = PackedWeights::from_safetensors(&file, "model.layers.0.self_attn.q_proj.weight")?;
//! assert_eq!(w.k(), norm.len());
//! # Ok::<(), kvern::Error>(())
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
