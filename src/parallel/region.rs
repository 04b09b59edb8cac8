//! A parallel region: a job on the caller's stack that other threads enter while it is open.
//!
//! A region has an owner, the calling thread. The owner opens it, works, closes it when no work is left, and
//! waits for those who are inside, not for those who were called: a thread that comes late finds the region
//! closed and has cost nothing. One word says all that decides this:
//!
//! ```text
//! state:  epoch | PANICKED | WAITING | OPEN | places left | threads inside
//! bits:   35..61     34         33      32       16..32         0..16
//! ```
//!
//! # Why a thread inside may follow the job
//! The job is a borrow whose lifetime is erased. Four facts keep it alive and unchanged while it is followed:
//! 1. A thread enters by one compare-and-exchange of the whole word that demands OPEN and adds one to
//!    "inside". It leaves by one subtraction, after its last use of the job.
//! 2. The owner takes OPEN away by one atomic operation. All operations on one word have one order, so each
//!    entry comes before it and is counted, or comes after it and fails.
//! 3. [`Owner::run`] ends, by return or by unwinding, only after it has closed the region and then read
//!    "inside = 0". The borrow outlives `run`, so it outlives every entry.
//! 4. Only the owner writes the job, while the region is closed and nobody is inside: the swap that opens
//!    (release) happens before each entry (acquire), and each leave (release) happens before the read of
//!    "inside = 0" (acquire), through the release sequence of the word, which consists of read-modify-writes
//!    alone.
//!
//! An epoch that wraps around is no danger: it tells a thread whether the open region is the one that it was
//! called for, and a thread that enters another one is counted all the same.

use super::patience::wait_awake;
use crate::fp_mode;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What each thread calls once, with its number.
pub(super) type Body<'a> = dyn Fn(usize) + Sync + 'a;

/// The message of a panic.
pub(super) type Payload = Box<dyn Any + Send>;

const INSIDE: u64 = 0xffff;
const PLACE: u64 = 1 << 16;
const PLACES: u64 = 0xffff << 16;
const OPEN: u64 = 1 << 32;
/// The owner sleeps until nobody is inside.
const WAITING: u64 = 1 << 33;
const PANICKED: u64 = 1 << 34;
const EPOCH_SHIFT: u32 = 35;

/// Bits of an epoch: as many as a 32-bit ticket has room for beside a number below 64.
pub(super) const EPOCH_BITS: u32 = 26;

/// The most threads that may enter a region.
pub(super) const MOST_PLACES: usize = u16::MAX as usize;

fn epoch_of(state: u64) -> u32 {
    (state >> EPOCH_SHIFT) as u32 & ((1 << EPOCH_BITS) - 1)
}

/// One region at a time, again and again. Aligned so that two regions share no line and no pair of lines.
#[repr(align(128))]
pub(super) struct Region {
    state: AtomicU64,
    owned: AtomicBool,
    /// The job of the open region.
    job: UnsafeCell<Option<*const Body<'static>>>,
    /// The first panic of a thread inside.
    panic: Mutex<Option<Payload>>,
    sleep: Mutex<()>,
    emptied: Condvar,
}

// SAFETY: `job` is the only field that is not Sync by itself: written by the one owner while nobody is
// inside, read by threads inside, as the module's comment shows.
unsafe impl Sync for Region {}
// SAFETY: the pointer in `job` is only followed inside of an open region, whose owner keeps the body alive.
unsafe impl Send for Region {}

impl Region {
    pub const fn new() -> Region {
        Region {
            state: AtomicU64::new(0),
            owned: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            sleep: Mutex::new(()),
            emptied: Condvar::new(),
        }
    }

    /// Uses each lock once: on some systems the first use of a lock allocates, and [`Owner::run`] must not.
    pub fn prepare(&self) {
        drop(self.lock());
        drop(self.panic.lock());
        self.emptied.notify_one();
    }

