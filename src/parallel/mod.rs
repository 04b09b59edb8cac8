//! Who runs the work items of a call: the calling thread, the context's own threads, or the caller's.
//!
//! A call is cut into work items by shape alone, and each output element is computed by one item in one
//! fixed order, so the results do not depend on anything in this module.
//!
//! ```text
//! Executor::for_each -> Team (own threads)   -> Region   the job, who may enter it, who is inside
//!                    -> ParallelFor (Rust)
//!                    -> ParallelFor (C)      -> late     a Region that a late call finds closed
//! ```

mod forks;
#[cfg(feature = "capi")]
pub(crate) mod late;
mod patience;
mod region;
mod team;

use crate::error::{Error, Result, text};
use crate::fp_mode;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use team::Team;

/// The most lanes that an executor uses: bounds the workspace, and the claim bits below.
pub const MAX_LANES: usize = 256;

/// A caller's own threads.
///
/// What an implementation does wrong costs time and nothing else: a lane that is called twice, at the same time or
/// not, runs once, a number that is no lane does nothing, and items that no lane has run are run by the calling thread.
pub trait ParallelFor: Send + Sync {
    /// How many lanes are useful, typically the number of threads. Each lane needs scratch memory. Asked once, when
    /// a context is made.
    fn lanes(&self) -> usize;

    /// Calls `body(i)` for each `i` in `0..lanes`, on any threads in any order, and returns when all calls
    /// have returned. Lanes that are called late find less work; lanes that are never called cost nothing.
    ///
    /// The calling thread is in kvern's floating-point mode (the default one) while this runs, and each thread
    /// while it is in `body`.
    fn run(&self, lanes: usize, body: &(dyn Fn(usize) + Sync));
}

/// Where a context's calls run.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Parallelism {
    /// On the calling thread. The default: no thread is started.
    #[default]
    Serial,
    /// On the calling thread and `n - 1` threads that the context owns (1..=256). No more of them work at a time than
    /// the CPUs that the thread which made the context was allowed. A call waits for threads that work, never for one
    /// that has not come yet. A thread that has found nothing to do for 50 us sleeps and uses no CPU.
    Threads(usize),
    /// On threads that the caller owns.
    Caller(Arc<dyn ParallelFor>),
}

impl fmt::Debug for Parallelism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parallelism::Serial => f.write_str("Serial"),
            Parallelism::Threads(n) => write!(f, "Threads({n})"),
            Parallelism::Caller(p) => write!(f, "Caller({})", p.lanes()),
        }
    }
}

/// Hands out work items to lanes.
pub(crate) struct Executor(Threads);

enum Threads {
    Serial,
    Team(Team),
    /// A caller's, and how many lanes it said it has: a second answer might be larger than the workspace.
    Caller(Arc<dyn ParallelFor>, usize),
}

impl Executor {
    /// The calling thread.
    pub(crate) const SERIAL: Executor = Executor(Threads::Serial);

    /// The calling thread, for calls that are not worth another one.
    pub(crate) fn serial() -> &'static Executor {
        static SERIAL: Executor = Executor::SERIAL;
        &SERIAL
    }

    pub(crate) fn new(parallelism: &Parallelism) -> Result<Executor> {
        match parallelism {
            Parallelism::Serial => Ok(Executor::SERIAL),
            Parallelism::Threads(n) => Executor::threads(*n),
            Parallelism::Caller(p) => Ok(Executor::caller(Arc::clone(p))),
        }
    }

    fn caller(p: Arc<dyn ParallelFor>) -> Executor {
        let lanes = p.lanes().clamp(1, MAX_LANES);
        Executor(Threads::Caller(p, lanes))
    }

    /// The calling thread and `n - 1` own ones. One thread is the same as serial: no threads, no region.
    pub(crate) fn threads(n: usize) -> Result<Executor> {
        match n {
            1 => Ok(Executor::SERIAL),
            2..=MAX_LANES => Ok(Executor(Threads::Team(Team::new(n)?))),
            _ => Err(Error::Option { what: "threads", got: text(n), allowed: "1..=256" }),
        }
    }

    /// Lanes that may run at once: what a workspace has to provide for. Always the same number.
    pub(crate) fn lanes(&self) -> usize {
        match &self.0 {
            Threads::Serial => 1,
            Threads::Team(team) => team.lanes(),
            Threads::Caller(_, lanes) => *lanes,
        }
    }

    /// Calls `body(lane, item)` once for each item in `0..items`; `lane < min(lanes(), items)`, and no two
    /// calls run on one lane at a time. Returns when all have returned. Allocates nothing.
    ///
    /// Other threads run `body` in the default floating-point mode; the calling thread has to be in it already.
    pub(crate) fn for_each(&self, items: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let lanes = self.lanes().min(items);
        if lanes <= 1 {
            return (0..items).for_each(|item| body(0, item));
        }
        let cursor = Cursor { next: AtomicUsize::new(0), items };
        match &self.0 {
            Threads::Serial => cursor.drain(0, body),
            Threads::Team(team) => team.run(lanes, &|lane| cursor.drain(lane, body)),
            Threads::Caller(p, _) => {
                // A foreign `run` is not trusted with memory safety: each lane is entered once at most,
                // and what it leaves undone is done here.
                let claimed: [AtomicU64; MAX_LANES / 64] = std::array::from_fn(|_| AtomicU64::new(0));
                p.run(lanes, &|lane| {
                    let bit = 1u64 << (lane % 64);
                    if lane < lanes && claimed[lane / 64].fetch_or(bit, Relaxed) & bit == 0 {
                        let _mode = fp_mode::default_mode();
                        cursor.drain(lane, body);
                    }
                });
                fp_mode::restore_default();
                cursor.drain(0, body);
            }
        }
    }
}

