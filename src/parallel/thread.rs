//! A thread that is started, slept on and joined without an allocation that cannot fail.
//!
//! `std::thread` allocates its handle, its name, its result and its closure with `Box` and `Arc`, which end
//! the process where there is no memory, and so does parking a thread that `std` has not started. The threads
//! of unix and of Windows take the one pointer that a worker needs. Elsewhere there is only `std`.

use crate::buffer::{boxed, vector};
use crate::error::{Error, Result};
use std::sync::{Condvar, Mutex, PoisonError};

/// Where one thread sleeps until another one wakes it. A call that comes before the sleep ends it at once.
#[derive(Default)]
pub(super) struct Bed {
    called: Mutex<bool>,
    wake: Condvar,
}

impl Bed {
    /// Beds for `n` threads.
    ///
    /// **Errors**: `Resource`.
    pub fn new(n: usize) -> Result<Vec<Bed>> {
        let mut beds = vector(n)?;
        beds.extend((0..n).map(|_| Bed::default()));
        // On some systems the first use of a lock allocates, and a call that wakes a thread must not.
        beds.iter().for_each(|bed: &Bed| {
            bed.call();
            bed.sleep();
        });
        Ok(beds)
    }

    /// Sleeps until [`Bed::call`].
    pub fn sleep(&self) {
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        while !*called {
            called = self.wake.wait(called).unwrap_or_else(PoisonError::into_inner);
        }
        *called = false;
    }

    /// Wakes the thread that sleeps here, or the next one that would.
    pub fn call(&self) {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }
}

/// What a thread runs: `(state, number)`.
struct Start<T> {
    state: T,
    number: usize,
    run: fn(T, usize),
}

/// A thread that runs. Dropping it leaves it running.
pub(super) struct Thread {
    #[cfg(unix)]
    id: libc::pthread_t,
    #[cfg(windows)]
    handle: windows_sys::Win32::Foundation::HANDLE,
    #[cfg(not(any(unix, windows)))]
    handle: std::thread::JoinHandle<()>,
}

#[cfg(any(unix, windows))]
// SAFETY: an id or a handle may be joined by any thread; that it is a pointer on some systems means nothing.
unsafe impl Send for Thread {}
#[cfg(any(unix, windows))]
// SAFETY: a shared one is not used.
unsafe impl Sync for Thread {}

/// As much as `std` gives its threads; the C library of some systems gives 128 KiB.
#[cfg(any(unix, windows))]
const STACK: usize = 2 << 20;

#[cfg(unix)]
impl Thread {
    /// Has a new thread, named `kvern-` and `number + 1`, call `run(state, number)`, which must not panic.
    ///
    /// **Errors**: `Resource`; the state is dropped then.
    pub fn start<T: Send + 'static>(state: T, number: usize, run: fn(T, usize)) -> Result<Thread> {
        let refused = Error::Resource { what: "threads", amount: 1 };
        let start = Box::into_raw(boxed(Start { state, number, run })?);
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
        let mut id = std::mem::MaybeUninit::<libc::pthread_t>::uninit();
        // SAFETY: the attributes are initialised before they are used, and `start` is the new thread's,
        // unless none was started.
        unsafe {
            if libc::pthread_attr_init(attributes.as_mut_ptr()) != 0 {
                drop(Box::from_raw(start));
                return Err(refused);
            }
            // A system that wants another size keeps its own.
            libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
            let status = libc::pthread_create(id.as_mut_ptr(), attributes.as_ptr(), entry::<T>, start.cast());
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            if status != 0 {
                drop(Box::from_raw(start));
                return Err(refused);
            }
            Ok(Thread { id: id.assume_init() })
        }
    }

    /// Waits for the end of the thread.
    pub fn join(self) {
        // SAFETY: the thread was started joinable, and is joined once.
        unsafe { libc::pthread_join(self.id, std::ptr::null_mut()) };
    }
}

#[cfg(unix)]
extern "C" fn entry<T>(start: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: the box of `Thread::start`, given to this thread alone.
    let Start { state, number, run } = *unsafe { Box::from_raw(start.cast::<Start<T>>()) };
    name(number + 1);
    run(state, number);
    std::ptr::null_mut()
}

/// Names the calling thread, for debuggers.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
fn name(number: usize) {
    use std::io::Write;
    let mut name = [0u8; 16];
    let _ = write!(&mut name[..15], "kvern-{number}"); // an error says that it was cut off
    // SAFETY: a C string of at most 15 bytes.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr().cast()) };
}

