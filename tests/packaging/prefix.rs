//! The installed library: what a distribution packages and a C or C++ programmer links. One prefix is
//! installed from the libraries that the tests share; everything is built outside of the repository.

use crate::clib;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh empty directory for one test.
pub fn fresh(name: &str) -> PathBuf {
    let dir = clib::scratch("packaging").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Whether all of these can be started; says which one cannot.
pub fn all_exist(programs: &[&str]) -> bool {
    programs.iter().all(|program| clib::exists(program))
}

/// The prefix that kvern is installed in, `None` where the tools are missing.
pub fn prefix() -> Option<&'static Path> {
    static PREFIX: OnceLock<Option<PathBuf>> = OnceLock::new();
    let installed = PREFIX.get_or_init(|| {
        if !all_exist(&["cc", "ld", "ar", "nm", "strip", "objcopy"]) {
            return None;
        }
        // Through DESTDIR and moved afterwards, as a package is.
        let (stage, prefix) = (fresh("stage"), clib::scratch("packaging").join("prefix"));
        let mut install = Command::new(root().join("packaging/install.sh"));
        install.arg(clib::library()).env("PREFIX", &prefix).env("DESTDIR", &stage);
        install.env_remove("LIBDIR").env_remove("TARGET");
        println!("{}", clib::run(install.current_dir("/")));
        let _ = std::fs::remove_dir_all(&prefix);
        let inside = stage.join(prefix.strip_prefix("/").unwrap());
        std::fs::rename(inside, &prefix).unwrap();
        Some(prefix)
    });
    installed.as_deref()
}

/// Output of `pkg-config`, split as a shell splits it.
pub fn pkg_config(prefix: &Path, args: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(args).arg("kvern").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    clib::run(&mut command).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_prefix_holds_what_a_package_needs() {
    let Some(prefix) = prefix() else { return };
    let version = env!("CARGO_PKG_VERSION");
    let lib = prefix.join("lib");
    let link = |name: &str| std::fs::read_link(lib.join(name)).unwrap();
    assert_eq!(link("libkvern.so"), Path::new("libkvern.so.0"));
    assert_eq!(link("libkvern.so.0"), PathBuf::from(format!("libkvern.so.{version}")));
    for file in [
        "include/kvern.h",
        "include/kvern.hpp",
        "include/kvern/core.hpp",
        "lib/libkvern.a",
        "lib/cmake/kvern/kvern-config.cmake",
    ] {
        assert!(prefix.join(file).is_file(), "{file}");
    }
    for file in ["lib/pkgconfig/kvern.pc", "lib/cmake/kvern/kvern-config.cmake"] {
        let text = std::fs::read_to_string(prefix.join(file)).unwrap();
        assert!(!text.replace("@rpath", "").contains('@') && !text.contains("/stage/"), "{text}");
    }
    if clib::exists("pkg-config") {
        assert_eq!(pkg_config(prefix, &["--modversion"]), [version]);
        let private = pkg_config(prefix, &["--static", "--libs"]);
        for library in ["-lkvern", "-lm", "-lpthread", "-ldl"] {
            assert!(private.iter().any(|flag| flag == library), "{private:?}");
        }
    }
}

/// What `install.sh` makes of libraries for another system, by tools that only copy.
fn installed_for(target: &str, built: &[&str]) -> PathBuf {
    let dir = fresh(target);
    built.iter().for_each(|name| std::fs::write(dir.join(name), name).unwrap());
    let copy = dir.join("copy");
    std::fs::write(&copy, "#!/bin/sh\n[ \"$2\" = -o ] && cp \"$4\" \"$3\"\n").unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut install = Command::new(root().join("packaging/install.sh"));
    install.arg(&dir).env("TARGET", target).env("STRIP", &copy).env("PREFIX", dir.join("prefix"));
    clib::run(install.env_remove("DESTDIR").env_remove("LIBDIR"));
    dir.join("prefix")
}

#[test]
fn other_systems_get_the_file_names_that_their_linkers_look_for() {
    let version = env!("CARGO_PKG_VERSION");
    let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let mac = installed_for("aarch64-apple-darwin", &["libkvern.dylib", "libkvern.a"]);
    let link = |name: &str| std::fs::read_link(mac.join("lib").join(name)).unwrap();
    assert_eq!(text(mac.join(format!("lib/libkvern.{version}.dylib"))), "libkvern.dylib");
    assert_eq!(link("libkvern.0.dylib"), PathBuf::from(format!("libkvern.{version}.dylib")));
    assert_eq!(link("libkvern.dylib"), Path::new("libkvern.0.dylib"));
    assert!(text(mac.join("lib/cmake/kvern/kvern-config.cmake")).contains("(_kvern_system \"macos\")"));
    assert!(text(mac.join("lib/pkgconfig/kvern.pc")).ends_with("Libs.private: \n"));

    let built = ["kvern.dll", "libkvern.dll.a", "libkvern.a"];
    let windows = installed_for("x86_64-pc-windows-gnu", &built);
    for (path, name) in [("bin", built[0]), ("lib", built[1]), ("lib", built[2])] {
        assert_eq!(text(windows.join(path).join(name)), name);
    }
    assert!(text(windows.join("lib/pkgconfig/kvern.pc")).contains("Libs.private: -lkernel32 "));

    let mut unknown = Command::new(root().join("packaging/install.sh"));
    let output = unknown.arg(".").env("TARGET", "wasm32-unknown-unknown").output().unwrap();
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "install.sh knows no file names of wasm32-unknown-unknown\n"
    );
}
