//! Files written: metadata and shapes first, then the data as they come.

use super::limits::{ALIGNMENT, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, MAX_NAME, VERSIONS, alignment};
use super::tensor_type::TensorType;
use super::value::{Value, ValueType};
use crate::blob::wrong;
use crate::buffer::copied;
use crate::error::{Error, Result, equal, option, text};
use crate::file;
use crate::names::Shown;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The most bytes of a tensor's name: readers in C keep it in 64 bytes with its NUL.
const MAX_TENSOR_NAME: usize = 63;

/// A file of version 3 that is to be written: metadata, and the names, types and shapes of tensors.
///
/// The alignment is 32, or the value of `general.alignment` (a u32) that is set.
#[derive(Debug, Default)]
pub struct GgufWriter {
    /// Keys and values, as the file holds them.
    metadata: Vec<u8>,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Planned>,
    alignment: Option<usize>,
}

#[derive(Debug)]
struct Planned {
    name: Vec<u8>,
    shape: [u64; MAX_DIMS],
    dims: usize,
    kind: TensorType,
    bytes: usize,
}

impl GgufWriter {
    /// A file without keys and tensors.
    pub fn new() -> GgufWriter {
        GgufWriter::default()
    }

    /// Appends a key with its value, which may come from another file.
    ///
    /// **Errors**: `Option` for a key that is there or too long; `Blob` for a `general.alignment` that is no
    /// u32, no power of two or no multiple of 8; `Resource`.
    pub fn set(&mut self, key: &str, value: Value<'_>) -> Result<()> {
        let alignment = self.check(key, value)?;
        self.key(key, value.kind(), |out| put_value(out, value))?;
        self.alignment = alignment;
        Ok(())
    }

    /// Appends a key with an array.
    ///
    /// **Errors**: as [`GgufWriter::set`].
    pub fn set_array<T: Element>(&mut self, key: &str, values: &[T]) -> Result<()> {
        if key == ALIGNMENT {
            return wrong(ALIGNMENT, "an array", "u32");
        }
        self.key(key, ValueType::Array, |out| {
            put(out, &(T::KIND as u32).to_le_bytes())?;
            put(out, &(values.len() as u64).to_le_bytes())?;
            values.iter().try_for_each(|value| put_value(out, value.value()))
        })
    }

    /// The alignment behind a new key.
    fn check(&self, key: &str, value: Value<'_>) -> Result<Option<usize>> {
        match (key == ALIGNMENT, value) {
            (false, _) => Ok(self.alignment),
            (true, Value::U32(number)) => alignment(number.into()).map(Some),
            (true, _) => wrong(ALIGNMENT, value.kind(), "u32"),
        }
    }

    /// Appends a key, or leaves everything as it was.
    fn key(
        &mut self,
        key: &str,
        kind: ValueType,
        value: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let new = !self.keys.iter().any(|other| other == key.as_bytes());
        option(new, "key", Shown(key), "a new one")?;
        option(key.len() <= MAX_NAME, "bytes of a key", key.len(), "at most 65535")?;
        reserve(&mut self.keys)?;
        let (own, len) = (copied(key.as_bytes())?, self.metadata.len());
        let out = &mut self.metadata;
        let written = put_text(out, key).and_then(|()| put(out, &(kind as u32).to_le_bytes()));
        if let Err(e) = written.and_then(|()| value(out)) {
            out.truncate(len);
            return Err(e);
        }
        self.keys.push(own);
        Ok(())
    }

    /// Appends a tensor, whose data come with [`GgufWriter::save`].
    ///
    /// **Shapes**: `shape`: k first, as [`Tensor::shape`](super::Tensor::shape); at most 4 dimensions.
    /// **Errors**: `Option` for a name that is there or longer than 63 bytes, more dimensions, or a type of
    /// unknown size; `Blob` for a k that is no multiple of the type's block; `Overflow`, `Resource`.
    pub fn tensor(&mut self, name: &str, kind: impl Into<TensorType>, shape: &[usize]) -> Result<()> {
        let kind = kind.into();
        let new = !self.tensors.iter().any(|other| other.name == name.as_bytes());
        option(new, "tensor", Shown(name), "a new one")?;
        option(name.len() <= MAX_TENSOR_NAME, "bytes of a tensor's name", name.len(), "at most 63")?;
        option(shape.len() <= MAX_DIMS, "dimensions of a tensor", shape.len(), "at most 4")?;
        let Some(bytes) = kind.bytes(name, shape)? else {
            let got = text(kind.id());
            return Err(Error::Option { what: "type of a tensor", got, allowed: "a type of known size" });
        };
        let mut sizes = [1; MAX_DIMS];
        sizes.iter_mut().zip(shape).for_each(|(to, size)| *to = *size as u64);
        reserve(&mut self.tensors)?;
        let name = copied(name.as_bytes())?;
        self.tensors.push(Planned { name, shape: sizes, dims: shape.len(), kind, bytes });
        Ok(())
    }

