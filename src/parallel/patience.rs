//! How long a thread that waits stays awake.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// Looks at the condition before the first look at the clock (docs/TUNING.md has the time of a look).
const LOOKS: usize = 64;

/// Looks between two yields.
const LOOKS_BETWEEN_YIELDS: usize = 16;

/// How long a thread that waits stays awake: longer than the gap between two products of a decoder step, and
/// as long as three or four wake-ups of a sleeping thread cost.
const AWAKE: Duration = Duration::from_micros(50);

/// Waits for `ready`, awake, for at most [`AWAKE`]; whether it holds.
///
/// After a moment the thread offers its CPU between two looks: where threads are more than CPUs, the thread
/// that is waited for may need this very one.
pub(super) fn wait_awake(ready: impl Fn() -> bool) -> bool {
    for _ in 0..LOOKS {
        if ready() {
            return true;
        }
        spin_loop();
    }
    let start = Instant::now();
    while start.elapsed() < AWAKE {
        for _ in 0..LOOKS_BETWEEN_YIELDS {
            if ready() {
                return true;
            }
            spin_loop();
        }
        std::thread::yield_now();
    }
    ready()
}
