//! The threads that a context owns.
//!
//! A worker is the calling thread or one of these. A thread that has just left a region stays awake for a
//! moment ([`super::patience`]) and enters the next one in well under a microsecond; then it sleeps and uses
//! no CPU. A region calls sleeping threads only as far as there are work items and CPUs for them, and nobody
//! calls all: each that wakes calls two more.
//!
//! The threads are plain threads of the system. A pool that schedules tasks would add nothing but its own
//! wake-ups and allocations: what runs here is one loop.

use super::cpus::cpus;
use super::forks::{forks, watch};
use super::options::MAX_WORKERS;
use super::patience::wait_awake;
use super::region::{Body, Region};
use super::thread::{Bed, Thread};
use crate::buffer::{Shared, vector};
use crate::error::Result;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};

/// Sleepers that a thread calls before it goes to work.
const CALLS: usize = 2;

/// What the workers and the calling threads share.
struct State {
    region: Region,
    /// A bit for each worker that sleeps or is about to.
    asleep: [AtomicU64; MAX_WORKERS / 64],
    /// Sleepers that the open region has not called yet and has use for.
    wanted: AtomicUsize,
    shutdown: AtomicBool,
    /// Where the threads sleep.
    beds: Vec<Bed>,
    #[cfg(test)]
    gate: tests::Gate,
}

impl State {
    /// **Errors**: `Resource`.
    fn new(threads: usize) -> Result<State> {
        Ok(State {
            region: Region::new(),
            asleep: std::array::from_fn(|_| AtomicU64::new(0)),
            wanted: AtomicUsize::new(0),
            shutdown: AtomicBool::new(false),
            beds: Bed::new(threads)?,
            #[cfg(test)]
            gate: tests::Gate::default(),
        })
    }

    /// Workers that sleep.
    fn sleepers(&self) -> usize {
        self.asleep.iter().map(|word| word.load(SeqCst).count_ones() as usize).sum()
    }

    /// Wakes one sleeper, if there is one.
    fn wake_one(&self) {
        for (i, word) in self.asleep.iter().enumerate() {
            let mut bits = word.load(SeqCst);
            while bits != 0 {
                let bit = bits & bits.wrapping_neg();
                bits = word.fetch_and(!bit, SeqCst);
                if bits & bit != 0 {
                    // Whoever takes the bit away is the one who wakes.
                    return self.beds[64 * i + bit.trailing_zeros() as usize].call();
                }
            }
        }
    }

    /// Wakes [`CALLS`] sleepers, or as many as are wanted.
    fn call_some(&self) {
        for _ in 0..CALLS {
            if self.wanted.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
                return;
            }
            self.wake_one();
        }
    }

    /// Waits for a region after that of `seen`, awake and then asleep: its epoch, or `None` at the end.
    ///
    /// No region is missed that wants this worker: the worker sets its bit and then looks at the region's
    /// word, a caller swaps that word and then looks at the bits, and the four operations have one order.
    fn next_region(&self, thread: usize, seen: u32) -> Option<u32> {
        let open = || self.region.open_epoch().filter(|&epoch| epoch != seen);
        let ready = || open().is_some() || self.shutdown.load(SeqCst);
        let (word, bit) = (&self.asleep[thread / 64], 1 << (thread % 64));
        loop {
            while !wait_awake(ready) {
                word.fetch_or(bit, SeqCst);
                if !ready() {
                    self.beds[thread].sleep();
                }
                word.fetch_and(!bit, SeqCst);
            }
            if self.shutdown.load(SeqCst) {
                return None;
            }
            if let Some(epoch) = open() {
                return Some(epoch);
            } // closed in between
        }
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.next_region(thread, seen) {
            seen = epoch;
            #[cfg(test)]
            self.gate.pass();
            // Before this thread is inside: a thread that is preempted in a system call would keep the caller
            // waiting.
            self.call_some();
            if let Some(inside) = self.region.enter(epoch) {
                let number = inside.place;
                inside.work(number);
            }
        }
    }
}

/// The calling thread and `workers - 1` own threads.
pub(super) struct Team {
    shared: Shared<State>,
    workers: usize,
    /// Threads that there are CPUs for, beside the calling one.
    useful: usize,
    /// [`forks`] of the process that has the workers: a fork leaves them behind.
    forks: usize,
    threads: Vec<Thread>,
}

