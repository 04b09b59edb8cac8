//! The C examples compile without a warning against the built library, and pass their own checks.

#[path = "support/clib.rs"]
mod clib;

use std::path::Path;
use std::process::Command;

#[test]
fn decoding_and_prefill_agree_through_the_c_abi() {
    if !clib::exists("cc") {
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi-examples/c/decode_attention.c");
    let said = clib::compile_and_run(&source, "decode_attention");
    assert!(said.contains("agree bit for bit"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_shared_library_is_found_by_its_soname() {
    if !clib::exists("cc") {
        return;
    }
    let dir = clib::scratch("soname");
    let (link, program) = (dir.join("libkvern.so.0"), dir.join("program"));
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(clib::shared_library(), &link).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi-examples/c/decode_attention.c");
    let mut cc = clib::compiler("cc", "c99");
    clib::run(cc.arg(source).arg(&link).args(["-lm", "-o"]).arg(&program));
    // Without the link's directory the loader must miss exactly this name.
    let alone = Command::new(&program).env_remove("LD_LIBRARY_PATH").output().unwrap();
    assert!(!alone.status.success() && String::from_utf8_lossy(&alone.stderr).contains("libkvern.so.0"));
    clib::run(Command::new(&program).env("LD_LIBRARY_PATH", &dir));
}
