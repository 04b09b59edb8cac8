//! A GGUF file, or all parts of a split one.

use super::header::Info;
use super::limits::{ALIGNMENT, DEFAULT_ALIGNMENT};
use super::metadata::Metadata;
use super::split::{self, Part};
use super::tensor::Tensor;
use super::value::{Array, Value};
use crate::blob::wrong;
use crate::buffer::{AlignedBuf, MappedFile, Unchanged, vector};
use crate::error::{Error, Result, text};
use crate::input::{Input, push, whole};
use crate::names::{Index, Shown};
use std::path::Path;

/// A GGUF file: its metadata by key, and its tensors by name and in order. The tensors of a split file are
/// those of all its parts.
///
/// Methods by file of `src/gguf`: `file.rs` opens files and finds keys and tensors, `weights.rs` packs
/// tensors.
#[derive(Debug)]
pub struct Gguf {
    /// At least one.
    parts: Vec<Part>,
    /// `(part, number in the part)` of each tensor.
    tensors: Vec<(usize, usize)>,
    index: Index,
}

impl Gguf {
    /// Maps a file and reads its header; where it is the first part of several, all of them, which lie beside
    /// it.
    ///
    /// `unchanged`: the promise that nobody changes or truncates the files while the object lives. Read files
    /// that others may change with [`Gguf::load`].
    ///
    /// ```
    /// use kvern::buffer::Unchanged;
    /// use kvern::gguf::Gguf;
    /// use std::path::Path;
    ///
    /// fn list(path: &Path, unchanged: Unchanged) -> kvern::Result<()> {
    ///     let file = Gguf::open(path, unchanged)?;
    ///     file.tensors().for_each(|tensor| println!("{} {:?}", tensor.name(), tensor.shape()));
    ///     Ok(())
    /// }
    /// ```
    /// **Errors**: `Io`; `Unsupported` on systems without mapped files; `Blob` for a file that is cut off,
    /// foreign, big-endian, of another version, or whose header does not hold together, and for parts that do
    /// not belong together; `Option` for a first part whose name does not tell those of the others;
    /// `Overflow` for a size beyond the address space; `Resource`. **Cost**: one pass over the header;
    /// allocates some 100 bytes for each key and tensor. Data are neither read nor copied.
    pub fn open(path: &Path, unchanged: Unchanged) -> Result<Gguf> {
        Gguf::read(path, Input::Mapped(unchanged))
    }

    /// [`Gguf::open`] with the files read into memory, data included.
    ///
    /// **Errors**: as [`Gguf::open`]. **Cost**: one pass over the files; allocates their size.
    pub fn load(path: &Path) -> Result<Gguf> {
        Gguf::read(path, Input::Read)
    }

    /// A file that is mapped already, or all parts of a split one in their order.
    ///
    /// **Errors**: as [`Gguf::open`], but for `Io`.
    pub fn from_mapped(parts: &[MappedFile]) -> Result<Gguf> {
        let mut read = vector(parts.len())?;
        for part in parts {
            read.push(Part::read(whole(part)?)?);
        }
        Gguf::of(read)
    }

    /// Files in memory: one, or all parts of a split one in their order.
    ///
    /// **Errors**: as [`Gguf::open`], but for `Io`.
    pub fn from_memory(parts: Vec<AlignedBuf<u8>>) -> Result<Gguf> {
        let mut read = vector(parts.len())?;
        for part in parts {
            read.push(Part::read(part)?);
        }
        Gguf::of(read)
    }

    fn read(path: &Path, input: Input) -> Result<Gguf> {
        let first = Part::read(input.bytes(path)?)?;
        let count = first.count()?;
        let mut parts = Vec::new();
        push(&mut parts, first)?;
        for i in 1..count {
            // One by one: how many the first part claims says nothing of how many there are.
            push(&mut parts, Part::read(input.bytes(&split::path(path, i, count)?)?)?)?;
        }
        Gguf::of(parts)
    }

    fn of(parts: Vec<Part>) -> Result<Gguf> {
        if parts.is_empty() {
            return wrong("number of parts", 0, "at least 1");
        }
        split::check(&parts)?;
        let count = parts.iter().map(|part| part.header.tensors.len()).sum();
        let mut tensors = vector(count)?;
        for (p, part) in parts.iter().enumerate() {
            tensors.extend((0..part.header.tensors.len()).map(|i| (p, i)));
        }
        let index = Index::new("tensors", count, |i| name(&parts, tensors[i]))?;
        Ok(Gguf { parts, tensors, index })
    }

    /// The version of the (first) file: 2 or 3.
    pub fn version(&self) -> u32 {
        self.parts[0].header.version
    }

