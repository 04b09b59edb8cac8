//! Files in memory.

use super::fallible::Shared;
use crate::error::Result;
use std::path::Path;

/// A file in memory, read-only, shared by the objects that were loaded from it. Pages are read when they are
/// first touched and belong to the system's cache.
///
/// A save of kvern replaces a file and does not write into it, so that saving to the path of a mapped file
/// (an object that lies in it, for one) leaves the mapping as it is; Windows may refuse to replace a file
/// that is mapped, and the save is then an error. Whoever else shortens the file breaks the promise of
/// [`MappedFile::open`]: the first touch of a page that is gone ends the process (SIGBUS), and a page that is
/// overwritten changes weights after their checksum was found right. Read files that others may change with
/// `load`.
#[derive(Clone, Debug)]
pub struct MappedFile(Shared<Mapping>);

/// The promise that files stay as they are while they are mapped, for readers that open files of their own
/// choice, such as the parts of a split one.
#[derive(Clone, Copy, Debug)]
pub struct Unchanged(());

impl Unchanged {
    /// Promises it.
    ///
    /// ```
    /// use kvern::buffer::Unchanged;
    ///
    /// // SAFETY: models are replaced as whole files, and never written to.
    /// let unchanged = unsafe { Unchanged::promised() };
    /// ```
    /// # Safety
    /// - nobody changes or truncates a file while it is mapped that was opened with this value or a copy of
    ///   it.
    pub const unsafe fn promised() -> Unchanged {
        Unchanged(())
    }
}

#[cfg(any(unix, windows))]
type Mapping = memmap2::Mmap;
/// There is none.
#[cfg(not(any(unix, windows)))]
type Mapping = [u8; 0];

impl MappedFile {
    /// Maps a whole file.
    ///
    /// **Errors**: [`Io`](crate::Error::Io), for a directory, a pipe or a device too;
    /// [`Unsupported`](crate::Error::Unsupported) on systems without mapped files (WebAssembly).
    ///
    /// # Safety
    /// - nobody changes or truncates the file while it is mapped.
    #[cfg(any(unix, windows))]
    pub unsafe fn open(path: &Path) -> Result<MappedFile> {
        use crate::error::Error;
        use crate::file;
        let (file, len) = file::open(path)?;
        let len = isize::try_from(len).map_err(|_| Error::Overflow { what: "file bytes" })?;
        let mut options = memmap2::MmapOptions::new();
        // Not asked whether it could be written or executed as well: it is only read.
        options.len(len.unsigned_abs()).no_probe_handle();
        // SAFETY: nobody changes the file, as the caller promised.
        let mapping = unsafe { options.map(&file) }.map_err(|e| file::failed("map", path, &e))?;
        Ok(MappedFile(Shared::new(mapping)?))
    }

    /// Mapped files are not there.
    ///
    /// **Errors**: [`Unsupported`](crate::Error::Unsupported).
    ///
    /// # Safety
    /// - none: nothing is mapped.
    #[cfg(not(any(unix, windows)))]
    pub unsafe fn open(_: &Path) -> Result<MappedFile> {
        Err(crate::Error::Unsupported { what: "a mapped file" })
    }

    /// [`MappedFile::open`] under a promise that was given before.
    ///
    /// **Errors**: as [`MappedFile::open`].
    pub fn open_unchanged(path: &Path, _: Unchanged) -> Result<MappedFile> {
        // SAFETY: nobody changes the file, as whoever made the promise has stated.
        unsafe { MappedFile::open(path) }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..]
    }
}
