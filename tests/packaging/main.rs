//! The shipped package: header, symbols, layout, the installed prefix, the drop-in BLAS.

#[path = "../support/blas.rs"]
mod blas;
#[path = "../support/clib.rs"]
mod clib;
#[cfg(target_os = "linux")]
#[path = "../support/random.rs"]
mod random;

mod abi;
#[cfg(target_os = "linux")]
mod cblas;
mod claims;
mod documents;
#[cfg(target_os = "linux")]
mod examples;
mod floors;
#[cfg(target_os = "linux")]
mod headers;
mod models;
mod padding;
#[cfg(target_os = "linux")]
mod prefix;
#[cfg(target_os = "linux")]
mod python;
#[cfg(target_os = "linux")]
mod symbols;
