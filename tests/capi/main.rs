//! The C ABI: the bits of the safe API, what is refused, memory, sharing and forks.

#[path = "../support/capi.rs"]
mod capi;
#[path = "../support/folder.rs"]
mod folder;
#[path = "../support/functions/mod.rs"]
mod functions;
#[path = "../support/mod.rs"]
mod support;

/// The statuses of refusals, under names that tables of calls have room for.
mod statuses {
    pub use kvern::capi::status::{
        KVERN_STATUS_ALIASED as ALIASED, KVERN_STATUS_BLOB as BLOB, KVERN_STATUS_CACHE_FULL as CACHE_FULL,
        KVERN_STATUS_IO as IO, KVERN_STATUS_LENGTH as LENGTH, KVERN_STATUS_MISALIGNED as MISALIGNED,
        KVERN_STATUS_NULL_POINTER as NULL_POINTER, KVERN_STATUS_OPTION as OPTION,
        KVERN_STATUS_OVERFLOW as OVERFLOW, KVERN_STATUS_SHAPE as SHAPE,
        KVERN_STATUS_UNSUPPORTED as UNSUPPORTED, KVERN_STATUS_WORKSPACE as WORKSPACE,
    };
}

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
mod elementwise;
mod experts;
mod files;
mod fuzz;
mod gguf;
mod import;
mod latent;
mod memory;
mod no_context;
mod null;
mod numbers;
mod products;
mod quantized_rows;
mod recurrent;
mod refusals;
mod rope_axes;
mod rows;
mod sharing;
mod tiers;
mod weights;
mod zero_dimensions;
