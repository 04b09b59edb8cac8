//! Memory between pages that nobody may touch: what reads or writes beyond it ends the process.

use std::ffi::c_void;

/// Bytes of a page, at least: access is given to multiples of it.
pub const PAGE: usize = if cfg!(target_arch = "x86_64") { 1 << 12 } else { 1 << 16 };

/// Address space of which no page may be touched, except those that [`Pages::allow`] named.
pub struct Pages {
    start: *mut c_void,
    bytes: usize,
}

// SAFETY: memory, used like any other.
unsafe impl Send for Pages {}

impl Pages {
    /// `bytes` bytes, a multiple of [`PAGE`].
    pub fn new(bytes: usize) -> Pages {
        let start = system::reserve(bytes);
        Pages { start, bytes }
    }

    /// Gives access to `bytes` bytes from byte `from` on; they are zeros.
    pub fn allow(&self, from: usize, bytes: usize) {
        assert!(from.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE) && from + bytes <= self.bytes);
        // SAFETY: pages of this reservation.
        assert!(bytes == 0 || unsafe { system::allow(self.start.byte_add(from), bytes) });
    }

    /// The first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.cast()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the reservation of `new`, which nobody uses any more.
        unsafe { system::release(self.start, self.bytes) };
    }
}

#[cfg(unix)]
mod system {
    use std::ffi::c_void;

    pub fn reserve(bytes: usize) -> *mut c_void {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        start
    }

    /// # Safety
    /// - pages of one reservation.
    pub unsafe fn allow(start: *mut c_void, bytes: usize) -> bool {
        // SAFETY: handed on to the caller.
        unsafe { libc::mprotect(start, bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 }
    }

    /// # Safety
    /// - a whole reservation, used no more.
    pub unsafe fn release(start: *mut c_void, bytes: usize) {
        // SAFETY: handed on to the caller.
        unsafe { libc::munmap(start, bytes) };
    }
}

#[cfg(windows)]
mod system {
    use std::ffi::c_void;
    use windows_sys::Win32::System::Memory::*;

    pub fn reserve(bytes: usize) -> *mut c_void {
        // SAFETY: a new reservation.
        let start = unsafe { VirtualAlloc(std::ptr::null(), bytes, MEM_RESERVE, PAGE_NOACCESS) };
        assert!(!start.is_null());
        start
    }

    /// # Safety
    /// - pages of one reservation.
    pub unsafe fn allow(start: *mut c_void, bytes: usize) -> bool {
        // SAFETY: handed on to the caller.
        unsafe { !VirtualAlloc(start, bytes, MEM_COMMIT, PAGE_READWRITE).is_null() }
    }

    /// # Safety
    /// - a whole reservation, used no more.
    pub unsafe fn release(start: *mut c_void, _bytes: usize) {
        // SAFETY: handed on to the caller.
        unsafe { VirtualFree(start, 0, MEM_RELEASE) };
    }
}
