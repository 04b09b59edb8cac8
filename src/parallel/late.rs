//! Regions for a C caller's threads, which may come when the call is over and even when its context is gone.
//!
//! A C `parallel_for` gets a function and an argument, and nothing keeps it from calling the function later.
//! So the argument points to nothing: it is a ticket, the number of a region of this table and the epoch that
//! the region was opened for. A late call finds another epoch or a closed region and returns; the regions
//! themselves are never freed.
//!
//! The table is the only memory that contexts share. No result depends on it: where all of its regions are
//! taken, a call computes on its own thread.

use super::region::{Body, EPOCH_BITS, MOST_PLACES, Payload, Region};

/// Regions of the process: calls that compute on callers' threads at once.
const REGIONS: usize = 1 << SLOT_BITS;

/// An epoch and a number of a region fit 32 bits.
const SLOT_BITS: u32 = 6;
const _: () = assert!(SLOT_BITS + EPOCH_BITS <= 32, "a ticket is a pointer of a 32-bit machine at least");

static TABLE: [Region; REGIONS] = [const { Region::new() }; REGIONS];

/// Readies the table for [`region`], which allocates nothing.
pub(crate) fn prepare() {
    TABLE.iter().for_each(Region::prepare);
}

/// Runs `call`, which is to have [`enter`] called with the ticket that it is given, and returns when nobody
/// is inside of the region any more. `None` when all regions are taken: then `call` was not run.
///
/// **Errors**: the panic of `call`, or else the first of a thread inside.
pub(crate) fn region(body: &Body<'_>, call: impl FnOnce(usize)) -> Option<Result<(), Payload>> {
    TABLE
        .iter()
        .enumerate()
        .find_map(|(slot, region)| {
            let owner = region.try_own()?;
            Some((slot, owner))
        })
        .map(|(slot, owner)| {
            owner.run(MOST_PLACES, body, |epoch| call(((epoch as usize) << SLOT_BITS) | slot))
        })
}

/// Calls the body of the ticket's region with `index`, if that region is still open.
pub(crate) fn enter(ticket: usize, index: usize) {
    if let Ok(epoch) = u32::try_from(ticket >> SLOT_BITS)
        && let Some(inside) = TABLE[ticket % REGIONS].enter(epoch)
    {
        inside.work(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn calls_after_the_end_do_nothing() {
        let tickets = Mutex::new(Vec::new());
        for round in 0..300 {
            let calls = Box::new(AtomicUsize::new(0)); // freed when the region has ended
            let result = region(&|index| assert!(calls.fetch_add(1, SeqCst) < 3 && index == 7), |ticket| {
                // All tickets of earlier regions, then this one's.
                tickets.lock().unwrap().iter().for_each(|&late| enter(late, 7));
                assert_eq!(calls.load(SeqCst), 0, "round {round}");
                (0..3).for_each(|_| enter(ticket, 7));
                tickets.lock().unwrap().push(ticket);
            });
            result.unwrap().unwrap();
            assert_eq!(calls.load(SeqCst), 3);
            drop(calls);
            tickets.lock().unwrap().iter().for_each(|&late| enter(late, 7));
        }
        for garbage in [0, 1, usize::MAX, usize::MAX / 2, 1 << (usize::BITS * 5 / 8)] {
            enter(garbage, 0);
        }
    }

    #[test]
    fn a_table_that_is_full_refuses() {
        fn nest(depth: usize) -> usize {
            let mut deepest = depth;
            match region(&|_| (), |_| deepest = nest(depth + 1)) {
                Some(result) => result.unwrap(),
                None => return depth,
            }
            deepest
        }
        // Other tests may hold regions meanwhile.
        let first = nest(0);
        assert!((1..=REGIONS).contains(&first), "{first}");
        assert!(nest(0) > 0);
    }

    #[test]
    fn the_panic_of_a_late_thread_reaches_the_owner() {
        std::thread::scope(|s| {
            let started = AtomicUsize::new(0);
            let started = &started;
            let result = region(
                &|_| {
                    started.fetch_add(1, SeqCst);
                    // Still inside when the call has returned.
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    std::panic::panic_any(11);
                },
                |ticket| {
                    s.spawn(move || enter(ticket, 0));
                    while started.load(SeqCst) == 0 {
                        std::thread::yield_now();
                    }
                },
            );
            assert_eq!(*result.unwrap().unwrap_err().downcast::<i32>().unwrap(), 11);
        });
    }
}
