//! Python: the wrapper with arrays of every kind, its example, and numpy on the drop-in BLAS.

use crate::clib;
use crate::prefix::{all_exist, fresh, prefix, root};
use std::path::PathBuf;
use std::process::Command;

/// A Python that has numpy: Debian's first, whose numpy calls the system's BLAS.
fn python() -> Option<&'static str> {
    let found = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        Command::new(python).args(["-c", "import numpy"]).output().is_ok_and(|o| o.status.success())
    });
    if found.is_none() {
        eprintln!("skipped: no python3 has numpy");
    }
    found
}

fn examples() -> PathBuf {
    root().join("ffi-examples/python")
}

/// Runs a program that must fail and gives what it said.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    said
}

#[test]
fn the_python_example_passes() {
    let (Some(prefix), Some(python)) = (prefix(), python()) else { return };
    let mut example = Command::new(python);
    example.arg("-B").arg(examples().join("example.py"));
    clib::run(example.env("KVERN_LIBRARY", prefix.join("lib/libkvern.so.0")));
}

#[test]
fn the_python_wrapper_takes_arrays_of_every_kind_or_refuses_them() {
    let (Some(prefix), Some(python)) = (prefix(), python()) else { return };
    let mut test = Command::new(python);
    test.arg("-B").arg(root().join("tests/python/test_kvern.py")).env("PYTHONPATH", examples());
    clib::run(test.env("KVERN_LIBRARY", prefix.join("lib/libkvern.so.0")));
}

#[test]
fn numpy_multiplies_on_it_when_it_is_preloaded() {
    let Some(python) = python() else { return };
    let script = || {
        let mut command = Command::new(python);
        command.arg("-B").arg(examples().join("numpy_on_kvern.py"));
        command
    };
    let said = refused(script().env_remove("LD_PRELOAD"));
    assert!(said.contains("numpy does not run on kvern"), "{said}");
    if said.contains("does not call cblas_sgemm") {
        return eprintln!("skipped: the numpy of {python} has a BLAS of its own");
    }
    for threads in ["1", "2"] {
        let mut command = script();
        command.env("LD_PRELOAD", clib::shared_library()).env("KVERN_NUM_THREADS", threads);
        assert!(clib::run(&mut command).contains("numpy multiplies on kvern"));
    }
}

/// Stand-in for the extension of a numpy from PyPI, which calls its own BLAS under other names.
const OWN_BLAS: &str = "void scipy_cblas_sgemm64_(void);\nvoid scipy_cblas_sgemm64_(void) {}\n";
const EXTENSION: &str = "void scipy_cblas_sgemm64_(void);\nvoid PyInit_extension(void);\n\
    void PyInit_extension(void) { scipy_cblas_sgemm64_(); }\n";

/// kvern is preloaded here and defines `cblas_sgemm`, which is not what the extension calls.
#[test]
fn a_numpy_with_a_blas_of_its_own_is_told_from_one_on_kvern() {
    let Some(python) = python() else { return };
    if !all_exist(&["cc"]) {
        return;
    }
    let dir = fresh("own-blas");
    let compile = |name: &str, text: &str| {
        let (source, library) = (dir.join(name).with_extension("c"), dir.join(name));
        std::fs::write(&source, text).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-L").arg(&dir);
        cc.arg(format!("-Wl,-rpath,{}", dir.display()));
        if name == "extension.so" {
            cc.arg("-l:libown.so");
        }
        clib::run(&mut cc);
    };
    compile("libown.so", OWN_BLAS);
    compile("extension.so", EXTENSION);
    let code = "import sys, numpy_on_kvern as n\n\
        print(n.imports(sys.argv[1], 'PyInit_extension'), file=sys.stderr)\n\
        n.expect_kvern(sys.argv[1], 'PyInit_extension', ['cblas_sgemm'])";
    let mut command = Command::new(python);
    command.args(["-B", "-c", code]).arg(dir.join("extension.so")).env("PYTHONPATH", examples());
    let said = refused(command.env("LD_PRELOAD", clib::shared_library()));
    assert!(said.contains("does not call cblas_sgemm, but ['scipy_cblas_sgemm64_']"), "{said}");
    // Its address is found as well: that of its own library, or of the stub that looks it up.
    let stub = said.lines().next().unwrap_or_default();
    assert!(stub.contains("libown.so") || stub.contains("extension.so"), "{said}");
    assert!(!stub.contains("libkvern"), "{said}");
}
