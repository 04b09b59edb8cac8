//! Status codes, and the message of a thread's last failure.

use crate::error::Error;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::fmt::{self, Write};

/// What a call returns: 0 or a negative code. A number never changes its meaning; new ones may be added.
pub type kvern_status = i32;

/// The call did what it says.
pub const KVERN_STATUS_OK: kvern_status = 0;
/// A pointer is NULL that must not be.
pub const KVERN_STATUS_NULL_POINTER: kvern_status = -1;
/// A dimension, a stride or an index disagrees with another one.
pub const KVERN_STATUS_SHAPE: kvern_status = -2;
/// This CPU, this build or this version lacks what was asked for.
pub const KVERN_STATUS_UNSUPPORTED: kvern_status = -3;
/// An output overlaps an input.
pub const KVERN_STATUS_ALIASED: kvern_status = -4;
/// The workspace is smaller than the query said.
pub const KVERN_STATUS_WORKSPACE: kvern_status = -5;
/// A size does not fit the address space.
pub const KVERN_STATUS_OVERFLOW: kvern_status = -6;
/// A value is outside of its range: an enum number, a flag, an option.
pub const KVERN_STATUS_OPTION: kvern_status = -7;
/// The key-value cache has no window that would let it forget, and no room; or its pool has too few free
/// pages.
pub const KVERN_STATUS_CACHE_FULL: kvern_status = -8;
/// The system gave no memory or no thread.
pub const KVERN_STATUS_RESOURCE: kvern_status = -9;
/// A pointer is not aligned to its type.
pub const KVERN_STATUS_MISALIGNED: kvern_status = -10;
/// A fault of the library, caught. Report it with the message.
pub const KVERN_STATUS_PANIC: kvern_status = -11;
/// An earlier call on this object ended with PANIC: only destroy it.
pub const KVERN_STATUS_POISONED: kvern_status = -12;
/// A buffer is too short.
pub const KVERN_STATUS_LENGTH: kvern_status = -13;
/// A stored object is truncated, foreign or damaged.
pub const KVERN_STATUS_BLOB: kvern_status = -14;
/// Reading or writing a file failed.
pub const KVERN_STATUS_IO: kvern_status = -15;

/// What a checked step of an exported function gives.
pub(super) type Checked<T> = std::result::Result<T, Failure>;

/// Why a call is refused. Its message is the thread's as soon as the value is made: a call that was refused
/// because there is no memory needs none to say so.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: kvern_status,
}

impl Failure {
    #[cold]
    pub fn new(status: kvern_status, message: impl fmt::Display) -> Failure {
        report(message);
        Failure { status }
    }
}

impl From<Error> for Failure {
    #[cold]
    #[inline(never)]
    fn from(e: Error) -> Failure {
        let status = match e {
            Error::Shape { .. } => KVERN_STATUS_SHAPE,
            Error::Length { .. } => KVERN_STATUS_LENGTH,
            Error::Workspace { .. } => KVERN_STATUS_WORKSPACE,
            Error::Overflow { .. } => KVERN_STATUS_OVERFLOW,
            Error::Option { .. } => KVERN_STATUS_OPTION,
            Error::CacheFull { .. } | Error::PoolFull { .. } => KVERN_STATUS_CACHE_FULL,
            Error::Unsupported { .. } | Error::Isa { .. } => KVERN_STATUS_UNSUPPORTED,
            Error::Resource { .. } => KVERN_STATUS_RESOURCE,
            Error::Blob { .. } => KVERN_STATUS_BLOB,
            Error::Io { .. } => KVERN_STATUS_IO,
        };
        Failure::new(status, e)
    }
}

/// A text of at most 1023 bytes with its NUL; what is longer is cut off.
struct Message {
    text: [u8; 1024],
    len: usize,
}

