//! Files in memory.

use super::fallible::Shared;
use crate::error::{Error, Result};
use crate::file;
use std::path::Path;

/// A file in memory, read-only, shared by the objects that were loaded from it. Pages are read when they are
/// first touched and belong to the system's cache.
///
/// A save of kvern replaces a file and does not write into it, so that saving to the path of a mapped file
/// (an object that lies in it, for one) leaves the mapping as it is. Whoever else shortens the file breaks
/// the promise of [`MappedFile::open`]: the first touch of a page that is gone ends the process (SIGBUS), and
/// a page that is overwritten changes weights after their checksum was found right. Read files that others
/// may change with `load`.
#[derive(Clone, Debug)]
pub struct MappedFile(Shared<Mapping>);

#[derive(Debug)]
struct Mapping {
    start: *const u8, // (len), page-aligned; dangling for an empty file
    len: usize,
}

// SAFETY: the mapping is read-only and lives as long as the value.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl MappedFile {
    /// Maps a whole file.
    ///
    /// **Errors**: [`Error::Io`], for a directory, a pipe or a device too; [`Error::Unsupported`] on systems
    /// without
    /// `mmap`.
    ///
    /// # Safety
    /// - nobody changes or truncates the file while it is mapped.
    pub unsafe fn open(path: &Path) -> Result<MappedFile> {
        let (file, len) = file::open(path)?;
        let len = usize::try_from(len).map_err(|_| Error::Overflow { what: "file bytes" })?;
        if len == 0 {
            return Ok(MappedFile(Shared::new(Mapping { start: std::ptr::dangling(), len })?));
        }
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            // SAFETY: a new read-only mapping of an open file.
            let start = unsafe {
                let null = std::ptr::null_mut();
                libc::mmap(null, len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
            };
            if start == libc::MAP_FAILED {
                return Err(file::failed("map", path, &std::io::Error::last_os_error()));
            }
            Ok(MappedFile(Shared::new(Mapping { start: start.cast_const().cast(), len })?))
        }
        #[cfg(not(unix))]
        Err(Error::Unsupported { what: "mmap" })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` mapped bytes that nobody changes, as `open` was promised.
        unsafe { std::slice::from_raw_parts(self.0.start, self.0.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(unix)]
        if self.len > 0 {
            // SAFETY: the mapping made in `open`, which nobody uses any more.
            unsafe { libc::munmap(self.start.cast_mut().cast(), self.len) };
        }
    }
}
