//! Random and hostile arguments for every function of the C ABI, in buffers that end at pages which nobody
//! may touch: no call crashes or panics, none that is refused has changed anything, and none that succeeds
//! has changed an input.
//!
//! `KVERN_FUZZ_CALLS` is the number of calls, `KVERN_FUZZ_SEED` the seed; `KVERN_FUZZ_TRACE=1` names each
//! call before it is made.

use crate::functions::arguments::Arguments;
use crate::functions::calls;
use crate::functions::world::World;
use kvern::capi::status::*;
use std::collections::BTreeSet;
use std::ffi::CStr;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn no_function_is_missing() {
    let listed: BTreeSet<&str> = include_str!("../fixtures/symbols.txt").lines().collect();
    let called: BTreeSet<&str> = calls().iter().map(|(name, _)| *name).collect();
    assert_eq!(called, listed);
    assert_eq!(called.len(), calls().len(), "a function twice");
}

/// Functions that neither clear the message nor return a status.
const WITHOUT_STATUS: [&str; 10] = [
    "kvern_abi_version",
    "kvern_version_string",
    "kvern_last_error_message",
    "kvern_status_name",
    "kvern_isa_is_available",
    "kvern_isa_detect",
    "kvern_isa_name",
    "kvern_isa_count",
    "kvern_isa_at",
    "kvern_isa_status",
];

#[test]
fn hostile_arguments_are_refused_and_change_nothing() {
    let (count, seed) = (number("KVERN_FUZZ_CALLS", 100_000), number("KVERN_FUZZ_SEED", 1));
    let trace = std::env::var_os("KVERN_FUZZ_TRACE").is_some();
    let (calls, mut g) = (calls(), Arguments::new(seed as u64));
    let (mut succeeded, mut refused) = (BTreeSet::new(), 0);
    let mut world = World::new("fuzz");
    world.write_files();
    for i in 0..count {
        if i % 4000 == 3999 {
            world = World::new("fuzz");
            world.write_files();
        }
        g.start(((seed as u64) << 32) + i as u64, 0);
        let (name, call) = calls[g.below(calls.len())];
        let hostile = g.one_of(&[0, 4, 12, 40]);
        g.start(((seed as u64) << 32) + i as u64, hostile);
        world.start();
        if trace {
            eprintln!("{i}: {name}, hostile {hostile}");
        }
        // SAFETY: the arguments are what the entries say.
        let status = unsafe { call(&mut world, &mut g) };
        // SAFETY: a C string until the next call.
        let message = unsafe { CStr::from_ptr(kvern_last_error_message()) }.to_str().unwrap().to_owned();
        let what = || format!("call {i} of seed {seed}, {name}: status {status}, `{message}`");
        assert!((-15..=0).contains(&status), "{}", what());
        assert!(![KVERN_STATUS_PANIC, KVERN_STATUS_POISONED].contains(&status), "{}", what());
        if !WITHOUT_STATUS.contains(&name) && !name.ends_with("_destroy") {
            assert_eq!(message.is_empty(), status == KVERN_STATUS_OK, "{}", what());
        }
        g.check(status != KVERN_STATUS_OK, &what);
        if status == KVERN_STATUS_OK {
            succeeded.insert(name);
        } else {
            refused += 1;
            world.check(&what);
        }
    }
    assert_eq!(world.temporary_files(), 0, "a save left its temporary file");
    if count >= 20_000 {
        let never: Vec<_> =
            calls.iter().map(|(name, _)| *name).filter(|name| !succeeded.contains(name)).collect();
        assert!(never.is_empty(), "never succeeded: {never:?}");
        assert!(refused > count / 10, "only {refused} of {count} calls were refused");
    }
}
