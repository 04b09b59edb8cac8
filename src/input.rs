//! Whole files of other programs in memory: mapped, or read.

use crate::buffer::{AlignedBuf, MappedFile, Unchanged};
use crate::error::{Error, Result};
use crate::file;
use std::io::Read;
use std::path::Path;

/// How the bytes of a file come into memory.
#[derive(Clone, Copy)]
pub(crate) enum Input {
    Mapped(Unchanged),
    Read,
}

impl Input {
    /// The bytes of a file.
    ///
    /// **Errors**: `Io`, `Unsupported` on systems without mapped files, `Overflow`, `Resource`.
    pub fn bytes(self, path: &Path) -> Result<AlignedBuf<u8>> {
        if let Input::Mapped(unchanged) = self {
            return whole(&MappedFile::open_unchanged(path, unchanged)?);
        }
        let (mut file, bytes) = file::open(path)?;
        let bytes = usize::try_from(bytes).map_err(|_| Error::Overflow { what: "file bytes" })?;
        let mut buffer = AlignedBuf::zeroed(bytes)?;
        file.read_exact(buffer.as_mut_slice()).map_err(|e| file::failed("read", path, &e))?;
        Ok(buffer)
    }
}

/// All bytes of a mapped file.
pub(crate) fn whole(file: &MappedFile) -> Result<AlignedBuf<u8>> {
    AlignedBuf::mapped(file, 0, file.bytes().len())
}

/// A push that can fail.
///
/// **Errors**: `Resource`.
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) -> Result<()> {
    list.try_reserve(1).map_err(|_| Error::Resource { what: "bytes", amount: size_of::<T>() })?;
    list.push(item);
    Ok(())
}
