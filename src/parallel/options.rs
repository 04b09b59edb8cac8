//! Where a context's calls run, as a caller says it.

use std::fmt;
use std::sync::Arc;

/// The most workers of a context: bounds the workspace.
pub const MAX_WORKERS: usize = 256;

/// A caller's own threads.
///
/// What an implementation does wrong costs time and nothing else: a worker that is called twice, at the same
/// time or not, runs once; a number that is no worker does nothing; items that no worker has run are run by
/// the calling thread.
pub trait ParallelFor: Send + Sync {
    /// The most workers of a region, typically the number of threads (1..=256): `max_threads` of the options
    /// in C. Each needs scratch memory. Called once, when a context is made.
    fn workers(&self) -> usize;

    /// Calls `body(i)` for each `i` in `0..workers`, on any threads in any order, and returns when all calls
    /// have returned. Workers that are called late find less work; workers that are never called cost
    /// nothing.
    ///
    /// The calling thread is in kvern's floating-point mode (the default one) while this runs, and each
    /// thread while it is in `body`.
    fn run(&self, workers: usize, body: &(dyn Fn(usize) + Sync));
}

/// The caller's own owner.
impl ParallelFor for Arc<dyn ParallelFor> {
    fn workers(&self) -> usize {
        (**self).workers()
    }

    fn run(&self, workers: usize, body: &(dyn Fn(usize) + Sync)) {
        (**self).run(workers, body);
    }
}

/// Where a context's calls run.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Parallelism {
    /// On the calling thread. The default: no thread is started.
    #[default]
    Serial,
    /// On the calling thread and `n - 1` threads that the context owns (1..=256). No more of them work at a
    /// time than the CPUs that the thread which made the context was allowed. A call waits for threads that
    /// work, never for one that has not come yet. A thread that has found nothing to do for 50 us sleeps and
    /// uses no CPU.
    Threads(usize),
    /// On threads that the caller owns.
    Caller(Arc<dyn ParallelFor>),
}

impl fmt::Debug for Parallelism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parallelism::Serial => f.write_str("Serial"),
            Parallelism::Threads(n) => write!(f, "Threads({n})"),
            Parallelism::Caller(p) => write!(f, "Caller({})", p.workers()),
        }
    }
}
