//! The C ABI: what `include/kvern.h` declares. The header's first comment is the contract; here is how it is
//! kept.
//!
//! ```text
//! exported function -> guard (clears the message, catches panics) -> args (pointers become views)
//!                                                                 -> the safe API
//! ```
//! Nothing is computed here. `build.rs` lists the sections of the header and the files of each.
// These comments are the header's too, where brackets are subscripts.
#![allow(rustdoc::broken_intra_doc_links)]
#![allow(non_camel_case_types, reason = "types carry the names that C sees")]
#![allow(clippy::too_many_arguments, reason = "C has no views: a matrix is a pointer and its numbers")]
#![allow(clippy::missing_safety_doc, reason = "the header's first comment is the contract of every function")]

mod args;
pub mod attention;
pub mod cache;
pub mod cache_edit;
pub mod context;
pub mod dtype;
pub mod elementwise;
pub mod experts;
pub mod float8;
pub mod gguf;
pub mod gguf_keys;
pub mod heads;
pub mod import;
pub mod isa;
pub mod matmul;
pub mod memory;
pub mod norms;
pub mod ops;
pub mod packed_b;
pub mod patches;
pub mod prepare;
pub mod quant;
pub mod quantized_rows;
pub mod ragged;
pub mod recurrent;
pub mod rope;
pub mod rope_axes;
pub mod router;
pub mod status;
pub mod threads;
pub mod tokens;
pub mod version;
pub mod weights;
pub mod workspace;

use crate::buffer::boxed;
use args::{check, put};
use status::{Checked, Failure, KVERN_STATUS_OK, KVERN_STATUS_PANIC, KVERN_STATUS_POISONED, kvern_status};
use status::{clear, report};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The frame of every exported function that can fail: clears the thread's message, runs `body`, and turns
/// a refusal or a panic into a status and a message. Nothing unwinds out of it.
#[inline(always)]
fn guard(body: impl FnOnce() -> Checked<()>) -> kvern_status {
    clear();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => KVERN_STATUS_OK,
        Ok(Err(failure)) => failure.status,
        Err(payload) => panicked(payload),
    }
}

/// Reports a panic that was caught. One copy for all exported functions: inlined, it was a quarter of each.
#[cold]
#[inline(never)]
fn panicked(payload: Box<dyn Any + Send>) -> kvern_status {
    report(format_args!("internal error: {}", panic_text(&*payload)));
    // A payload that is no text could panic again when it is dropped.
    if !payload.is::<&str>() && !payload.is::<String>() {
        std::mem::forget(payload);
    }
    KVERN_STATUS_PANIC
}

/// The message of a panic.
fn panic_text(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "a panic without a message",
    }
}

/// A value that calls change: unusable after a panic inside one of them.
#[derive(Debug)]
struct Guarded<T> {
    value: T,
    poisoned: bool,
}

impl<T> Guarded<T> {
    fn new(value: T) -> Guarded<T> {
        Guarded { value, poisoned: false }
    }

    /// The value, to read.
    #[inline(always)]
    fn get(&self, what: &'static str) -> Checked<&T> {
        if self.poisoned {
            let message = format_args!("{what} was being changed by a call that failed inside: destroy it");
            return Err(Failure::new(KVERN_STATUS_POISONED, message));
        }
        Ok(&self.value)
    }

    /// Changes the value. The mark is taken off only when `change` returns, so a panic leaves it on.
    #[inline(always)]
    fn change<R>(&mut self, what: &'static str, change: impl FnOnce(&mut T) -> R) -> Checked<R> {
        self.get(what)?;
        self.poisoned = true;
        let result = change(&mut self.value);
        self.poisoned = false;
        Ok(result)
    }
}

/// Writes NULL to `*out`, makes the object, and hands it to the caller.
///
/// # Safety
/// - `out` is NULL or points to writable memory of a pointer.
unsafe fn create<T>(out: *mut *mut T, make: impl FnOnce() -> Checked<T>) -> Checked<()> {
    // SAFETY: handed on to the caller.
    unsafe { put("out", out, std::ptr::null_mut())? };
    let handle = Box::into_raw(boxed(make()?)?);
    // SAFETY: as above.
    unsafe { put("out", out, handle) }
}

/// Takes an object back and drops it; NULL is no object.
///
/// # Safety
/// - `handle` is NULL or came from [`create`] and was not destroyed.
unsafe fn destroy<T>(handle: *mut T) {
    guard(|| {
        if !handle.is_null() {
            check("handle", handle, 1)?;
            // SAFETY: `create` made it from a Box of this type, and nothing uses it any more.
            drop(unsafe { Box::from_raw(handle) });
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::status::{KVERN_STATUS_ALIASED, message};
    use super::workspace::{kvern_workspace, kvern_workspace_bytes, kvern_workspace_reserve};
    use super::*;
    use crate::Workspace;

    #[test]
    fn panics_become_a_status_and_a_message() {
        assert_eq!(guard(|| panic!("seven")), KVERN_STATUS_PANIC);
        assert_eq!(message(), "internal error: seven");
        assert_eq!(guard(|| panic!("{}", 7)), KVERN_STATUS_PANIC);
        assert_eq!(message(), "internal error: 7");
        assert_eq!(guard(|| std::panic::panic_any(7)), KVERN_STATUS_PANIC);
        assert_eq!(message(), "internal error: a panic without a message");
        assert_eq!(guard(|| Err(Failure::new(KVERN_STATUS_ALIASED, "a\0b"))), KVERN_STATUS_ALIASED);
        assert_eq!(message(), "a b");
        assert_eq!((guard(|| Ok(())), message().as_str()), (KVERN_STATUS_OK, ""));
    }

    /// What the header lets threads share, Rust must let them share.
    #[test]
    fn objects_may_be_shared_as_the_header_says() {
        fn shared<T: Send + Sync>() {}
        shared::<super::context::kvern_context>();
        shared::<super::packed_b::kvern_packed_b>();
        shared::<super::quant::kvern_weights>();
        shared::<super::cache::kvern_kv_cache>();
        shared::<super::rope::kvern_rope_table>();
        shared::<super::recurrent::kvern_state>();
        shared::<super::gguf::kvern_gguf>();
        shared::<kvern_workspace>();
    }

    #[test]
    fn a_panic_inside_of_a_change_poisons() {
        let mut ws = kvern_workspace(Guarded::new(Workspace::new(64).unwrap()));
        let status = guard(|| ws.0.change("ws", |_| panic!("inside")));
        assert_eq!(status, KVERN_STATUS_PANIC);
        let mut bytes = 0usize;
        // SAFETY: both pointers point to live locals.
        assert_eq!(unsafe { kvern_workspace_bytes(&ws, &mut bytes) }, KVERN_STATUS_POISONED);
        assert_eq!(message(), "ws was being changed by a call that failed inside: destroy it");
        // SAFETY: as above.
        assert_eq!(unsafe { kvern_workspace_reserve(&mut ws, 128) }, KVERN_STATUS_POISONED);
    }
}
