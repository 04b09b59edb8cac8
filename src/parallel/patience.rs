//! How long a thread that waits stays awake.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// Looks at the condition between two looks at the clock (docs/TUNING.md has the time of a look).
const LOOKS: usize = 32;

/// How long a thread that waits keeps its CPU: longer than a region and the gap behind it where both are
/// short.
const KEEPS_CPU: Duration = Duration::from_micros(20);

/// How long a thread that waits stays awake: longer than the gap between two products of a decoder step, and
/// as long as three or four wake-ups of a sleeping thread cost.
const AWAKE: Duration = Duration::from_micros(50);

/// Waits for `ready`, awake, for at most [`AWAKE`]; whether it holds.
///
/// After [`KEEPS_CPU`] the thread offers its CPU between two looks: where threads are more than CPUs, the
/// thread that is waited for may need this very one. It does not do so at once, since others may keep the CPU
/// for milliseconds.
pub(super) fn wait_awake(ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            spin_loop();
        }
        let waited = start.get_or_insert_with(Instant::now).elapsed();
        if waited >= AWAKE {
            return ready();
        }
        if waited >= KEEPS_CPU {
            std::thread::yield_now();
        }
    }
}
