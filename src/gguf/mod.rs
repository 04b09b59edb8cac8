//! GGUF files: read in place, and written.
//!
//! ```text
//! file(s) --open, load--> Gguf --get, u64, str ..--> metadata
//!                           \--tensor--> Tensor --bytes--> blocks in place
//!                                           \--to_f32--> f32
//!                           \--PackedWeights::from_gguf--> packed weights
//! metadata, shapes, data --GgufWriter--> file
//! ```
//! A [`Gguf`] is one file, or all parts of a split one. Opening it reads the header and touches no data of a
//! tensor. Everything that a header says is checked while it is opened: counts against the bytes that there
//! are before anything of their size is allocated, lengths and offsets for overflow and against the end of
//! the file, texts for UTF-8, shapes against the block of their format. An error says what was found and what
//! must hold. What may be hostile is the file; [`Unchanged`](crate::buffer::Unchanged) is the promise that it
//! stays as it is while it is mapped.
//!
//! Versions 2 and 3 are read, little-endian; version 3 is written.
//!
//! **Source**: the GGUF specification, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! ```
//! use kvern::gguf::{Gguf, GgufWriter, Value};
//! use kvern::quant::{PackedWeights, WeightFormat, quantize};
//!
//! # let path = std::env::temp_dir().join(format!("kvern-doc-{}.gguf", std::process::id()));
//! let (n, k) = (4, 64);
//! let mut blocks = vec![0; WeightFormat::Q8_0.bytes(n, k)?];
//! quantize(WeightFormat::Q8_0, &vec![0.5; n * k], &mut blocks)?;
//!
//! let mut writer = GgufWriter::new();
//! writer.set("general.architecture", Value::Str("llama"))?;
//! writer.set("llama.block_count", Value::U32(1))?;
//! writer.tensor("blk.0.attn_q.weight", WeightFormat::Q8_0, &[k, n])?;
//! writer.save(&path, |_, data| data.write(&blocks))?;
//!
//! let file = Gguf::load(&path)?;
//! assert_eq!((file.str("general.architecture")?, file.u64("llama.block_count")?), ("llama", 1));
//! let w = PackedWeights::from_gguf(&file, "blk.0.attn_q.weight")?;
//! assert_eq!((w.n(), w.k()), (n, k));
//! # std::fs::remove_file(&path).unwrap();
//! # Ok::<(), kvern::Error>(())
//! ```

mod cursor;
mod file;
mod header;
mod limits;
mod metadata;
mod split;
mod tensor;
mod tensor_type;
mod value;
mod weights;
mod writer;

pub use file::Gguf;
pub use tensor::Tensor;
pub use tensor_type::TensorType;
pub use value::{Array, Elements, Value, ValueType};
pub use writer::{Element, GgufWriter, TensorData};
