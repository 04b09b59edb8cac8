//! What threads may do to a result: the floating-point mode they are in, pools that lie or come late, and forks.

#[path = "../support/capi.rs"]
mod capi;
#[path = "../support/mod.rs"]
mod support;

#[cfg(unix)]
mod forks;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod fp_mode;
mod late;
mod pools;
