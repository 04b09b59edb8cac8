//! Whether a fork has left the threads of this process behind.

use crate::error::Result;

/// How often this process is the child of a fork since [`watch`] was called first (by it or by a parent):
/// counted by a handler, because asking for the process id would cost each region a system call.
#[cfg(all(unix, not(miri)))]
static FORKS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Has forks counted from now on.
///
/// **Errors**: [`Error::Resource`] where the system has no memory for a handler.
#[cfg(all(unix, not(miri)))]
pub(super) fn watch() -> Result<()> {
    static REFUSED: std::sync::OnceLock<i32> = std::sync::OnceLock::new();
    unsafe extern "C" fn count() {
        FORKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    // SAFETY: the handler is a function of this library that touches one atomic.
    let refused = REFUSED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(count)) });
    match refused {
        0 => Ok(()),
        _ => Err(crate::error::Error::Resource { what: "fork handlers", amount: 1 }),
    }
}

/// The number of forks between this process and the one that called [`watch`] first.
#[cfg(all(unix, not(miri)))]
pub(super) fn forks() -> usize {
    FORKS.load(std::sync::atomic::Ordering::Relaxed)
}

/// There is no fork, or none that could be watched.
#[cfg(any(not(unix), miri))]
pub(super) fn watch() -> Result<()> {
    Ok(())
}

/// There is no fork, or none that could be watched.
#[cfg(any(not(unix), miri))]
pub(super) fn forks() -> usize {
    0
}
