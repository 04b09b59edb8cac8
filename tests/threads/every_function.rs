//! Every function of the C ABI in other floating-point modes of the caller: the same status, the same bytes
//! in every output, the caller's mode afterwards. With all traps on, one operation outside of kvern's own
//! mode ends the process.

use crate::functions::arguments::{Arguments, Around, around};
use crate::functions::calls;
use crate::functions::world::World;
use crate::mode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The mode of calls in the world that is in one.
static MODE: AtomicU64 = AtomicU64::new(mode::DEFAULT);

fn set() {
    mode::set(MODE.load(Relaxed));
}

fn back() {
    let (after, want) = (mode::get(), MODE.load(Relaxed));
    mode::set(mode::DEFAULT);
    assert_eq!(after & mode::MODE, want & mode::MODE, "the caller's mode was changed");
}

/// Two worlds of the same objects see the same calls, one of them in the mode.
fn compare(other: u64, seed: u64, count: usize) {
    MODE.store(other, Relaxed);
    let calls = calls();
    let mut pair = ["default", "other"].map(|name| {
        let mut world = World::new(&format!("mode-{other:x}-{name}"));
        world.write_files();
        (Arguments::new(seed), world)
    });
    for i in 0..count {
        let mut outcomes = Vec::new();
        for (which, (g, world)) in pair.iter_mut().enumerate() {
            let seed = (seed << 32) + i as u64;
            g.start(seed, 0);
            let (name, call) = calls[g.below(calls.len())];
            g.start(seed, 0);
            world.start();
            around((which == 1).then_some(Around { before: set, after: back }));
            // SAFETY: the arguments are what the entries say.
            let status = unsafe { call(world, g) };
            around(None);
            outcomes.push((name, status, g.written()));
        }
        let (name, status, _) = outcomes[0];
        assert_eq!(outcomes[1].1, status, "call {i}, {name}");
        assert!(outcomes[1].2 == outcomes[0].2, "call {i}, {name}, in mode {other:#x}");
    }
}

#[test]
fn no_function_computes_in_the_callers_mode() {
    for (i, other) in [mode::TRAPS, mode::OTHERS[2], mode::OTHERS[5]].into_iter().enumerate() {
        compare(other, i as u64, 20_000);
    }
}
