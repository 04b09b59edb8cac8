//! The C ABI: the bits of the safe API, what is refused, memory, sharing and forks.

#[path = "../support/capi.rs"]
mod capi;
#[cfg(unix)]
#[path = "../support/functions/mod.rs"]
mod functions;
#[path = "../support/mod.rs"]
mod support;

/// Each call must be refused with the status and a message with the text.
macro_rules! refuse {
    ($($status:ident $part:literal: $call:expr;)*) => {$(
        // SAFETY: what is not NULL is live; what is wrong about the rest is refused before it is read.
        refused(unsafe { $call }, $status, $part);
    )*};
}

mod all_or_nothing;
mod caches;
mod calls;
mod files;
#[cfg(unix)]
mod fuzz;
mod import;
mod memory;
mod no_context;
mod null;
mod products;
mod refusals;
mod sharing;
mod weights;
mod zero_dimensions;
