//! The built C library and the C compiler, for tests that go through both.

#![allow(dead_code)] // each test binary uses its own part

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Symbols that the feature `cblas` exports beside `kvern_*`.
pub const BLAS_NAMES: [&str; 4] = ["cblas_sgemm", "cblas_sgemv", "sgemm_", "sgemv_"];

/// The directory of `libkvern.a` and the shared library, built with the features `capi` and `cblas`.
///
/// `cargo test` builds them beside the test binaries, since kvern depends on itself with `cblas` for its
/// tests. A later build without that feature writes to the same file names and cargo does not notice, so what
/// lies there is used only if it exports the names; else they are built anew, in a directory of their own.
pub fn library() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let test = std::env::current_exe().unwrap(); // target/<profile>/deps/<test>
        let beside = test.parent().unwrap();
        let exports = std::fs::read(beside.join(shared_name())).unwrap_or_default();
        let exported = |name: &str| {
            let name = format!("\0{name}\0");
            exports.windows(name.len()).any(|bytes| bytes == name.as_bytes())
        };
        if cfg!(target_os = "linux") && exported("kvern_abi_version") && exported("cblas_sgemm") {
            return beside.to_owned();
        }
        build(&test.ancestors().nth(3).unwrap().join("capi-library"))
    })
}

/// Builds the library in a target directory and gives the directory that it then lies in.
fn build(target: &Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--package", "kvern", "--lib", "--features", "cblas", "--offline", "--target-dir"])
        .arg(target)
        // The path below holds for a plain build only.
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug")
}

fn shared_name() -> String {
    format!("{}kvern{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// The shared library.
pub fn shared_library() -> PathBuf {
    library().join(shared_name())
}

/// Whether `program` can be started; says so when it cannot.
pub fn exists(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

/// Runs a command to its end and gives its output; a failure is a failure of the test.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}{err}");
    out.into_owned()
}

/// A fresh directory for the files of one test.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A compiler command with the strictest warnings and the committed header.
pub fn compiler(program: &str, standard: &str) -> Command {
    let mut command = Command::new(program);
    command.args([&format!("-std={standard}"), "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command.arg(format!("-I{}/include", env!("CARGO_MANIFEST_DIR")));
    command
}

/// Compiles a C file, links the static library, and runs the program.
#[track_caller]
pub fn compile_and_run(source: &Path, name: &str) -> String {
    let program = scratch(name).join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let mut cc = compiler("cc", "c99");
    cc.arg(source).arg(library().join("libkvern.a")).args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program);
    run(&mut cc);
    run(&mut Command::new(&program))
}
