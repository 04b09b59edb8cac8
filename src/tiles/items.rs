//! Work items, and scratch memory for the workers that run them.

use crate::buffer::Arena;
use crate::parallel::Executor;

/// Scratch memory, of which each worker forms its own part.
struct Scratch {
    start: *mut u8, // (workers, worker_bytes)
    worker_bytes: usize,
}

// SAFETY: the pointer is only used to form parts, and whoever forms one promises that no other one overlaps
// it.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// The part of one worker.
    ///
    /// # Safety
    /// - `worker` has a part in the memory, which is live and reached by nothing else while the arena lives.
    unsafe fn part(&self, worker: usize) -> Arena<'_> {
        // SAFETY: handed on to the caller.
        let part = unsafe {
            std::slice::from_raw_parts_mut(self.start.add(worker * self.worker_bytes), self.worker_bytes)
        };
        Arena::over(part)
    }
}

/// Runs `body` once for each item in `0..items` on the executor's workers, with scratch memory that is the
/// worker's own until the body returns: `scratch` is cut into one part of `worker_bytes` for each worker, and
/// the parts are reused from item to item.
#[inline(always)]
pub(super) fn run_items(
    executor: &Executor,
    items: usize,
    scratch: &mut [u8],
    worker_bytes: usize,
    body: impl Fn(Arena<'_>, usize) + Sync,
) {
    let workers = executor.workers().min(items);
    assert!(scratch.len() >= workers * worker_bytes, "a workspace query forgot the workers");
    let scratch = Scratch { start: scratch.as_mut_ptr(), worker_bytes };
    executor.for_each(items, &|worker, item| {
        // SAFETY: worker < workers, no two bodies run on one worker at a time, and the memory is borrowed for
        // the whole call.
        body(unsafe { scratch.part(worker) }, item);
    });
}
