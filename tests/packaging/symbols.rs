//! Names: the SONAME, what is exported, and that nothing else can clash.

use crate::clib;
use crate::prefix::{all_exist, fresh, prefix, root};
use std::collections::BTreeSet;
use std::process::Command;

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

/// The names of the committed list and, since the tests build the feature, those of BLAS.
fn expected() -> BTreeSet<String> {
    let fixture = std::fs::read_to_string(root().join("tests/fixtures/symbols.txt")).unwrap();
    let mut names = lines(&fixture);
    names.extend(clib::BLAS_NAMES.map(str::to_owned));
    names
}

#[test]
fn the_shared_library_has_its_soname_and_exports_the_committed_names() {
    let Some(prefix) = prefix() else { return };
    let library = prefix.join("lib/libkvern.so");
    let dynamic = clib::run(Command::new("objdump").arg("-p").arg(&library));
    let soname = dynamic.lines().find(|line| line.contains("SONAME")).unwrap_or_default();
    assert_eq!(soname.split_whitespace().last(), Some("libkvern.so.0"));
    let exported = clib::run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    if std::env::var_os("KVERN_BLESS").is_some() {
        let own: Vec<String> =
            lines(&exported).into_iter().filter(|name| name.starts_with("kvern_")).collect();
        std::fs::write(root().join("tests/fixtures/symbols.txt"), own.join("\n") + "\n").unwrap();
    }
    assert_eq!(lines(&exported), expected(), "KVERN_BLESS=1 rewrites the list");
}

#[test]
fn the_static_library_defines_the_same_names_and_no_other() {
    let Some(prefix) = prefix() else { return };
    let archive = prefix.join("lib/libkvern.a");
    let defined = clib::run(Command::new("nm").args(["--extern-only", "--defined-only"]).arg(&archive));
    let names: BTreeSet<String> = defined.lines().filter(|line| line.contains(' ')).flat_map(lines).collect();
    assert_eq!(names, expected());
}

/// The loader misses exactly the versioned name when it is not told where to look.
#[test]
fn programs_ask_for_the_soname() {
    let Some(prefix) = prefix() else { return };
    let dir = fresh("soname");
    let (source, program) = (dir.join("program.c"), dir.join("program"));
    std::fs::write(&source, PROGRAM).unwrap();
    let mut cc = Command::new("cc");
    cc.arg(&source).arg("-I").arg(prefix.join("include")).arg("-L").arg(prefix.join("lib"));
    clib::run(cc.args(["-lkvern", "-o"]).arg(&program));
    let alone = Command::new(&program).env_remove("LD_LIBRARY_PATH").output().unwrap();
    assert!(!alone.status.success() && String::from_utf8_lossy(&alone.stderr).contains("libkvern.so.0"));
    clib::run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
}

const PROGRAM: &str = "#include <kvern.h>\n\
    int main(void) { return kvern_abi_version() == KVERN_ABI_VERSION ? 0 : 1; }\n";

/// A static library of somebody else, with a standard library, an allocator and panics of its own.
const OTHER: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn other_sum(n: usize) -> usize {
    let texts: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    let caught = std::panic::catch_unwind(|| panic!("caught"));
    texts.iter().map(|t| t.parse::<usize>().unwrap()).sum::<usize>() + usize::from(caught.is_err())
}
"#;

const BOTH: &str = r#"
#include <kvern.h>
#include <stdio.h>
size_t other_sum(size_t n);
int main(void) {
    float a[4] = {1, 2, 3, 4}, c[4];
    size_t bytes = 0;
    kvern_context *ctx = NULL;
    kvern_workspace *ws = NULL;
    if (other_sum(10) != 46 || kvern_context_create(NULL, &ctx) || kvern_workspace_create(NULL, 0, &ws) ||
        kvern_matmul_workspace_bytes(ctx, 2, 2, 2, &bytes) || kvern_workspace_reserve(ws, bytes) ||
        kvern_matmul(ctx, ws, 2, 2, 2, a, 2, 0, a, 2, 0, c, 2, NULL))
        return 1;
    kvern_workspace_destroy(ws);
    kvern_context_destroy(ctx);
    return c[0] == 7 && c[3] == 22 && other_sum(3) == 4 ? 0 : 2;
}
"#;

#[test]
fn two_rust_static_libraries_link_into_one_program() {
    let Some(prefix) = prefix() else { return };
    if !all_exist(&["rustc"]) {
        return;
    }
    let dir = fresh("two");
    let write = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    let (other, both) = (write("other.rs", OTHER), write("both.c", BOTH));
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=staticlib", "-O", "--out-dir"]).arg(&dir).arg(other);
    clib::run(&mut rustc);
    let libraries = [prefix.join("lib/libkvern.a"), dir.join("libother.a")];
    for (name, order) in [("first", [0, 1]), ("last", [1, 0])] {
        let program = dir.join(name);
        let mut cc = Command::new("cc");
        cc.arg(&both).arg("-I").arg(prefix.join("include")).args(order.map(|i: usize| &libraries[i]));
        clib::run(cc.args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&program));
        clib::run(&mut Command::new(&program));
    }
}