impl Write for Message {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.text.len() - 1 - self.len;
        let len = (0..=room.min(part.len())).rev().find(|i| part.is_char_boundary(*i)).unwrap_or(0);
        // A NUL inside of the text would end it.
        let bytes = part[..len].bytes().map(|byte| if byte == 0 { b' ' } else { byte });
        self.text[self.len..].iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        self.len += len;
        self.text[self.len] = 0;
        if len < part.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

thread_local! {
    /// Neither made nor dropped by code, so that it takes no memory of the process's allocator.
    static MESSAGE: RefCell<Message> = const { RefCell::new(Message { text: [0; 1024], len: 0 }) };
}

/// Empties the thread's message.
#[inline(never)]
pub(super) fn clear() {
    MESSAGE.with(|message| {
        if let Ok(mut message) = message.try_borrow_mut() {
            message.len = 0;
            message.text[0] = 0;
        }
    });
}

/// Sets the thread's message.
pub(super) fn report(text: impl fmt::Display) {
    clear();
    MESSAGE.with(|message| {
        if let Ok(mut message) = message.try_borrow_mut() {
            let _ = write!(message, "{text}"); // an error says that the text was cut off
        }
    });
}

/// The thread's message.
#[cfg(test)]
pub(super) fn message() -> String {
    // SAFETY: the message is a C string until the next call on this thread.
    unsafe { CStr::from_ptr(kvern_last_error_message()) }.to_str().unwrap().to_owned()
}

/// Why the calling thread's last call failed: one sentence that names the argument and the numbers, such as
/// `b_row_stride = 64 must be at least 128`. UTF-8, at most 1023 bytes, never NULL, "" after a call that
/// succeeded.
///
/// The text belongs to the library and is valid until the next kvern call on this thread; this function,
/// `kvern_status_name` and the version functions are not such calls.
/// Threads: any; each thread has a message of its own.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_last_error_message() -> *const c_char {
    // SAFETY: only the address of a field of the thread's own value is taken.
    MESSAGE.with(|message| unsafe { (&raw const (*message.as_ptr()).text).cast() })
}

/// The name of a status, such as `KVERN_STATUS_SHAPE`; `KVERN_STATUS_?` for a number that is none.
///
/// The text is static and never NULL. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_status_name(status: kvern_status) -> *const c_char {
    name(status).as_ptr()
}

fn name(status: kvern_status) -> &'static CStr {
    match status {
        KVERN_STATUS_OK => c"KVERN_STATUS_OK",
        KVERN_STATUS_NULL_POINTER => c"KVERN_STATUS_NULL_POINTER",
        KVERN_STATUS_SHAPE => c"KVERN_STATUS_SHAPE",
        KVERN_STATUS_UNSUPPORTED => c"KVERN_STATUS_UNSUPPORTED",
        KVERN_STATUS_ALIASED => c"KVERN_STATUS_ALIASED",
        KVERN_STATUS_WORKSPACE => c"KVERN_STATUS_WORKSPACE",
        KVERN_STATUS_OVERFLOW => c"KVERN_STATUS_OVERFLOW",
        KVERN_STATUS_OPTION => c"KVERN_STATUS_OPTION",
        KVERN_STATUS_CACHE_FULL => c"KVERN_STATUS_CACHE_FULL",
        KVERN_STATUS_RESOURCE => c"KVERN_STATUS_RESOURCE",
        KVERN_STATUS_MISALIGNED => c"KVERN_STATUS_MISALIGNED",
        KVERN_STATUS_PANIC => c"KVERN_STATUS_PANIC",
        KVERN_STATUS_POISONED => c"KVERN_STATUS_POISONED",
        KVERN_STATUS_LENGTH => c"KVERN_STATUS_LENGTH",
        KVERN_STATUS_BLOB => c"KVERN_STATUS_BLOB",
        KVERN_STATUS_IO => c"KVERN_STATUS_IO",
        _ => c"KVERN_STATUS_?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_status_of_its_own() {
        let errors = [
            Error::Shape { what: "a", got: 1, relation: "must equal", want: 2 },
            Error::Length { what: "a", got: 1, need: 2 },
            Error::Workspace { got: 1, need: 2 },
            Error::Overflow { what: "a" },
            Error::Option { what: "a", got: "1".into(), allowed: "2" },
            Error::CacheFull { len: 1, adding: 2, capacity: 2 },
            Error::Unsupported { what: "a" },
            Error::Resource { what: "bytes", amount: 1 },
            Error::Blob { what: "magic", got: "a".into(), want: "b".into() },
            Error::Io { what: "open", path: "a".into(), kind: std::io::ErrorKind::NotFound },
        ];
        let mut seen = Vec::new();
        for e in errors {
            let (text, failure) = (e.to_string(), Failure::from(e));
            assert_eq!(message(), text);
            assert!(failure.status < 0 && !seen.contains(&failure.status));
            seen.push(failure.status);
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        report("\u{e4}".repeat(600));
        assert_eq!(message(), "\u{e4}".repeat(511));
        report(format_args!("{}{}", "a".repeat(1023), "b"));
        assert_eq!(message(), "a".repeat(1023));
        report("short");
        assert_eq!(message(), "short");
        clear();
        assert_eq!(message(), "");
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = (-15..=0).map(name).collect();
        assert!(!names.contains(&name(-16)));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 16);
        assert_eq!(name(1), c"KVERN_STATUS_?");
    }
}
