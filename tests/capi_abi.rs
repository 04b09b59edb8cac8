//! What compiled callers rely on: the header, the layout of its structs, the symbols, the version.

#[path = "support/clib.rs"]
mod clib;

use kvern::capi::attention::{kvern_attention_options, kvern_kv_cache_options};
use kvern::capi::context::kvern_context_options;
use kvern::capi::matmul::kvern_epilogue;
use kvern::capi::version::{kvern_abi_version, kvern_version_string};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/kvern.h")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let generated = std::fs::read_to_string(env!("KVERN_HEADER")).unwrap();
    if std::env::var_os("KVERN_BLESS").is_some() {
        std::fs::write(committed(), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap();
    if let Some((i, (a, b))) = committed.lines().zip(generated.lines()).enumerate().find(|(_, (a, b))| a != b)
    {
        panic!("line {}: committed `{a}`, generated `{b}`; KVERN_BLESS=1 rewrites it", i + 1);
    }
    assert_eq!(committed.len(), generated.len(), "one header goes on; KVERN_BLESS=1 rewrites it");
}

/// The header alone, twice, and every initialiser: a forgotten field is a warning, and so an error.
#[test]
fn the_header_compiles_alone_as_c99_and_as_cpp() {
    let text = "#include \"kvern.h\"\n#include \"kvern.h\"\n\
        extern kvern_context_options a; kvern_context_options a = KVERN_CONTEXT_OPTIONS_INIT;\n\
        extern kvern_epilogue b; kvern_epilogue b = KVERN_EPILOGUE_INIT;\n\
        extern kvern_kv_cache_options c; kvern_kv_cache_options c = KVERN_KV_CACHE_OPTIONS_INIT;\n\
        extern kvern_attention_options d; kvern_attention_options d = KVERN_ATTENTION_OPTIONS_INIT;\n";
    for (compiler, standard, name) in [
        ("cc", "c99", "alone.c"),
        ("cc", "c11", "alone11.c"),
        ("c++", "c++11", "alone.cpp"),
        ("c++", "c++17", "alone17.cpp"),
    ] {
        if clib::exists(compiler) {
            let source = clib::scratch("alone").join(name);
            std::fs::write(&source, text).unwrap();
            let mut command = clib::compiler(compiler, standard);
            clib::run(command.args(["-Wshadow", "-fsyntax-only"]).arg(&source));
        }
    }
}

fn layout() -> String {
    let mut text = String::new();
    macro_rules! layout {
        ($type:ident: $($field:ident),*) => {
            text += &format!("{} {}\n", stringify!($type), size_of::<$type>());
            $(text += &format!(
                "{}.{} {}\n", stringify!($type), stringify!($field), offset_of!($type, $field)
            );)*
        };
    }
    layout!(kvern_context_options: threads, isa_cap, lanes, parallel_for, user);
    layout!(kvern_epilogue: alpha, beta, bias, activation, flags);
    layout!(kvern_kv_cache_options: kv_heads, head_dim, capacity, window);
    layout!(kvern_attention_options: heads, scale, non_causal);
    text
}

#[test]
fn c_sees_the_layout_and_the_version_of_the_library() {
    if clib::exists("cc") {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/layout.c");
        assert_eq!(clib::compile_and_run(&source, "layout"), layout());
    }
}

/// Sizes and offsets of ABI version 0: fields are only ever appended.
#[cfg(target_pointer_width = "64")]
#[test]
fn the_layout_of_this_abi_version_is_frozen() {
    let numbers: Vec<usize> =
        layout().lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, [40, 8, 12, 16, 24, 32, 32, 8, 12, 16, 24, 28, 40, 8, 16, 24, 32, 24, 8, 16, 20]);
}

#[test]
fn the_version_is_the_packages() {
    // SAFETY: a static C string.
    let version = unsafe { CStr::from_ptr(kvern_version_string()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    let header = std::fs::read_to_string(committed()).unwrap();
    assert!(header.contains(&format!("#define KVERN_ABI_VERSION {}\n", kvern_abi_version())));
}

/// Names that the header declares as functions.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(committed()).unwrap();
    let code =
        header.lines().filter(|line| !line.starts_with([' ', '/', '#']) && !line.starts_with("typedef"));
    let name = |line: &str| {
        let (before, _) = line.split_once('(')?;
        before.rsplit([' ', '*']).next().map(str::to_owned)
    };
    code.filter_map(name).collect()
}

#[cfg(unix)]
#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    if !clib::exists("nm") {
        return;
    }
    let library = clib::shared_library();
    let flags: &[&str] = if cfg!(target_os = "macos") { &["-gU"] } else { &["-D", "--defined-only"] };
    let symbols = clib::run(Command::new("nm").args(flags).arg(&library));
    let mut exported: BTreeSet<String> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| if cfg!(target_os = "macos") { &name[1..] } else { name })
        .map(str::to_owned)
        .collect();
    for name in clib::BLAS_NAMES {
        assert!(exported.remove(name), "{name}");
    }
    assert!(exported.iter().all(|name| name.starts_with("kvern_")), "{exported:?}");
    assert_eq!(exported, declared());
    assert!(exported.len() > 40);
}