/// The atomic cursor that hands out items.
struct Cursor {
    next: AtomicUsize,
    items: usize,
}

impl Cursor {
    fn drain(&self, lane: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        loop {
            // Cannot wrap: each lane overshoots `items` by one at most.
            let item = self.next.fetch_add(1, Relaxed);
            if item >= self.items {
                return;
            }
            body(lane, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(executor: &Executor, items: usize) -> Vec<usize> {
        let seen: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
        executor.for_each(items, &|lane, item| {
            assert!(lane < executor.lanes());
            seen[item].fetch_add(1, Relaxed);
        });
        seen.into_iter().map(AtomicUsize::into_inner).collect()
    }

    /// A caller that runs some lanes twice and others never.
    struct Odd;
    impl ParallelFor for Odd {
        fn lanes(&self) -> usize {
            5
        }
        fn run(&self, lanes: usize, body: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|s| {
                for lane in [0, 0, 3, 3, lanes + 9] {
                    s.spawn(move || body(lane));
                }
            });
        }
    }

    /// A caller that does nothing at all.
    struct Idle;
    impl ParallelFor for Idle {
        fn lanes(&self) -> usize {
            2
        }
        fn run(&self, _lanes: usize, _body: &(dyn Fn(usize) + Sync)) {}
    }

    #[test]
    fn each_item_runs_once_on_any_executor() {
        let callers: [Arc<dyn ParallelFor>; 2] = [Arc::new(Odd), Arc::new(Idle)];
        let mut executors: Vec<Executor> =
            [1, 2, 3, 8].into_iter().map(|n| Executor::threads(n).unwrap()).collect();
        executors.extend(callers.map(Executor::caller));
        for executor in &executors {
            for items in [0, 1, 2, 7, 100, 1000] {
                assert_eq!(count(executor, items), vec![1; items]);
            }
        }
    }

    #[test]
    fn thread_counts_out_of_range_are_refused() {
        for n in [0, 257, usize::MAX] {
            let e = Executor::threads(n).err().unwrap();
            assert_eq!(e.to_string(), format!("threads = {n} must be 1..=256"));
        }
        assert_eq!(format!("{:?}", Parallelism::Threads(3)), "Threads(3)");
        assert_eq!(format!("{:?}", Parallelism::default()), "Serial");
        assert_eq!(format!("{:?}", Parallelism::Caller(Arc::new(Odd))), "Caller(5)");
    }

    #[test]
    fn a_context_shared_by_threads_stays_correct() {
        let executor = Executor::threads(2).unwrap();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..50).for_each(|_| assert_eq!(count(&executor, 20), vec![1; 20])));
            }
        });
    }

    #[test]
    fn a_panic_in_a_lane_reaches_the_caller_and_leaves_the_team_usable() {
        let executor = Executor::threads(2).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            executor.for_each(64, &|_, item| assert_ne!(item, 13));
        }));
        assert!(result.is_err());
        assert_eq!(count(&executor, 9), vec![1; 9]);
    }
}
