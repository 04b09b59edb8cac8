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
//! **Source**: the GGUF specification (`docs/gguf.md` of the repository `ggml-org/ggml`).
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

/// The first bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";

/// The versions that are read; the last one is written. Version 1 has counts and lengths of 32 bits.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;

/// The most dimensions of a tensor.
const MAX_DIMS: usize = 4;

/// The most bytes of a key, and of a tensor's name. The specification allows names of 64 bytes; tools wrote
/// longer ones, which are read.
const MAX_NAME: usize = 65535;

/// The key of the alignment of data.
const ALIGNMENT: &str = "general.alignment";

/// The alignment of a file that names none.
const DEFAULT_ALIGNMENT: usize = 32;

/// Checks an alignment: a power of two and a multiple of 8.
fn alignment(got: u64) -> crate::Result<usize> {
    match usize::try_from(got) {
        Ok(alignment) if alignment.is_power_of_two() && alignment >= 8 => Ok(alignment),
        _ => crate::blob::wrong(ALIGNMENT, got, "a power of two and a multiple of 8"),
    }
}