    /// Writes the file; an old one is replaced as a whole, or stays as it is where anything fails.
    ///
    /// `data` is called for each tensor in order, with its number, and writes its bytes.
    /// **Errors**: `Io`; those of `data`; `Shape` for a tensor of which more or fewer bytes were written than
    /// its shape has; `Overflow`, `Resource`.
    pub fn save(
        &self,
        path: &Path,
        mut data: impl FnMut(usize, &mut TensorData<'_>) -> Result<()>,
    ) -> Result<()> {
        let header = self.header()?;
        // The file is written in a frame that knows errors of files only.
        let mut refused = None;
        let written = file::replace(path, |file| {
            file.write_all(&header)?;
            let alignment = self.alignment.unwrap_or(DEFAULT_ALIGNMENT);
            for (i, tensor) in self.tensors.iter().enumerate() {
                let mut out = TensorData { file, left: tensor.bytes, bytes: tensor.bytes, failed: None };
                let mut done = data(i, &mut out);
                let (left, failed) = (out.left, out.failed);
                if let Some(failed) = failed {
                    return Err(failed);
                }
                if done.is_ok() {
                    let relation = "must equal the bytes of the tensor =";
                    done = equal("bytes of data", tensor.bytes - left, relation, tensor.bytes);
                }
                if let Err(e) = done {
                    refused = Some(e);
                    return Err(io::ErrorKind::InvalidData.into());
                }
                pad(file, tensor.bytes, alignment)?;
            }
            Ok(())
        });
        refused.map_or(written, Err)
    }

    /// Everything before the data.
    fn header(&self) -> Result<Vec<u8>> {
        let alignment = self.alignment.unwrap_or(DEFAULT_ALIGNMENT);
        let mut out = copied(&MAGIC)?;
        put(&mut out, &VERSIONS.end().to_le_bytes())?;
        put(&mut out, &(self.tensors.len() as u64).to_le_bytes())?;
        put(&mut out, &(self.keys.len() as u64).to_le_bytes())?;
        put(&mut out, &self.metadata)?;
        let overflow = Error::Overflow { what: "offset of a tensor" };
        let mut offset = 0usize;
        for tensor in &self.tensors {
            put(&mut out, &(tensor.name.len() as u64).to_le_bytes())?;
            put(&mut out, &tensor.name)?;
            put(&mut out, &(tensor.dims as u32).to_le_bytes())?;
            for size in &tensor.shape[..tensor.dims] {
                put(&mut out, &size.to_le_bytes())?;
            }
            put(&mut out, &tensor.kind.id().to_le_bytes())?;
            put(&mut out, &(offset as u64).to_le_bytes())?;
            let end =
                offset.checked_add(tensor.bytes).and_then(|end| end.checked_next_multiple_of(alignment));
            offset = end.ok_or(overflow.clone())?;
        }
        let end = out.len().checked_next_multiple_of(alignment).ok_or(overflow)?;
        out.try_reserve_exact(end - out.len()).map_err(|_| Error::Resource { what: "bytes", amount: end })?;
        out.resize(end, 0);
        Ok(out)
    }
}

/// Where the data of a tensor go.
#[derive(Debug)]
pub struct TensorData<'a> {
    file: &'a mut File,
    left: usize,
    bytes: usize,
    failed: Option<io::Error>,
}

impl TensorData<'_> {
    /// Writes the next bytes of the tensor.
    ///
    /// **Errors**: `Shape` for more bytes than are missing; `Io`, of which [`GgufWriter::save`] tells the
    /// path.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            let (got, relation) = (bytes.len(), "must be at most the bytes that are missing =");
            return Err(Error::Shape { what: "bytes of data", got, relation, want: self.left });
        };
        self.file.write_all(bytes).map_err(|e| {
            let kind = e.kind();
            self.failed = Some(e);
            Error::Io { what: "write", path: text("a tensor"), kind }
        })?;
        self.left = left;
        Ok(())
    }

    /// Bytes of the tensor.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the tensor has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A type whose values an array of the metadata can hold.
pub trait Element: sealed::Sealed {
    /// Its number.
    const KIND: ValueType;

    /// The element as a value.
    fn value(&self) -> Value<'_>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ty: $name:ident;)+) => {$(
        impl sealed::Sealed for $type {}

        impl Element for $type {
            const KIND: ValueType = ValueType::$name;

            fn value(&self) -> Value<'_> {
                Value::$name(self.clone().into())
            }
        }
    )+};
}
elements! {
    u8: U8; i8: I8; u16: U16; i16: I16; u32: U32; i32: I32; u64: U64; i64: I64; f32: F32; f64: F64;
    bool: Bool; &str: Str;
}

/// Room for one more.
fn reserve<T>(list: &mut Vec<T>) -> Result<()> {
    list.try_reserve(1).map_err(|_| Error::Resource { what: "bytes", amount: size_of::<T>() })
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    out.try_reserve(bytes.len()).map_err(|_| Error::Resource { what: "bytes", amount: bytes.len() })?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    put(out, &(text.len() as u64).to_le_bytes())?;
    put(out, text.as_bytes())
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) -> Result<()> {
    match value {
        Value::U8(x) => put(out, &x.to_le_bytes()),
        Value::I8(x) => put(out, &x.to_le_bytes()),
        Value::U16(x) => put(out, &x.to_le_bytes()),
        Value::I16(x) => put(out, &x.to_le_bytes()),
        Value::U32(x) => put(out, &x.to_le_bytes()),
        Value::I32(x) => put(out, &x.to_le_bytes()),
        Value::F32(x) => put(out, &x.to_le_bytes()),
        Value::U64(x) => put(out, &x.to_le_bytes()),
        Value::I64(x) => put(out, &x.to_le_bytes()),
        Value::F64(x) => put(out, &x.to_le_bytes()),
        Value::Bool(x) => put(out, &[x.into()]),
        Value::Str(x) => put_text(out, x),
        Value::Array(x) => {
            put(out, &(x.kind() as u32).to_le_bytes())?;
            put(out, &(x.len() as u64).to_le_bytes())?;
            put(out, x.bytes())
        }
    }
}

/// Zeros behind `bytes` up to the alignment.
fn pad(file: &mut File, bytes: usize, alignment: usize) -> io::Result<()> {
    const ZEROS: [u8; 256] = [0; 256];
    let mut left = (alignment - bytes % alignment) % alignment;
    while left > 0 {
        let some = left.min(ZEROS.len());
        file.write_all(&ZEROS[..some])?;
        left -= some;
    }
    Ok(())
}
