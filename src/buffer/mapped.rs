//! Files in memory.

use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// A file in memory, read-only, shared by the objects that were loaded from it. Pages are read when they are
/// first touched and belong to the system's cache.
#[derive(Clone, Debug)]
pub struct MappedFile(Arc<Mapping>);

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
    /// **Errors**: [`Error::Io`]; [`Error::Unsupported`] on systems without `mmap`.
    ///
    /// # Safety
    /// - nobody changes or truncates the file while it is mapped.
    pub unsafe fn open(path: &Path) -> Result<MappedFile> {
        let io =
            |what, e: std::io::Error| Error::Io { what, path: path.display().to_string(), kind: e.kind() };
        let file = std::fs::File::open(path).map_err(|e| io("open", e))?;
        let len = file.metadata().map_err(|e| io("read", e))?.len();
        let len = usize::try_from(len).map_err(|_| Error::Overflow { what: "file bytes" })?;
        if len == 0 {
            return Ok(MappedFile(Arc::new(Mapping { start: std::ptr::dangling(), len })));
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
                return Err(io("map", std::io::Error::last_os_error()));
            }
            Ok(MappedFile(Arc::new(Mapping { start: start.cast_const().cast(), len })))
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
