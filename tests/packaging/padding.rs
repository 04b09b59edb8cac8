//! Options structs have no padding, whatever the size of a pointer: garbage in it would be taken for the
//! fields of a newer header, and zeros behind the last field of an older one would not be where the library
//! looks.

use crate::clib;
use std::fmt::Write;
use std::path::Path;

/// The structs of the header that start with their size, and the names of their fields.
fn structs(header: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for part in header.split("typedef struct {").skip(1) {
        let Some((body, rest)) = part.split_once("\n} ") else { continue };
        let Some((name, _)) = rest.split_once(';') else { continue };
        let field = |line: &str| {
            let line = line.trim().strip_suffix(';')?;
            line.rsplit([' ', '*']).next().map(str::to_owned)
        };
        let is_code = |line: &&str| !line.trim_start().starts_with(['/', '*']);
        let fields: Vec<String> = body.lines().filter(is_code).filter_map(field).collect();
        if fields.first().is_some_and(|first| first == "struct_size") {
            found.push((name.to_owned(), fields));
        }
    }
    found
}

#[test]
fn options_have_no_padding_on_64_and_32_bits() {
    if !clib::exists("cc") {
        return;
    }
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/kvern.h");
    let structs = structs(&std::fs::read_to_string(header).unwrap());
    assert!(structs.len() >= 7, "{structs:?}");
    let mut text = String::from("#include \"kvern.h\"\n");
    for (name, fields) in &structs {
        let sizes = fields.iter().map(|field| format!("sizeof((({name} *)0)->{field})"));
        let sum = sizes.collect::<Vec<_>>().join(" + ");
        writeln!(text, "typedef char {name}_is_packed[sizeof({name}) == {sum} ? 1 : -1];").unwrap();
    }
    let source = clib::scratch("padding").join("padding.c");
    std::fs::write(&source, text).unwrap();
    // Freestanding: without the headers of a 32-bit C library. 8-byte numbers at multiples of 8, as on 32-bit
    // ARM and Windows, and at multiples of 4, as on 32-bit x86 elsewhere.
    let cases: &[&[&str]] = match cfg!(target_arch = "x86_64") && !cfg!(target_os = "macos") {
        true => &[&[], &["-m32", "-malign-double"], &["-m32"]],
        false => &[&[]],
    };
    for flags in cases {
        let mut command = clib::compiler("cc", "c99");
        clib::run(command.args(["-ffreestanding", "-fsyntax-only"]).args(*flags).arg(&source));
    }
}
