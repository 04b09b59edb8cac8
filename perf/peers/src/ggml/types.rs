//! ggml's types of elements, and rows in them.

use anyhow::{Context, Result, ensure};
use kvern::quant::WeightFormat;
use llama_cpp_sys_2 as sys;
use std::ffi::CStr;

/// A type of elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Type(pub(super) sys::ggml_type);

impl Type {
    /// f32.
    pub const F32: Type = Type(sys::GGML_TYPE_F32);
    /// f16.
    pub const F16: Type = Type(sys::GGML_TYPE_F16);
    /// bf16.
    pub const BF16: Type = Type(sys::GGML_TYPE_BF16);
    /// 8 bits, a scale for 32.
    pub const Q8_0: Type = Type(sys::GGML_TYPE_Q8_0);
    /// 4 bits, a scale for 32.
    pub const Q4_0: Type = Type(sys::GGML_TYPE_Q4_0);

    /// The type that holds the same blocks as a format of kvern's: formats are numbered as in GGUF files, and
    /// the name has to agree. `None` where ggml has no such type.
    pub fn of(format: WeightFormat) -> Option<Type> {
        let id = sys::ggml_type::try_from(format as i32).ok().filter(|&id| id < sys::GGML_TYPE_COUNT)?;
        // SAFETY: the id is in range; the name is a constant, or null for an id out of use.
        let name = unsafe { sys::ggml_type_name(id) };
        if name.is_null() {
            return None;
        }
        // SAFETY: not null, and a C string that is never freed.
        let name = unsafe { CStr::from_ptr(name) }.to_str().ok()?;
        name.eq_ignore_ascii_case(format.name()).then_some(Type(id))
    }

    /// Whether ggml makes blocks of it from an importance matrix only.
    pub fn needs_importance(self) -> bool {
        // SAFETY: every `Type` is a type that ggml has.
        unsafe { sys::ggml_quantize_requires_imatrix(self.0) }
    }

    /// Bytes of a row of `len` elements, which must be whole blocks.
    pub fn row_bytes(self, len: usize) -> usize {
        // SAFETY: every `Type` is a type that ggml has.
        unsafe { sys::ggml_row_size(self.0, len as i64) }
    }

    fn block_len(self) -> usize {
        // SAFETY: every `Type` is a type that ggml has.
        unsafe { sys::ggml_blck_size(self.0) as usize }
    }
}

/// Rows of `len` elements in blocks, as ggml rounds them.
pub fn quantize(to: Type, values: &[f32], len: usize) -> Result<Vec<u8>> {
    ensure!(len.is_multiple_of(to.block_len()) && values.len().is_multiple_of(len), "rows in whole blocks");
    let rows = values.len() / len;
    let mut bytes = vec![0; rows * to.row_bytes(len)];
    let (source, target) = (values.as_ptr(), bytes.as_mut_ptr().cast());
    // SAFETY: `rows * len` values are read and as many rows written, which is what the vectors hold; the
    // type needs no importance matrix.
    let written = unsafe {
        sys::ggml_quantize_chunk(to.0, source, target, 0, rows as i64, len as i64, std::ptr::null())
    };
    ensure!(written == bytes.len(), "ggml wrote {written} of {} bytes", bytes.len());
    Ok(bytes)
}

/// The values that `bytes` stand for: `rows` rows of `len` elements, one after another.
pub fn dequantize(from: Type, bytes: &[u8], rows: usize, len: usize) -> Result<Vec<f32>> {
    ensure!(bytes.len() == rows * from.row_bytes(len), "{} bytes are no {rows} rows of {len}", bytes.len());
    if from == Type::F32 {
        let (words, _) = bytes.as_chunks::<4>();
        return Ok(words.iter().map(|&word| f32::from_ne_bytes(word)).collect());
    }
    // SAFETY: every `Type` is a type that ggml has; its traits are constants.
    let traits = unsafe { &*sys::ggml_get_type_traits(from.0) };
    let to_float = traits.to_float.context("ggml cannot read this type")?;
    let mut values = vec![0f32; rows * len];
    // SAFETY: as many elements are read and written as the two vectors hold.
    unsafe { to_float(bytes.as_ptr().cast(), values.as_mut_ptr(), values.len() as i64) };
    Ok(values)
}
