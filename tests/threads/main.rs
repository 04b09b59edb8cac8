//! What threads may do to a result: the floating-point mode they are in, pools that lie or come late, and
//! forks.

#[path = "../support/capi.rs"]
mod capi;
#[cfg(any(unix, windows))]
#[path = "../support/functions/mod.rs"]
mod functions;
#[path = "../support/mod.rs"]
mod support;

#[cfg(all(any(unix, windows), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod every_function;

#[cfg(unix)]
mod forks;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod fp_mode;
mod late;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod mode;
mod pools;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod workload;
