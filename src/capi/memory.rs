//! The caller's own memory: what `kvern_allocate` and `kvern_release` give and take.

use crate::buffer::{ALIGN, Memory};
use std::ffi::c_void;

/// The caller's own memory: returns `bytes` bytes (never 0) from a multiple of `alignment` (64) on, or NULL
/// when there are none: the call that needs them is refused with RESOURCE then, and with OPTION for another
/// alignment. Must not throw and not call kvern; may be called from several threads at once.
pub type kvern_allocate =
    Option<unsafe extern "C" fn(user: *mut c_void, bytes: usize, alignment: usize) -> *mut c_void>;

/// Takes back what `kvern_allocate` returned for as many bytes; the same rules.
pub type kvern_release = Option<unsafe extern "C" fn(user: *mut c_void, start: *mut c_void, bytes: usize)>;

/// A C caller's memory.
pub(super) struct Given {
    pub allocate: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    pub release: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
    pub user: *mut c_void,
}

// SAFETY: the header makes it the caller's duty that the functions may be called from any thread.
unsafe impl Send for Given {}
// SAFETY: as above, at once.
unsafe impl Sync for Given {}

// SAFETY: the header makes it the caller's duty that the memory is the block's alone until it is released.
unsafe impl Memory for Given {
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's function with the caller's pointer.
        unsafe { (self.allocate)(self.user, bytes, ALIGN).cast() }
    }

    unsafe fn free(&self, start: *mut u8, bytes: usize) {
        // SAFETY: as above; `start` came from `allocate`.
        unsafe { (self.release)(self.user, start.cast(), bytes) }
    }
}
