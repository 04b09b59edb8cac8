//! The caller's own threads: regions on a `kvern_parallel_for`.

use crate::ParallelFor;
use crate::parallel::late;
use std::ffi::c_void;
use std::panic::resume_unwind;

/// One worker of a parallel region, to be called as `body(arg, worker)`.
pub type kvern_worker_body = unsafe extern "C" fn(arg: *mut c_void, worker: usize);

/// The caller's own threads: calls `body(arg, worker)` for each worker in 0..workers, on any threads in any
/// order, and returns when all of these calls have returned. Must not throw; may be called from several
/// threads at once when the context is. The calling thread is in the default floating-point mode meanwhile.
///
/// What it does wrong costs time, never memory or a result. A worker that is called late finds less work, and
/// none when the call of kvern is over, or its context destroyed: `arg` is a number that stands for the
/// region, no memory. A second call of a worker does nothing, nor does a number that is no worker. The
/// calling thread does the work of workers that are not called, and all work where 64 such regions of the
/// process are being computed already. The call of kvern returns when no thread is inside of `body` any more.
/// `body` itself is there as long as the library is loaded.
pub type kvern_parallel_for = Option<
    unsafe extern "C" fn(user: *mut c_void, workers: usize, body: kvern_worker_body, arg: *mut c_void),
>;

type Run = unsafe extern "C" fn(*mut c_void, usize, kvern_worker_body, *mut c_void);

/// A C caller's `parallel_for`.
pub(super) struct Caller {
    run: Run,
    user: *mut c_void,
    workers: usize,
}

impl Caller {
    pub fn new(run: Run, user: *mut c_void, workers: usize) -> Caller {
        late::prepare();
        Caller { run, user, workers }
    }
}

// SAFETY: the header makes it the caller's duty that `run` and `user` may be used from any thread.
unsafe impl Send for Caller {}
// SAFETY: as above, at once.
unsafe impl Sync for Caller {}

/// Runs one worker, if the region of the ticket `arg` is still open.
unsafe extern "C" fn run_worker(arg: *mut c_void, worker: usize) {
    late::enter(arg.addr(), worker);
}

impl ParallelFor for Caller {
    fn workers(&self) -> usize {
        self.workers
    }

    fn run(&self, workers: usize, body: &(dyn Fn(usize) + Sync)) {
        let result = late::region(body, |ticket| {
            // SAFETY: `run` is the caller's function with the caller's `user`; the ticket is no memory.
            unsafe { (self.run)(self.user, workers, run_worker, std::ptr::without_provenance_mut(ticket)) };
        });
        if let Some(Err(payload)) = result {
            resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    unsafe extern "C" fn in_turn(_: *mut c_void, workers: usize, body: kvern_worker_body, arg: *mut c_void) {
        // SAFETY: `body` is called with its `arg` during the region.
        (0..workers).for_each(|worker| unsafe { body(arg, worker) });
    }

    #[test]
    fn a_panic_of_a_worker_passes_the_callers_frames_as_a_value() {
        let caller = Caller::new(in_turn, std::ptr::null_mut(), 3);
        let result = catch_unwind(AssertUnwindSafe(|| {
            caller.run(3, &|worker| assert_ne!(worker, 1, "worker one"));
        }));
        let text = super::super::panic_text(&*result.unwrap_err()).to_owned();
        assert!(text.contains("worker one"), "{text}");
        caller.run(3, &|worker| assert!(worker < 3));
    }
}
