//! Small allocations that can fail. `Box::new`, `Arc::new` and `Vec::with_capacity` end the process where
//! there is no memory; here that is an error of the call that needed it.

use crate::error::{Error, Result};
use std::alloc::{Layout, alloc, dealloc};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::*, fence};

/// An empty vector with room for `len` elements: pushing up to that many allocates nothing.
///
/// **Errors**: `Resource`.
pub(crate) fn vector<T>(len: usize) -> Result<Vec<T>> {
    let mut v = Vec::new();
    let amount = len.saturating_mul(size_of::<T>());
    v.try_reserve_exact(len).map_err(|_| Error::Resource { what: "bytes", amount })?;
    Ok(v)
}

/// A vector of `len` times `value`.
///
/// **Errors**: `Resource`.
pub(crate) fn vector_of<T: Copy>(value: T, len: usize) -> Result<Vec<T>> {
    let mut v = vector(len)?;
    v.resize(len, value);
    Ok(v)
}

/// A copy of `x`.
///
/// **Errors**: `Resource`.
pub(crate) fn copied<T: Copy>(x: &[T]) -> Result<Vec<T>> {
    let mut v = vector(x.len())?;
    v.extend_from_slice(x);
    Ok(v)
}

/// `value` on the heap.
///
/// **Errors**: `Resource`; the value is dropped then.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>> {
    if size_of::<T>() == 0 {
        return Ok(Box::new(value)); // allocates nothing
    }
    let start = allocate(value)?;
    // SAFETY: what the global allocator gave for the layout of `T`, with a value in it.
    Ok(unsafe { Box::from_raw(start.as_ptr()) })
}

/// Memory for a `T` that is not of size 0, with `value` in it.
fn allocate<T>(value: T) -> Result<NonNull<T>> {
    let layout = Layout::new::<T>();
    debug_assert!(layout.size() > 0);
    // SAFETY: not of size 0.
    let start = NonNull::new(unsafe { alloc(layout) }.cast::<T>());
    let start = start.ok_or(Error::Resource { what: "bytes", amount: layout.size() })?;
    // SAFETY: new memory of the layout of `T`.
    unsafe { start.write(value) };
    Ok(start)
}

/// A value with several owners: an `Arc` without weak references.
pub(crate) struct Shared<T: ?Sized>(NonNull<Counted<T>>);

pub(crate) struct Counted<T: ?Sized> {
    owners: AtomicUsize,
    value: T,
}

// SAFETY: owners on several threads share the value, and the last of them drops it.
unsafe impl<T: Send + Sync + ?Sized> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync + ?Sized> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// **Errors**: `Resource`; the value is dropped then.
    pub fn new(value: T) -> Result<Shared<T>> {
        Ok(Shared(allocate(Counted { owners: AtomicUsize::new(1), value })?))
    }
}

impl<T: ?Sized> Shared<T> {
    /// The same owner as one of a trait object; `coerce` is the identity, whose result the compiler converts.
    pub fn coerced<U: ?Sized>(
        self,
        coerce: impl FnOnce(NonNull<Counted<T>>) -> NonNull<Counted<U>>,
    ) -> Shared<U> {
        let start = coerce(self.0);
        assert_eq!(start.cast::<u8>(), self.0.cast(), "another pointer than the given one");
        std::mem::forget(self); // its place in the count is the result's
        Shared(start)
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: lives as long as one of its owners.
        unsafe { self.0.as_ref() }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        // A count that wraps would free what is in use. So many owners fit no memory unless they are leaked.
        if self.counted().owners.fetch_add(1, Relaxed) > isize::MAX as usize {
            std::process::abort();
        }
        Shared(self.0)
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T: ?Sized> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.counted().owners.fetch_sub(1, Release) > 1 {
            return;
        }
        fence(Acquire); // what the other owners did comes before the end of the value
        let layout = Layout::for_value(self.counted());
        // SAFETY: this was the last owner; `allocate` gave the memory for this layout.
        unsafe {
            self.0.drop_in_place();
            dealloc(self.0.as_ptr().cast(), layout);
        }
    }
}

impl<T: std::fmt::Debug + ?Sized> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ends<'a>(&'a AtomicUsize);

    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn the_last_owner_drops_the_value_once() {
        let ends = AtomicUsize::new(0);
        let shared = Shared::new(Ends(&ends)).unwrap();
        std::thread::scope(|s| {
            for _ in 0..4 {
                let own = shared.clone();
                s.spawn(move || (0..1000).for_each(|_| drop(own.clone())));
            }
        });
        assert_eq!(ends.load(Relaxed), 0);
        drop(shared);
        assert_eq!(ends.load(Relaxed), 1);
    }

    #[test]
    fn vectors_and_boxes_hold_what_was_put_in() {
        assert_eq!((vector_of(7u8, 3).unwrap(), copied(&[1u32, 2]).unwrap()), (vec![7; 3], vec![1, 2]));
        assert!(matches!(
            vector::<u64>(usize::MAX),
            Err(Error::Resource { what: "bytes", amount: usize::MAX })
        ));
        assert_eq!((*boxed([1u16; 3]).unwrap(), *boxed(()).unwrap()), ([1; 3], ()));
    }
}
