//! A team of threads that enters a parallel region cheaply and without allocating.
//!
//! rayon owns the threads; inside them runs one resident loop that waits for regions. Entering through
//! rayon's own `broadcast` allocates on every call and wakes sleeping threads through its injector, 5 to
//! 50 us, where a decode step of a small model takes 30 us in all. Here a worker that has just finished a
//! region spins for a moment and picks the next one up in well under a microsecond; after that it sleeps.
//!
//! This is the fifth module with `unsafe`: the job borrows the caller's stack, and its lifetime has to be
//! erased to cross threads. The two obligations are stated at [`Team::run`].

use super::threads::Threads;
use crate::error::{Error, Result};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Rounds of `PAUSE` before a waiting thread sleeps: about 30 us on current x86. Bounded, because on a
/// shared machine the thread that is waited for may not be running at all.
const SPIN_ROUNDS: usize = 2000;

type Body<'a> = dyn Fn(usize) + Sync + 'a;

/// State shared by the caller (lane 0) and the workers (lanes 1..).
struct Shared {
    /// The job of the current generation. Written by the caller while no worker is inside a region.
    job: UnsafeCell<Option<*const Body<'static>>>,
    /// Bumped once for each region, and once more for shutdown.
    generation: AtomicUsize,
    /// Workers that have not finished the current region.
    pending: AtomicUsize,
    panicked: AtomicBool,
    shutdown: AtomicBool,
    sleep: Mutex<()>,
    wake_workers: Condvar,
    wake_caller: Condvar,
}

// SAFETY: `job` is the only field that is not Sync by itself. It is written before `generation` is bumped
// (Release) and read after the bump was seen (Acquire); the next write waits until `pending` is zero.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed inside a region, while the caller keeps the body alive.
unsafe impl Send for Shared {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once `ready` holds: spins first, then sleeps on `condvar`.
    fn wait(&self, condvar: &Condvar, ready: impl Fn() -> bool) {
        for _ in 0..SPIN_ROUNDS {
            if ready() {
                return;
            }
            spin_loop();
        }
        let mut guard = self.lock();
        while !ready() {
            guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts the next generation and wakes whoever sleeps.
    fn announce(&self) {
        self.generation.fetch_add(1, Release);
        drop(self.lock()); // a worker between its last check and its sleep is waited out here
        self.wake_workers.notify_all();
    }

    fn work(&self, lane: usize) {
        let mut seen = 0;
        loop {
            self.wait(&self.wake_workers, || self.generation.load(Acquire) != seen);
            seen += 1;
            if self.shutdown.load(Acquire) {
                return;
            }
            // SAFETY: the generation was bumped after `job` was written, and the caller stays inside
            // `Team::run`, keeping the body alive, until this worker has decremented `pending`.
            let body = unsafe { (*self.job.get()).map(|job| &*job) };
            if let Some(body) = body
                && catch_unwind(AssertUnwindSafe(|| body(lane))).is_err()
            {
                self.panicked.store(true, Release);
            }
            if self.pending.fetch_sub(1, AcqRel) == 1 {
                drop(self.lock());
                self.wake_caller.notify_one();
            }
        }
    }
}

/// The calling thread and `lanes - 1` workers.
pub(crate) struct Team {
    shared: Arc<Shared>,
    lanes: usize,
    /// Held by the caller whose region runs.
    entered: Mutex<()>,
    /// [`forks`] of the process that has the workers: a fork leaves them behind.
    forks: usize,
    /// Owns the threads; they end when `shutdown` is announced.
    _pool: Threads,
}

impl Team {
    /// Starts `lanes - 1` threads (`lanes >= 2`).
    pub(crate) fn new(lanes: usize) -> Result<Team> {
        let refused = |_| Error::Resource { what: "threads", amount: lanes - 1 };
        let pool = Threads::start(lanes - 1).map_err(refused)?;
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            generation: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake_workers: Condvar::new(),
            wake_caller: Condvar::new(),
        });
        let resident = Arc::clone(&shared);
        pool.spawn_broadcast(move |ctx| resident.work(ctx.index() + 1));
        Ok(Team { shared, lanes, entered: Mutex::new(()), forks: forks(), _pool: pool })
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Calls `body(lane)` for each lane once and returns when all have returned. When another thread's
    /// region is running, or in a child process that a fork made, all lanes run here, one after the other: the
    /// results are the same.
    ///
    /// Obligations behind the `unsafe`: the body outlives the region, because this function returns (or
    /// unwinds) only after every worker has left; and `job` is written only while no worker can read it.
    pub(crate) fn run(&self, body: &Body<'_>) {
        if self.forks != forks() {
            return (0..self.lanes).for_each(body);
        }
        let _entered = match self.entered.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(p)) => p.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return (0..self.lanes).for_each(body),
        };
        let shared = &*self.shared;
        let erased: *const Body<'_> = body;
        // SAFETY: no region is running (`entered` is held and `pending` is zero), so nobody reads `job`;
        // the lifetime is erased, and the wait below keeps the promise that it made.
        unsafe { *shared.job.get() = Some(erase(erased)) };
        shared.pending.store(self.lanes - 1, Release);
        shared.announce();
        let own = catch_unwind(AssertUnwindSafe(|| body(0)));
        shared.wait(&shared.wake_caller, || shared.pending.load(Acquire) == 0);
        let worker_panicked = shared.panicked.swap(false, AcqRel);
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        if worker_panicked {
            resume_unwind(Box::new("a kvern worker thread panicked"));
        }
    }
}

/// How often this process is the child of a fork since it (or its parent) made a team: counted by a handler,
/// because asking for the process id would cost each region a system call.
#[cfg(unix)]
fn forks() -> usize {
    static FORKS: AtomicUsize = AtomicUsize::new(0);
    static HANDLER: std::sync::Once = std::sync::Once::new();
    unsafe extern "C" fn count() {
        FORKS.fetch_add(1, Relaxed);
    }
    HANDLER.call_once(|| {
        // SAFETY: the handler is a function of this library that touches one atomic.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(count)) };
        debug_assert_eq!(refused, 0, "no memory for a handler");
    });
    FORKS.load(Relaxed)
}

/// There is no fork.
#[cfg(not(unix))]
fn forks() -> usize {
    0
}

/// Forgets the lifetime of a job pointer (a cast: only the type changes).
fn erase<'a>(job: *const Body<'a>) -> *const Body<'static> {
    // SAFETY: both are the same fat pointer; whoever follows it proves that the body is alive.
    unsafe { std::mem::transmute::<*const Body<'a>, *const Body<'static>>(job) }
}

impl Drop for Team {
    fn drop(&mut self) {
        // In a forked child nobody waits, and a worker may have held the lock when the process was copied.
        if self.forks != forks() {
            return;
        }
        self.shared.shutdown.store(true, Release);
        self.shared.announce();
    }
}
