//! A safetensors file, or all files of a checkpoint.

use super::header::{self, Info};
use super::index;
use super::tensor::Tensor;
use crate::blob::wrong;
use crate::buffer::{AlignedBuf, MappedFile, Unchanged, vector};
use crate::error::{Error, Result, text};
use crate::input::{Input, push, whole};
use crate::names::{Index, Shown};
use std::path::Path;

/// A safetensors file, or all files of a checkpoint: tensors by name, and in the order of files and data.
#[derive(Debug)]
pub struct SafeTensors {
    files: Vec<AlignedBuf<u8>>,
    /// `(file, tensor)`.
    tensors: Vec<(usize, Info)>,
    index: Index,
}

impl SafeTensors {
    /// Maps a file and reads its header; of an index (a name that ends with `.json`) all files that it names,
    /// which lie beside it.
    ///
    /// `unchanged`: the promise that nobody changes or truncates the files while the object lives. Read files
    /// that others may change with [`SafeTensors::load`].
    /// **Errors**: `Io`; `Unsupported` on systems without mapped files; `Blob` for a file that is cut off or
    /// foreign, for a header that does not hold together, for a tensor that two files have or that is not in
    /// the file that the index names; `Overflow`, `Resource`. **Cost**: one pass over the headers; data are
    /// neither read nor copied.
    pub fn open(path: &Path, unchanged: Unchanged) -> Result<SafeTensors> {
        SafeTensors::read(path, Input::Mapped(unchanged))
    }

    /// [`SafeTensors::open`] with the files read into memory, data included.
    ///
    /// **Errors**: as [`SafeTensors::open`]. **Cost**: one pass over the files; allocates their size.
    pub fn load(path: &Path) -> Result<SafeTensors> {
        SafeTensors::read(path, Input::Read)
    }

    /// Files that are mapped already.
    ///
    /// **Errors**: as [`SafeTensors::open`], but for `Io`.
    pub fn from_mapped(files: &[MappedFile]) -> Result<SafeTensors> {
        let mut read = vector(files.len())?;
        for file in files {
            read.push(whole(file)?);
        }
        SafeTensors::from_memory(read)
    }

    /// Files in memory.
    ///
    /// **Errors**: as [`SafeTensors::open`], but for `Io`.
    pub fn from_memory(files: Vec<AlignedBuf<u8>>) -> Result<SafeTensors> {
        let mut tensors = Vec::new();
        for (i, file) in files.iter().enumerate() {
            for info in header::read(file.as_slice())? {
                push(&mut tensors, (i, info))?;
            }
        }
        let index = Index::new("tensors", tensors.len(), |i| &tensors[i].1.name)?;
        Ok(SafeTensors { files, tensors, index })
    }

    fn read(path: &Path, input: Input) -> Result<SafeTensors> {
        if path.extension().is_none_or(|ending| ending != "json") {
            let mut one = vector(1)?;
            one.push(input.bytes(path)?);
            return SafeTensors::from_memory(one);
        }
        let named = index::files(Input::Read.bytes(path)?.as_slice())?;
        let mut files = vector(named.len())?;
        for name in named.keys() {
            files.push(input.bytes(&path.with_file_name(name))?);
        }
        let read = SafeTensors::from_memory(files)?;
        for (i, (file, tensors)) in named.iter().enumerate() {
            for tensor in tensors {
                if read.place(tensor).is_none_or(|found| read.tensors[found].0 != i) {
                    let got = format_args!("{} of the index", Shown(tensor));
                    return wrong("tensor", got, format_args!("in {}", Shown(file)));
                }
            }
        }
        Ok(read)
    }

    fn place(&self, tensor: &str) -> Option<usize> {
        self.index.find(tensor, |i| &self.tensors[i].1.name)
    }

    /// Tensors, of all files.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// Tensor `i`, in the order of files and data.
    pub fn tensor_at(&self, i: usize) -> Option<Tensor<'_>> {
        let (file, info) = self.tensors.get(i)?;
        Some(Tensor::new(self.files[*file].as_slice(), info))
    }

    /// All tensors, in the order of files and data.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        (0..self.tensor_count()).filter_map(|i| self.tensor_at(i))
    }

    /// The tensor of a name; `None` where there is none. **Cost**: a search among the sorted names.
    pub fn find(&self, tensor: &str) -> Option<Tensor<'_>> {
        self.tensor_at(self.place(tensor)?)
    }

    /// The tensor of a name.
    ///
    /// **Errors**: `Option` where there is none.
    pub fn tensor(&self, tensor: &str) -> Result<Tensor<'_>> {
        let none = || Error::Option { what: "tensor", got: text(Shown(tensor)), allowed: "one of the file" };
        self.find(tensor).ok_or_else(none)
    }
}
