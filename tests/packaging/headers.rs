//! The headers alone: every standard, twice in one unit, in two units of one program, and what `kvern.hpp`
//! does with errors in both of its modes.

use crate::clib;
use crate::prefix::{fresh, prefix, root};
use std::process::Command;

const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"];

/// Two units that include `header` twice each, linked into one program and run.
#[track_caller]
fn in_two_units(compiler: &str, flags: &[&str], header: &str, extension: &str) {
    let Some(prefix) = prefix() else { return };
    if !clib::exists(compiler) {
        return;
    }
    let dir = fresh(&format!("{}-{}", header.replace('/', "-"), flags.join("")));
    let twice = format!("#include <{header}>\n#include <{header}>\n");
    let (one, two) = (dir.join(format!("one.{extension}")), dir.join(format!("two.{extension}")));
    std::fs::write(&one, format!("{twice}int two(void);\nint main(void) {{ return two(); }}\n")).unwrap();
    let body = "int two(void);\nint two(void) { return kvern_abi_version() == KVERN_ABI_VERSION ? 0 : 1; }\n";
    std::fs::write(&two, twice + body).unwrap();
    let program = dir.join("program");
    let mut cc = Command::new(compiler);
    cc.args(STRICT).args(flags).arg("-I").arg(prefix.join("include")).args([one, two]);
    clib::run(cc.arg("-L").arg(prefix.join("lib")).args(["-lkvern", "-o"]).arg(&program));
    clib::run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
}

#[test]
fn the_c_header_stands_alone_in_c_and_cpp() {
    for standard in ["-std=c99", "-std=c11", "-std=c17"] {
        in_two_units("cc", &[standard], "kvern.h", "c");
    }
    for standard in ["-std=c++11", "-std=c++17", "-std=c++20"] {
        in_two_units("c++", &[standard], "kvern.h", "cpp");
    }
}

#[test]
fn the_cpp_header_stands_alone_in_all_of_its_modes() {
    in_two_units("c++", &["-std=c++17"], "kvern.hpp", "cpp");
    in_two_units("c++", &["-std=c++17", "-DKVERN_NO_EXCEPTIONS"], "kvern.hpp", "cpp");
    in_two_units("c++", &["-std=c++17", "-fno-exceptions"], "kvern.hpp", "cpp");
    in_two_units("c++", &["-std=c++20"], "kvern.hpp", "cpp");
    for part in [
        "core",
        "context",
        "products",
        "weights",
        "gguf",
        "rope",
        "cache",
        "attention",
        "rows",
        "router",
        "state",
    ] {
        in_two_units("c++", &["-std=c++17"], &format!("kvern/{part}.hpp"), "cpp");
    }
}

/// What has no object of C++ is asked of C directly: versions, names, the machine's tiers. Functions that
/// others say with a parameter more are not called.
#[test]
fn the_cpp_header_reaches_every_function_of_c() {
    let include = root().join("include");
    let mut cpp = String::new();
    for file in std::fs::read_dir(include.join("kvern")).unwrap() {
        cpp += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let said_otherwise = ["kvern_packed_b_pack", "kvern_packed_b_multiply", "kvern_kv_cache_append"];
    let said_otherwise = said_otherwise.into_iter().chain(["kvern_kv_cache_len", "kvern_kv_cache_start"]);
    let of_the_machine = ["kvern_abi_version", "kvern_version_string", "kvern_status_name"];
    let of_the_machine = of_the_machine.into_iter().chain(["kvern_isa_is_available", "kvern_isa_detect"]);
    let left: Vec<&str> = said_otherwise.chain(of_the_machine).chain(["kvern_isa_name"]).collect();
    for name in include_str!("../fixtures/symbols.txt").lines().filter(|name| !left.contains(name)) {
        let called = cpp.match_indices(name).any(|(at, _)| {
            !cpp[at + name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        });
        assert!(called, "{name}");
    }
}

#[test]
fn cpp_errors_are_thrown_or_returned() {
    let Some(prefix) = prefix() else { return };
    if !clib::exists("c++") {
        return;
    }
    let dir = fresh("errors");
    let sources = [
        ("exceptions.cpp", "-DWITH"),
        ("objects.cpp", "-DWITH"),
        ("gguf.cpp", "-DWITH"),
        ("results.cpp", "-fno-exceptions"),
    ];
    for (source, flag) in sources {
        let program = dir.join(source).with_extension("program");
        let mut cc = Command::new("c++");
        cc.args(STRICT).args(["-std=c++17", flag]).arg("-I").arg(prefix.join("include"));
        cc.arg(root().join("tests/c").join(source)).arg(prefix.join("lib/libkvern.a"));
        clib::run(cc.args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&program));
        clib::run(Command::new(&program).current_dir(&dir));
    }
}
