//! The version, from Cargo.toml by way of `build.rs`, as the header's macros are.

use std::ffi::{CStr, c_char};

/// What `KVERN_ABI_VERSION` is in the header.
const ABI_VERSION: u32 = match u32::from_str_radix(env!("KVERN_ABI_VERSION"), 10) {
    Ok(version) => version,
    Err(_) => panic!("build.rs exports a number"),
};

/// What `KVERN_VERSION_STRING` is in the header.
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no NUL"),
};

/// The ABI version of the library that runs. A program that was compiled against another
/// `KVERN_ABI_VERSION` must not go on.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_abi_version() -> u32 {
    ABI_VERSION
}

/// The version of the library that runs, such as `0.1.0`. Static, never NULL.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_version_string() -> *const c_char {
    VERSION.as_ptr()
}