    /// The right to open the region, unless another thread has it.
    pub fn try_own(&self) -> Option<Owner<'_>> {
        let free = self.owned.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        free.then(|| Owner { region: self })
    }

    /// The epoch of the region if it is open and has a place left. In the one order of all `SeqCst`
    /// operations.
    pub fn open_epoch(&self) -> Option<u32> {
        let state = self.state.load(SeqCst);
        (state & OPEN != 0 && state & PLACES != 0).then_some(epoch_of(state))
    }

    /// Enters the region of `epoch`: `None` when it is closed or has no place left.
    pub fn enter(&self, epoch: u32) -> Option<Inside<'_>> {
        let mut state = self.state.load(Relaxed);
        loop {
            if state & OPEN == 0 || state & PLACES == 0 || epoch_of(state) != epoch {
                return None;
            }
            match self.state.compare_exchange_weak(state, state - PLACE + 1, Acquire, Relaxed) {
                Ok(_) => return Some(Inside { region: self, place: ((state & PLACES) / PLACE) as usize }),
                Err(seen) => state = seen,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the region and returns when nobody is inside: the state then.
    fn close(&self) -> u64 {
        let state = self.state.fetch_and(!OPEN, AcqRel);
        if state & INSIDE == 0 {
            return state;
        }
        let empty = || self.state.load(Acquire) & INSIDE == 0;
        if !wait_awake(empty) {
            let mut guard = self.lock();
            // Whoever leaves after this sees WAITING; for those who left before, `empty` is asked after it.
            self.state.fetch_or(WAITING, Relaxed);
            while !empty() {
                guard = self.emptied.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.state.load(Acquire)
    }
}

/// The one thread that may open a region.
pub(super) struct Owner<'a> {
    region: &'a Region,
}

impl Owner<'_> {
    /// Opens the region with `places` for other threads, each of which calls `body` with a number; runs
    /// `meanwhile`, which is told the epoch; closes the region, and returns when nobody is inside. Allocates
    /// nothing.
    ///
    /// **Errors**: the panic of `meanwhile`, or else the first of a thread inside.
    pub fn run(&self, places: usize, body: &Body<'_>, meanwhile: impl FnOnce(u32)) -> Result<(), Payload> {
        let region = self.region;
        let epoch = epoch_of(region.state.load(Relaxed)).wrapping_add(1) & ((1 << EPOCH_BITS) - 1);
        let erased: *const Body<'_> = body;
        // SAFETY: this thread owns the region, which is closed and empty, so nobody reads `job`. The lifetime
        // is erased, and the close below keeps the promise that it made.
        unsafe { *region.job.get() = Some(erase(erased)) };
        let places = places.min(MOST_PLACES) as u64 * PLACE;
        region.state.swap((u64::from(epoch) << EPOCH_SHIFT) | OPEN | places, SeqCst);
        let own = catch_unwind(AssertUnwindSafe(|| meanwhile(epoch)));
        let state = region.close();
        own?;
        if state & PANICKED != 0 {
            let mut panic = region.panic.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(panic.take().unwrap_or_else(|| Box::new("a kvern worker thread panicked")));
        }
        Ok(())
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        self.region.owned.store(false, Release);
    }
}

/// A thread inside of a region.
pub(super) struct Inside<'a> {
    region: &'a Region,
    /// `1..=places`, another one for each thread that entered.
    pub place: usize,
}

impl Inside<'_> {
    /// Calls the region's body with `worker`, in kvern's floating-point mode, and leaves. A panic stays in
    /// the region.
    pub fn work(self, worker: usize) {
        // SAFETY: this thread is inside, so `job` was written before it entered and is not written until it
        // leaves.
        let job = unsafe { *self.region.job.get() };
        let Some(job) = job else { return };
        // SAFETY: the owner keeps the body alive until nobody is inside.
        let body = unsafe { &*job };
        let result = catch_unwind(AssertUnwindSafe(|| {
            let _mode = fp_mode::default_mode();
            body(worker);
        }));
        if let Err(payload) = result {
            let mut panic = self.region.panic.lock().unwrap_or_else(PoisonError::into_inner);
            match &*panic {
                // The payload of a foreign panic could panic again when it is dropped.
                Some(_) => std::mem::forget(payload),
                None => *panic = Some(payload),
            }
            self.region.state.fetch_or(PANICKED, Relaxed);
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let state = self.region.state.fetch_sub(1, Release);
        if state & WAITING != 0 && state & INSIDE == 1 {
            drop(self.region.lock()); // an owner between its last look and its sleep is waited out here
            self.region.emptied.notify_one();
        }
    }
}

/// Forgets the lifetime of a job (a cast: only the type changes).
fn erase<'a>(job: *const Body<'a>) -> *const Body<'static> {
    // SAFETY: both are the same fat pointer; whoever follows it proves that the body is alive.
    unsafe { std::mem::transmute::<*const Body<'a>, *const Body<'static>>(job) }
}