    /// The files that the object is made of.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// The alignment of the data of the (first) file: its `general.alignment`, else 32.
    pub fn alignment(&self) -> usize {
        let stored = self.get(ALIGNMENT).and_then(|value| value.to_u64()?.try_into().ok());
        stored.unwrap_or(DEFAULT_ALIGNMENT)
    }

    fn metadata(&self) -> (&Metadata, &[u8]) {
        (&self.parts[0].header.metadata, self.parts[0].bytes())
    }

    /// Keys of the metadata.
    pub fn key_count(&self) -> usize {
        self.metadata().0.len()
    }

    /// Key `i` and its value, in the order of the file.
    pub fn key(&self, i: usize) -> Option<(&str, Value<'_>)> {
        let (metadata, bytes) = self.metadata();
        metadata.at(bytes, i)
    }

    /// A key as it lies in the file, and its value.
    #[cfg(feature = "capi")]
    pub(crate) fn entry(&self, key: &str) -> Option<(&str, Value<'_>)> {
        let (metadata, bytes) = self.metadata();
        metadata.at(bytes, metadata.find(bytes, key)?)
    }

    /// All keys and values, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        (0..self.key_count()).filter_map(|i| self.key(i))
    }

    /// The value of a key; `None` where there is no such key. **Cost**: a search among the sorted keys, and
    /// one pass over a value that is an array of texts or arrays.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let (metadata, bytes) = self.metadata();
        metadata.get(bytes, key)
    }

    /// The number of a key whose value is of any integer type.
    ///
    /// **Errors**: `Option` for a key that is not there; `Blob` for a value of another type or a negative
    /// one, with the key, its type and the wanted one.
    pub fn u64(&self, key: &str) -> Result<u64> {
        self.typed(key, "an integer from 0 on", |value| value.to_u64())
    }

    /// The number of a key whose value is of any integer type.
    ///
    /// **Errors**: as [`Gguf::u64`], for a value beyond i64 instead of a negative one.
    pub fn i64(&self, key: &str) -> Result<i64> {
        self.typed(key, "an integer of 64 bits with sign", |value| value.to_i64())
    }

    /// The number of a key whose value is of type f32 or f64.
    ///
    /// **Errors**: `Option`, `Blob`, as [`Gguf::u64`].
    pub fn f64(&self, key: &str) -> Result<f64> {
        self.typed(key, "f32 or f64", |value| value.to_f64())
    }

    /// The flag of a key.
    ///
    /// **Errors**: `Option`, `Blob`, as [`Gguf::u64`].
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.typed(key, "bool", |value| value.to_bool())
    }

    /// The text of a key.
    ///
    /// **Errors**: `Option`, `Blob`, as [`Gguf::u64`].
    pub fn str(&self, key: &str) -> Result<&str> {
        self.typed(key, "str", |value| value.to_str())
    }

    /// The array of a key.
    ///
    /// **Errors**: `Option`, `Blob`, as [`Gguf::u64`].
    pub fn array(&self, key: &str) -> Result<Array<'_>> {
        self.typed(key, "array", |value| value.to_array())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        to: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<T> {
        let Some(value) = self.get(key) else {
            return Err(Error::Option { what: "key", got: text(Shown(key)), allowed: "a key of the file" });
        };
        to(value).map_or_else(|| wrong("value", Found(key, value), wanted), Ok)
    }

    /// Tensors, of all parts.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// Tensor `i`, in the order of the file, part after part.
    pub fn tensor_at(&self, i: usize) -> Option<Tensor<'_>> {
        let &(part, i) = self.tensors.get(i)?;
        let part = &self.parts[part];
        Some(Tensor::new(part.bytes(), &part.header.tensors[i]))
    }

    /// All tensors, in the order of the file, part after part.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        (0..self.tensor_count()).filter_map(|i| self.tensor_at(i))
    }

    /// The tensor of a name; `None` where there is none. **Cost**: a search among the sorted names.
    pub fn find(&self, tensor: &str) -> Option<Tensor<'_>> {
        self.tensor_at(self.index.find(tensor, |i| name(&self.parts, self.tensors[i]))?)
    }

    /// The tensor of a name.
    ///
    /// **Errors**: `Option` where there is none.
    pub fn tensor(&self, tensor: &str) -> Result<Tensor<'_>> {
        let none = || Error::Option { what: "tensor", got: text(Shown(tensor)), allowed: "one of the file" };
        self.find(tensor).ok_or_else(none)
    }
}

/// The name of a tensor.
fn name(parts: &[Part], (part, i): (usize, usize)) -> &str {
    let part = &parts[part];
    Info::name(&part.header.tensors[i], part.bytes())
}

/// A value of another type than was asked for, for an error.
struct Found<'a>(&'a str, Value<'a>);

impl std::fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of type {}", Shown(self.0), self.1.kind())?;
        match self.1.to_i64() {
            Some(number) => write!(f, " ({number})"),
            None => Ok(()),
        }
    }
}
