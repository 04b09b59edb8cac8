//! Hands out the work items of a call, one by one, to whoever has time.

use super::options::{MAX_WORKERS, ParallelFor, Parallelism};
use super::team::Team;
use crate::buffer::boxed;
use crate::error::{Error, Result, text};
use crate::fp_mode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Hands out work items to workers: the calling thread is one of them, number 0 where a context has its own
/// threads.
pub(crate) struct Executor(Threads);

enum Threads {
    Serial,
    Team(Team),
    /// A caller's, and how many workers it said it has: a second answer might be larger than the workspace.
    Caller(Box<dyn ParallelFor>, usize),
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
            Parallelism::Caller(p) => Ok(Executor::caller(boxed(Arc::clone(p))?)),
        }
    }

    /// A caller's threads.
    pub(crate) fn caller(p: Box<dyn ParallelFor>) -> Executor {
        let workers = p.workers().clamp(1, MAX_WORKERS);
        Executor(Threads::Caller(p, workers))
    }

    /// The calling thread and `n - 1` own ones. One thread is the same as serial: no threads, no region.
    pub(crate) fn threads(n: usize) -> Result<Executor> {
        match n {
            1 => Ok(Executor::SERIAL),
            2..=MAX_WORKERS => Ok(Executor(Threads::Team(Team::new(n)?))),
            _ => Err(Error::Option { what: "threads", got: text(n), allowed: "1..=256" }),
        }
    }

    /// Workers that may run at once: what a workspace has to provide for. Always the same number.
    pub(crate) fn workers(&self) -> usize {
        match &self.0 {
            Threads::Serial => 1,
            Threads::Team(team) => team.workers(),
            Threads::Caller(_, workers) => *workers,
        }
    }

    /// Calls `body(worker, item)` once for each item in `0..items`; `worker < min(workers(), items)`, and no
    /// two calls run on one worker at a time. Returns when all have returned. Allocates nothing.
    ///
    /// Other threads run `body` in the default floating-point mode; the calling thread has to be in it
    /// already.
    pub(crate) fn for_each(&self, items: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let workers = self.workers().min(items);
        if workers <= 1 {
            return (0..items).for_each(|item| body(0, item));
        }
        let cursor = Cursor { next: AtomicUsize::new(0), items };
        match &self.0 {
            Threads::Serial => cursor.drain(0, body),
            Threads::Team(team) => team.run(workers, &|worker| cursor.drain(worker, body)),
            Threads::Caller(p, _) => {
                // A foreign `run` is not trusted with memory safety: each worker is entered once at most,
                // and what it leaves undone is done here.
                let claimed: [AtomicU64; MAX_WORKERS / 64] = std::array::from_fn(|_| AtomicU64::new(0));
                p.run(workers, &|worker| {
                    let bit = 1u64 << (worker % 64);
                    if worker < workers && claimed[worker / 64].fetch_or(bit, Relaxed) & bit == 0 {
                        let _mode = fp_mode::default_mode();
                        cursor.drain(worker, body);
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
    fn drain(&self, worker: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        loop {
            // Cannot wrap: each worker overshoots `items` by one at most.
            let item = self.next.fetch_add(1, Relaxed);
            if item >= self.items {
                return;
            }
            body(worker, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(executor: &Executor, items: usize) -> Vec<usize> {
        let seen: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
        executor.for_each(items, &|worker, item| {
            assert!(worker < executor.workers());
            seen[item].fetch_add(1, Relaxed);
        });
        seen.into_iter().map(AtomicUsize::into_inner).collect()
    }

    /// A caller that runs some workers twice and others never.
    struct Odd;
    impl ParallelFor for Odd {
        fn workers(&self) -> usize {
            5
        }
        fn run(&self, workers: usize, body: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|s| {
                for worker in [0, 0, 3, 3, workers + 9] {
                    s.spawn(move || body(worker));
                }
            });
        }
    }

    /// A caller that does nothing at all.
    struct Idle;
    impl ParallelFor for Idle {
        fn workers(&self) -> usize {
            2
        }
        fn run(&self, _workers: usize, _body: &(dyn Fn(usize) + Sync)) {}
    }

    #[test]
    fn each_item_runs_once_on_any_executor() {
        let callers: [Box<dyn ParallelFor>; 2] = [Box::new(Odd), Box::new(Idle)];
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
    fn a_panic_in_a_worker_reaches_the_caller_and_leaves_the_team_usable() {
        let executor = Executor::threads(2).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            executor.for_each(64, &|_, item| assert_ne!(item, 13));
        }));
        assert!(result.is_err());
        assert_eq!(count(&executor, 9), vec![1; 9]);
    }
}
