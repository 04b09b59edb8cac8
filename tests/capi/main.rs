//! The C ABI: the bits of the safe API, what is refused, memory, sharing and forks.

#[path = "../support/capi.rs"]
mod capi;
#[path = "../support/mod.rs"]
mod support;

mod caches;
mod calls;
mod import;
mod memory;
mod null;
mod products;
mod refusals;
mod sharing;
mod weights;