impl Team {
    /// Starts `workers - 1` threads (`workers >= 2`).
    pub fn new(workers: usize) -> Result<Team> {
        // The CPUs that the calling thread may use, by affinity and by quota: workers inherit both.
        Team::on_cpus(workers, cpus())
    }

    fn on_cpus(workers: usize, cpus: usize) -> Result<Team> {
        watch()?;
        let threads = workers - 1;
        let (shared, useful) = (Shared::new(State::new(threads)?)?, threads.min(cpus - 1));
        shared.region.prepare();
        // From here on dropped where a thread cannot be started, so that the others end.
        let mut team = Team { shared, workers, useful, forks: forks(), threads: vector(threads)? };
        for number in 0..threads {
            let work = |state: Shared<State>, number| state.work(number);
            team.threads.push(Thread::start(team.shared.clone(), number, work)?);
        }
        Ok(team)
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Calls `body` with distinct numbers below `workers`, 0 on this thread and others on workers that come
    /// while this thread works, and returns when all calls have returned. Each call has to work until no work
    /// is left.
    ///
    /// This thread works alone when another thread's region runs, where there is no CPU for a worker, and in
    /// a child process that a fork made.
    pub fn run(&self, workers: usize, body: &Body<'_>) {
        if self.useful == 0 || self.forks != forks() {
            return body(0);
        }
        let Some(owner) = self.shared.region.try_own() else { return body(0) };
        let places = workers.min(self.workers) - 1;
        let result = owner.run(places, body, |_| {
            let shared = &*self.shared;
            let awake = self.threads.len() - shared.sleepers().min(self.threads.len());
            shared.wanted.store(places.min(self.useful).saturating_sub(awake), Relaxed);
            shared.call_some();
            body(0);
            shared.wanted.store(0, Relaxed); // no work is left
        });
        drop(owner);
        if let Err(payload) = result {
            resume_unwind(payload);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        if self.forks != forks() {
            // In a forked child nobody waits: the threads are not there, and their numbers may be those of
            // the child's own threads by now.
            return std::mem::forget(threads);
        }
        self.shared.shutdown.store(true, SeqCst);
        self.shared.beds.iter().for_each(Bed::call);
        // Joined, not only told to end: they would still run when a program that destroyed its context
        // unloads the library, and count as lost to a memory checker.
        threads.into_iter().for_each(Thread::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, Condvar, Mutex};

    /// Where a test stops workers that have seen a region and have not entered it.
    #[derive(Default)]
    pub(super) struct Gate {
        shut: Mutex<bool>,
        opened: Condvar,
        stopped: AtomicUsize,
    }

    impl Gate {
        pub fn pass(&self) {
            let mut shut = self.shut.lock().unwrap();
            if *shut {
                self.stopped.fetch_add(1, SeqCst);
            }
            let stopped = *shut;
            while *shut {
                shut = self.opened.wait(shut).unwrap();
            }
            if stopped {
                self.stopped.fetch_sub(1, SeqCst);
            }
        }

        fn close(&self) {
            *self.shut.lock().unwrap() = true;
        }

        /// Returns when all who were stopped are on their way.
        fn open(&self) {
            *self.shut.lock().unwrap() = false;
            self.opened.notify_all();
            until(|| self.stopped.load(SeqCst) == 0);
        }
    }

    /// Waits, without a limit, for what another thread is about to do.
    fn until(ready: impl Fn() -> bool) {
        while !ready() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn workers_that_never_come_hold_no_region_up() {
        for workers in [2, 3, 9] {
            let team = Team::on_cpus(workers, workers).unwrap();
            team.shared.gate.close();
            let on_this_thread = AtomicUsize::new(0);
            for region in 0..1000 {
                // Were a worker waited for, this would never return.
                team.run(workers, &|worker| {
                    assert_eq!(worker, 0, "region {region}");
                    on_this_thread.fetch_add(1, Relaxed);
                });
            }
            assert_eq!(on_this_thread.load(Relaxed), 1000);
            team.shared.gate.open();
            // The late ones find closed regions, and the next region has all of them.
            let came = AtomicUsize::new(0);
            team.run(workers, &|_| {
                came.fetch_add(1, SeqCst);
                until(|| came.load(SeqCst) == workers);
            });
        }
    }

    #[test]
    fn a_worker_that_comes_late_enters_no_closed_region() {
        let team = Team::on_cpus(2, 2).unwrap();
        for _ in 0..100 {
            team.shared.gate.close();
            let calls = Box::new(AtomicUsize::new(0)); // freed when the region has ended
            team.run(2, &|worker| {
                calls.fetch_add(1, SeqCst);
                // The worker has seen that the region is open, and is stopped on its way in.
                assert_eq!(worker, 0);
                until(|| team.shared.gate.stopped.load(SeqCst) == 1);
            });
            assert_eq!(calls.load(SeqCst), 1);
            drop(calls);
            team.shared.gate.open();
        }
    }

    #[test]
    fn a_region_waits_for_those_inside() {
        let team = Team::on_cpus(4, 4).unwrap();
        for round in 0..200 {
            let (inside, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            team.run(4, &|worker| {
                inside.fetch_add(1, SeqCst);
                match worker {
                    0 => until(|| inside.load(SeqCst) == 4),
                    // Longer than the caller waits awake, in some rounds.
                    _ if round % 20 == 0 => std::thread::sleep(std::time::Duration::from_millis(2)),
                    _ => (0..worker * round).for_each(|_| std::hint::spin_loop()),
                }
                done.fetch_add(1, SeqCst);
            });
            assert_eq!(done.load(SeqCst), 4);
        }
    }

    #[test]
    fn numbers_are_distinct_and_below_the_workers_of_the_region() {
        let team = Team::on_cpus(6, 6).unwrap();
        for workers in [2, 3, 6, 200] {
            for _ in 0..200 {
                let seen = AtomicU64::new(0);
                team.run(workers, &|worker| {
                    assert!(worker < workers.min(6));
                    assert_eq!(seen.fetch_or(1 << worker, SeqCst) & 1 << worker, 0);
                });
                assert_eq!(seen.load(SeqCst) & 1, 1);
            }
        }
    }

    #[test]
    fn where_one_cpu_is_free_no_worker_is_called() {
        let team = Team::on_cpus(8, 1).unwrap();
        for _ in 0..100 {
            team.run(8, &|worker| assert_eq!(worker, 0));
        }
        assert_eq!(team.shared.region.open_epoch(), None);
    }

    #[test]
    fn idle_workers_sleep() {
        let team = Team::on_cpus(5, 5).unwrap();
        team.run(5, &|_| ());
        until(|| team.shared.sleepers() == 4);
    }

    /// Many callers, many short regions, panics in between: each job lives on the stack of its region only.
    #[test]
    fn regions_in_a_storm_touch_their_own_stack_only() {
        let rounds = if cfg!(miri) { 20 } else { 3000 };
        let team = Team::on_cpus(4, 4).unwrap();
        std::thread::scope(|s| {
            for caller in 0..3usize {
                let team = &team;
                s.spawn(move || {
                    for round in 0..rounds {
                        let cursor = AtomicUsize::new(0);
                        let items: [AtomicUsize; 12] = std::array::from_fn(|_| AtomicUsize::new(0));
                        let outcome = catch_unwind(AssertUnwindSafe(|| {
                            team.run(4, &|_| {
                                loop {
                                    let item = cursor.fetch_add(1, Relaxed);
                                    let Some(x) = items.get(item) else { return };
                                    x.fetch_add(item + caller + 1, Relaxed);
                                    if round % 50 == 7 && item == 5 {
                                        std::panic::resume_unwind(Box::new(round));
                                    }
                                }
                            });
                        }));
                        if round % 50 == 7 {
                            assert_eq!(*outcome.unwrap_err().downcast::<usize>().unwrap(), round);
                        } else {
                            outcome.unwrap();
                            let want: Vec<_> = (0..12).map(|i| i + caller + 1).collect();
                            assert_eq!(items.map(AtomicUsize::into_inner).to_vec(), want);
                        }
                    }
                });
            }
        });
    }

    /// Counts when the thread's own memory is released: after its last body, before its end.
    struct AtExit(Arc<AtomicUsize>);

    impl Drop for AtExit {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn no_thread_is_left_after_the_drop() {
        use std::cell::RefCell;
        thread_local!(static MARK: RefCell<Option<AtExit>> = const { RefCell::new(None) });
        let (ended, came) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let team = Team::on_cpus(4, 4).unwrap();
        team.run(4, &|worker| {
            if worker > 0 {
                MARK.with(|mark| *mark.borrow_mut() = Some(AtExit(Arc::clone(&ended))));
            }
            came.fetch_add(1, SeqCst);
            until(|| came.load(SeqCst) == 4);
        });
        drop(team);
        assert_eq!(ended.load(SeqCst), 3);
    }
}
