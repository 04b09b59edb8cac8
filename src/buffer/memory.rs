//! Memory of the caller's own.

use super::fallible::Shared;
use crate::error::{Error, Result, text};
use bytemuck::Pod;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Alignment of every buffer, in bytes.
pub const ALIGN: usize = 64;

/// Where a context's large objects (packed matrices, packed weights, caches, workspaces) lie, instead of the
/// process's allocator: an arena, memory of one NUMA node, memory with a budget.
///
/// # Safety
/// - `allocate` returns NULL, or `bytes` readable and writable bytes that nothing else uses before `free` got
///   them back, on whatever threads the two are called.
pub unsafe trait Memory: Send + Sync {
    /// `bytes` bytes, at least 1, from a multiple of [`ALIGN`] on, with any contents; NULL when there are
    /// none.
    fn allocate(&self, bytes: usize) -> *mut u8;

    /// Takes memory back.
    ///
    /// # Safety
    /// - `start` came from [`allocate`](Memory::allocate) of as many bytes, and nothing uses it any more.
    unsafe fn free(&self, start: *mut u8, bytes: usize);
}

impl<T: Memory + 'static> Shared<T> {
    /// The same owner, which no longer says of which type the memory is.
    pub fn erased(self) -> Shared<dyn Memory> {
        self.coerced::<dyn Memory>(|start| start as _)
    }
}

/// The caller's own owner, beside those that kvern counts.
// SAFETY: handed on.
unsafe impl Memory for Arc<dyn Memory> {
    fn allocate(&self, bytes: usize) -> *mut u8 {
        (**self).allocate(bytes)
    }

    unsafe fn free(&self, start: *mut u8, bytes: usize) {
        // SAFETY: handed on to the caller.
        unsafe { (**self).free(start, bytes) }
    }
}

impl fmt::Debug for dyn Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

/// Elements in a caller's memory.
pub(super) struct Block<T> {
    start: NonNull<T>, // (len), aligned to ALIGN
    len: usize,
    memory: Shared<dyn Memory>,
}

// SAFETY: the block is the only one that uses its memory, and a `Memory` may be called from any thread.
unsafe impl<T: Send> Send for Block<T> {}
// SAFETY: as above; a shared block is only read.
unsafe impl<T: Sync> Sync for Block<T> {}

impl<T: Pod> Block<T> {
    /// `len` zeros, more than 0 bytes.
    ///
    /// **Errors**: `Resource`; `Option` for memory that is not aligned, which is given back.
    pub fn zeroed(memory: &Shared<dyn Memory>, len: usize) -> Result<Block<T>> {
        let bytes = len * size_of::<T>();
        debug_assert!(bytes > 0);
        let raw = memory.allocate(bytes);
        let Some(start) = NonNull::new(raw.cast::<T>()) else {
            return Err(Error::Resource { what: "bytes of the caller's memory", amount: bytes });
        };
        if !raw.addr().is_multiple_of(ALIGN) {
            // SAFETY: just allocated, and used by nobody.
            unsafe { memory.free(raw, bytes) };
            let (what, got) = ("address of the caller's memory", text(format_args!("{raw:p}")));
            return Err(Error::Option { what, got, allowed: "a multiple of the alignment of 64" });
        }
        // SAFETY: `bytes` bytes that nothing else uses; zeros are a value of plain data.
        unsafe { raw.write_bytes(0, bytes) };
        Ok(Block { start, len, memory: memory.clone() })
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `len` elements that are initialised, and shared as the block is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        // SAFETY: what `allocate` gave for as many bytes, and nothing uses it any more.
        unsafe { self.memory.free(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AlignedBuf, Workspace};
    use super::*;
    use crate::{Context, ContextOptions};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Two pages, the first half for blocks; counts what is out.
    struct Tiny {
        pages: Mutex<Vec<u64>>,
        shift: usize,
        out: AtomicUsize,
    }

    // SAFETY: one block at a time, in a vector that stays where it is.
    unsafe impl Memory for Tiny {
        fn allocate(&self, bytes: usize) -> *mut u8 {
            let start = self.pages.lock().unwrap().as_mut_ptr().cast::<u8>();
            let start = start.wrapping_add(start.align_offset(ALIGN) + self.shift);
            if bytes > 4096 || self.out.fetch_add(bytes, Relaxed) > 0 { std::ptr::null_mut() } else { start }
        }

        unsafe fn free(&self, _: *mut u8, bytes: usize) {
            self.out.fetch_sub(bytes, Relaxed);
        }
    }

    fn tiny(shift: usize) -> Arc<Tiny> {
        Arc::new(Tiny { pages: Mutex::new(vec![7; 1024]), shift, out: AtomicUsize::new(0) })
    }

    fn shared(tiny: &Arc<Tiny>) -> Shared<dyn Memory> {
        let memory: Arc<dyn Memory> = Arc::clone(tiny) as _;
        Shared::new(memory).unwrap().erased()
    }

    #[test]
    fn blocks_are_zero_and_given_back() {
        let (tiny, of) = (tiny(0), shared);
        let mut b = AlignedBuf::<f32>::zeroed_in(Some(&of(&tiny)), 100).unwrap();
        assert_eq!((b.as_slice(), tiny.out.load(Relaxed)), (&[0.0; 100][..], 400));
        b.as_mut_slice().fill(1.0);
        let copy = b.clone();
        drop(b);
        assert_eq!((copy.as_slice(), tiny.out.load(Relaxed)), (&[1.0; 100][..], 0));
        assert_eq!(AlignedBuf::<u8>::zeroed_in(Some(&of(&tiny)), 0).unwrap().bytes(), 0);
        assert_eq!(format!("{:?}", of(&tiny)), "Memory");
    }

    #[test]
    fn memory_that_is_not_there_or_not_aligned_is_an_error() {
        let refused = |shift, len| {
            let tiny = tiny(shift);
            let e = AlignedBuf::<f32>::zeroed_in(Some(&shared(&tiny)), len).unwrap_err();
            (e, tiny.out.load(Relaxed))
        };
        let what = "bytes of the caller's memory";
        assert_eq!(refused(0, 1025), (Error::Resource { what, amount: 4100 }, 0));
        let (e, out) = refused(8, 16);
        assert!(matches!(e, Error::Option { what: "address of the caller's memory", .. }), "{e}");
        assert_eq!(out, 0, "given back");
    }

    #[test]
    fn workspaces_grow_in_the_memory_of_their_context() {
        let tiny = tiny(0);
        let ctx = Context::new(&ContextOptions::default().memory(Arc::clone(&tiny) as _)).unwrap();
        let mut ws = Workspace::new_on(&ctx, 0).unwrap();
        drop(ctx);
        ws.reserve(128).unwrap();
        assert_eq!((ws.bytes(), tiny.out.load(Relaxed)), (128, 128));
        assert!(ws.reserve(8192).is_err());
        assert_eq!(ws.bytes(), 128, "the old workspace is still there");
        drop(ws);
        assert_eq!(tiny.out.load(Relaxed), 0);
    }
}