#[cfg(all(unix, not(all(any(target_os = "linux", target_os = "android"), not(miri)))))]
fn name(_: usize) {}

#[cfg(windows)]
impl Thread {
    /// Has a new thread, named `kvern-` and `number + 1`, call `run(state, number)`, which must not panic.
    ///
    /// **Errors**: `Resource`; the state is dropped then.
    pub fn start<T: Send + 'static>(state: T, number: usize, run: fn(T, usize)) -> Result<Thread> {
        use windows_sys::Win32::System::Threading::{CreateThread, STACK_SIZE_PARAM_IS_A_RESERVATION};
        let start = Box::into_raw(boxed(Start { state, number, run })?);
        let (none, reserved, no_id) =
            (std::ptr::null(), STACK_SIZE_PARAM_IS_A_RESERVATION, std::ptr::null_mut());
        // SAFETY: `start` is the new thread's, unless none was started.
        unsafe {
            let handle = CreateThread(none, STACK, Some(entry::<T>), start.cast(), reserved, no_id);
            if handle.is_null() {
                drop(Box::from_raw(start));
                return Err(Error::Resource { what: "threads", amount: 1 });
            }
            Ok(Thread { handle })
        }
    }

    /// Waits for the end of the thread.
    pub fn join(self) {
        use windows_sys::Win32::Foundation::CloseHandle;
        use windows_sys::Win32::System::Threading::{INFINITE, WaitForSingleObject};
        // SAFETY: an open handle, which is closed once.
        unsafe {
            WaitForSingleObject(self.handle, INFINITE);
            CloseHandle(self.handle);
        }
    }
}

#[cfg(windows)]
unsafe extern "system" fn entry<T>(start: *mut std::ffi::c_void) -> u32 {
    // SAFETY: the box of `Thread::start`, given to this thread alone.
    let Start { state, number, run } = *unsafe { Box::from_raw(start.cast::<Start<T>>()) };
    name(number + 1);
    run(state, number);
    0
}

/// Names the calling thread, for debuggers.
#[cfg(windows)]
fn name(number: usize) {
    use std::io::Write;
    use windows_sys::Win32::System::Threading::{GetCurrentThread, SetThreadDescription};
    let mut name = [0u8; 16];
    let _ = write!(&mut name[..15], "kvern-{number}"); // an error says that it was cut off
    let wide = name.map(u16::from);
    // SAFETY: 16 characters, the last of them NUL.
    unsafe { SetThreadDescription(GetCurrentThread(), wide.as_ptr()) };
}

#[cfg(not(any(unix, windows)))]
impl Thread {
    /// Has a new thread, named `kvern-` and `number + 1`, call `run(state, number)`, which must not panic.
    ///
    /// **Errors**: `Unsupported` on systems without threads (WebAssembly); `Resource`. What `std` allocates
    /// ends the process where there is no memory.
    pub fn start<T: Send + 'static>(state: T, number: usize, run: fn(T, usize)) -> Result<Thread> {
        let Start { state, number, run } = *boxed(Start { state, number, run })?;
        let named = std::thread::Builder::new().name(format!("kvern-{}", number + 1));
        let started = named.spawn(move || run(state, number));
        let handle = started.map_err(|e| match e.kind() {
            std::io::ErrorKind::Unsupported => Error::Unsupported { what: "a second thread" },
            _ => Error::Resource { what: "threads", amount: 1 },
        })?;
        Ok(Thread { handle })
    }

    /// Waits for the end of the thread.
    pub fn join(self) {
        let _ = self.handle.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn a_thread_runs_once_and_drops_its_state() {
        let sum = Arc::new(AtomicUsize::new(0));
        let run = |sum: Arc<AtomicUsize>, number| {
            sum.fetch_add(number + 1, SeqCst);
        };
        let threads: Vec<_> = (0..9).map(|i| Thread::start(Arc::clone(&sum), i, run).unwrap()).collect();
        threads.into_iter().for_each(Thread::join);
        assert_eq!((sum.load(SeqCst), Arc::strong_count(&sum)), (45, 1));
    }

    #[test]
    fn a_call_before_the_sleep_is_not_lost() {
        let beds = Arc::new(Bed::new(2).unwrap());
        let sleeper = |beds: Arc<Vec<Bed>>, _| {
            for _ in 0..1000 {
                beds[0].sleep();
                beds[1].call();
            }
        };
        let thread = Thread::start(Arc::clone(&beds), 0, sleeper).unwrap();
        for _ in 0..1000 {
            beds[0].call();
            beds[1].sleep();
        }
        thread.join();
    }
}
