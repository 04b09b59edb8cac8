//! The examples, built as their readers do: with pkg-config, with CMake, and under the tools that watch
//! memory.

use crate::clib;
use crate::prefix::{all_exist, fresh, pkg_config, prefix, root};
use std::path::{Path, PathBuf};
use std::process::Command;

const C: [&str; 5] = ["01_matmul", "02_int4_linear", "03_decode_loop", "04_own_threads", "05_gguf"];
const CPP: &str = "generate";
/// What the decode loop prints on every machine: `.ci/aarch64` compares with it as well.
const DECODE_LOOP: &str = include_str!("../fixtures/decode_loop.txt");

/// Builds all examples in `dir` and gives the programs.
fn build(prefix: &Path, dir: &Path, flags: &[&str], link: &[&str]) -> Vec<PathBuf> {
    let sources = |folder: &str| root().join("ffi-examples").join(folder);
    let one = |compiler: &str, standard: &str, source: PathBuf| {
        let program = dir.join(source.file_stem().unwrap());
        let mut cc = Command::new(compiler);
        cc.current_dir(dir).args(["-O1", "-g", standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
        let mut said = pkg_config(prefix, link);
        if link.contains(&"--static") {
            // `-lkvern` means the shared library where there are both.
            said.iter_mut().filter(|flag| *flag == "-lkvern").for_each(|flag| *flag = "-l:libkvern.a".into());
        }
        cc.args(flags).arg(source).args(said).args(["-lpthread", "-lm", "-o"]).arg(&program);
        clib::run(&mut cc);
        program
    };
    let mut programs: Vec<PathBuf> =
        C.iter().map(|name| one("cc", "-std=c99", sources("c").join(name).with_extension("c"))).collect();
    if clib::exists("c++") {
        programs.push(one("c++", "-std=c++17", sources("cpp").join(CPP).with_extension("cpp")));
    }
    programs
}

#[test]
fn the_examples_pass_with_pkg_config_and_under_memcheck() {
    let Some(prefix) = prefix() else { return };
    if !all_exist(&["pkg-config"]) {
        return;
    }
    let programs = build(prefix, &fresh("pkg-config"), &[], &["--cflags", "--libs"]);
    let valgrind = clib::exists("valgrind");
    let run = |program: &PathBuf| {
        let library = prefix.join("lib");
        let said = clib::run(Command::new(program).env("LD_LIBRARY_PATH", &library));
        if program.ends_with("03_decode_loop") {
            assert_eq!(said.lines().next(), DECODE_LOOP.lines().next());
        }
        if valgrind {
            let mut memcheck = Command::new("valgrind");
            // Reachable at the end are the globals of threads: one block for the process, not one for a
            // context.
            memcheck.args(["-q", "--error-exitcode=1", "--leak-check=full", "--fair-sched=try"]);
            memcheck.args(["--errors-for-leak-kinds=definite,indirect,possible"]).arg(program);
            clib::run(memcheck.env("LD_LIBRARY_PATH", &library));
        }
    };
    std::thread::scope(|scope| {
        programs.iter().for_each(|program| drop(scope.spawn(|| run(program))));
    });
}

#[test]
fn the_examples_pass_statically_and_under_address_sanitizer() {
    let Some(prefix) = prefix() else { return };
    if !all_exist(&["pkg-config"]) {
        return;
    }
    let dir = fresh("static");
    for program in build(prefix, &dir, &[], &["--static", "--cflags", "--libs"]) {
        clib::run(Command::new(&program).env_remove("LD_LIBRARY_PATH"));
    }
    let probe = dir.join("probe.c");
    std::fs::write(&probe, "int main(void) { return 0; }\n").unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-fsanitize=address,undefined", "-o"]).arg(dir.join("probe")).arg(&probe);
    if !cc.output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: cc has no AddressSanitizer");
    }
    let sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    for program in build(prefix, &fresh("sanitized"), &sanitize, &["--cflags", "--libs"]) {
        clib::run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
    }
}

#[test]
fn the_examples_pass_with_cmake() {
    let Some(prefix) = prefix() else { return };
    if !all_exist(&["cmake", "ctest", "c++"]) {
        return;
    }
    for (name, linking) in [("shared", "OFF"), ("archive", "ON")] {
        let dir = fresh(&format!("cmake-{name}"));
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(root().join("ffi-examples")).arg("-B").arg(&dir);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
        clib::run(configure.arg(format!("-DKVERN_STATIC={linking}")).env_remove("PKG_CONFIG_PATH"));
        clib::run(Command::new("cmake").arg("--build").arg(&dir));
        clib::run(Command::new("ctest").arg("--output-on-failure").arg("--test-dir").arg(&dir));
    }
}
