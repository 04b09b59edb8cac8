//! Every function of the C ABI while the process's allocator refuses: the first allocation of a call, the
//! second, and so on, alone and with all that follow. The call answers RESOURCE or does without; it leaves
//! nothing behind, and it succeeds when there is memory again. An allocation that cannot fail would end this
//! process.

#[path = "support/functions/mod.rs"]
mod functions;

use functions::arguments::{Arguments, is_inside};
use functions::calls;
use functions::world::World;
use kvern::capi::status::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// The system's allocator, which refuses on demand and counts what is out.
struct Injecting;

/// Allocations inside of the call.
static SEEN: AtomicUsize = AtomicUsize::new(0);
/// The allocation that fails, from 1; 0: none.
static FAILS: AtomicUsize = AtomicUsize::new(0);
/// Whether all later ones fail too.
static AND_LATER: AtomicBool = AtomicBool::new(false);
/// The addresses of blocks that the call took and nobody has freed. Threads that the call started free some.
static TAKEN: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Puts `to` where `from` stands in [`TAKEN`], if it does.
fn replace(from: usize, to: usize) -> bool {
    TAKEN.iter().any(|slot| slot.compare_exchange(from, to, SeqCst, SeqCst).is_ok())
}

fn is_refused() -> bool {
    if !is_inside() {
        return false;
    }
    let (i, fails) = (SEEN.fetch_add(1, SeqCst) + 1, FAILS.load(SeqCst));
    fails > 0 && (i == fails || i > fails && AND_LATER.load(SeqCst))
}

// SAFETY: the system's allocator, or NULL.
unsafe impl GlobalAlloc for Injecting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused() {
            return std::ptr::null_mut();
        }
        // SAFETY: handed on.
        let start = unsafe { System.alloc(layout) };
        if is_inside() {
            replace(0, start.addr());
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        replace(start.addr(), 0);
        // SAFETY: handed on.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if is_refused() {
            return std::ptr::null_mut();
        }
        // SAFETY: handed on.
        let moved = unsafe { System.realloc(start, layout, bytes) };
        if !moved.is_null() {
            replace(start.addr(), moved.addr());
        }
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Injecting = Injecting;

/// Functions that are called without a status, or that take an object back.
fn has_a_status(name: &str) -> bool {
    !name.ends_with("_destroy")
}

/// Functions of files.
fn takes_a_path(name: &str) -> bool {
    ["_save", "_load", "_map", "_open", "_restore"].iter().any(|end| name.ends_with(end))
}

/// What a call with one seed did.
struct Outcome {
    status: i32,
    message: String,
    /// Allocations that it asked for.
    asked: usize,
    /// Blocks that it left behind.
    left: usize,
}

fn run(g: &mut Arguments, call: functions::Call, seed: u64, fails: usize, later: bool) -> Outcome {
    let mut world = World::new("out-of-memory");
    g.start(seed, 0);
    SEEN.store(0, SeqCst);
    FAILS.store(fails, SeqCst);
    AND_LATER.store(later, SeqCst);
    TAKEN.iter().for_each(|slot| slot.store(0, SeqCst));
    // SAFETY: the arguments are what the entries say.
    let status = unsafe { call(&mut world, g) };
    let (asked, left) = (SEEN.load(SeqCst), TAKEN.iter().filter(|slot| slot.load(SeqCst) != 0).count());
    // SAFETY: a C string until the next call.
    let message = unsafe { CStr::from_ptr(kvern_last_error_message()) }.to_str().unwrap().to_owned();
    let what = || format!("seed {seed}, allocation {fails}: status {status}, `{message}`");
    g.check(status != KVERN_STATUS_OK, &what);
    if status != KVERN_STATUS_OK {
        world.check(&what);
        assert_eq!(world.temporary_files(), 0, "{}", what());
    }
    Outcome { status, message, asked, left }
}

/// One test: the counters are the process's.
#[test]
fn every_call_answers_where_there_is_no_memory() {
    let trace = std::env::var_os("KVERN_FUZZ_TRACE").is_some();
    let (mut g, mut injected) = (Arguments::new(1), 0);
    for (name, call) in calls() {
        if takes_a_path(name) && cfg!(not(unix)) {
            continue; // the standard library turns a path into another encoding, in memory that cannot fail
        }
        let mut good = 0;
        for seed in 1..=4 {
            let whole = run(&mut g, call, seed, 0, false);
            if whole.status != KVERN_STATUS_OK {
                assert_ne!(whole.status, KVERN_STATUS_RESOURCE, "{name}: {}", whole.message);
                continue;
            }
            good += 1;
            for fails in 1..=whole.asked {
                for later in [false, true] {
                    if trace {
                        eprintln!(
                            "{name}, seed {seed}: allocation {fails} of {}, later {later}",
                            whole.asked
                        );
                    }
                    let got = run(&mut g, call, seed, fails, later);
                    injected += 1;
                    let what = format!(
                        "{name}, seed {seed}, allocation {fails} of {}: {}",
                        whole.asked, got.message
                    );
                    if has_a_status(name) && got.status != KVERN_STATUS_OK {
                        assert_eq!(got.status, KVERN_STATUS_RESOURCE, "{what}");
                        assert!(!got.message.is_empty(), "{what}");
                        assert_eq!(got.left, 0, "{what}: blocks left behind");
                    }
                }
            }
        }
        assert!(good > 0, "{name} never succeeds");
    }
    assert!(injected > 150, "only {injected} failures were injected");
}
