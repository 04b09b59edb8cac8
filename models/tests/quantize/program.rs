//! The program, called as a user calls it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The exit code and the texts of a call.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Calls `kvern-models` with these words.
pub fn run<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_kvern-models")).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// `kvern-models quantize input output format`, which has to succeed; its lines.
#[track_caller]
pub fn quantize(input: &Path, output: &Path, format: &str) -> String {
    let words = [OsStr::new("quantize"), input.as_os_str(), output.as_os_str(), OsStr::new(format)];
    let ran = run(words);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{format}");
    ran.out
}

/// The names of the files of a folder.
pub fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}
