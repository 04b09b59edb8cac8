//! Refusals carry the names and numbers, and leave every file as it was.

use crate::program::{Ran, names, run};
use crate::sample::{self, Given};
use kvern::gguf::{GgufWriter, TensorType};
use kvern::quant::WeightFormat;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

fn call(input: &Path, output: &Path, format: &str) -> Ran {
    let words = [OsStr::new("quantize"), input.as_os_str(), output.as_os_str(), OsStr::new(format)];
    run(words)
}

/// Asserts that a call was refused with this code and these words, on one line.
#[track_caller]
fn refused(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{}", ran.err);
    assert!(code == 2 || ran.err.lines().count() == 1, "{}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{} lacks {word}", ran.err);
    }
}

#[test]
fn a_command_line_without_sense_is_refused_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    sample::write(&input);
    refused(&call(&input, &output, "q9_0"), 2, &["FORMAT = q9_0 must be one of f32 f16 q4_0", "usage: "]);
    refused(&run(["quantize"]), 2, &["= 0 must be 3", "usage: "]);
    refused(&run(["pack"]), 2, &["command = pack", "usage: "]);
    refused(&run([""; 0]), 2, &["no command", "usage: "]);
    let help = run(["--help"]);
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    assert!(help.out.starts_with("usage: kvern-models quantize"), "{}", help.out);
    assert_eq!(names(dir.path()), ["in.gguf"]);
}

#[test]
fn files_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    refused(&call(&input, &output, "q8_0"), 1, &["cannot read", "in.gguf", "not found"]);
    sample::write(&input);
    let nowhere = dir.path().join("nowhere/out.gguf");
    refused(&call(&input, &nowhere, "q8_0"), 1, &["cannot write", "nowhere", "not found"]);
    refused(&call(&input, dir.path(), "q8_0"), 1, &["regular file"]);
    refused(&call(dir.path(), &output, "q8_0"), 1, &["regular file"]);
    sample::write_split(dir.path());
    let first = dir.path().join("m-00001-of-00002.gguf");
    fs::remove_file(dir.path().join("m-00002-of-00002.gguf")).unwrap();
    refused(&call(&first, &output, "q8_0"), 1, &["cannot read", "m-00002-of-00002.gguf"]);
    assert_eq!(names(dir.path()), ["in.gguf", "m-00001-of-00002.gguf"]);
}

#[test]
fn a_file_is_not_written_over_itself() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.gguf");
    sample::write(&input);
    let bytes = fs::read(&input).unwrap();
    let other_name = dir.path().join(".").join("in.gguf");
    for output in [&input, &other_name] {
        refused(&call(&input, output, "q8_0"), 1, &["in.gguf must be another file than", "in.gguf"]);
    }
    #[cfg(unix)]
    {
        let link = dir.path().join("link.gguf");
        std::os::unix::fs::symlink("in.gguf", &link).unwrap();
        refused(&call(&input, &link, "q8_0"), 1, &["link.gguf must be another file than"]);
    }
    assert!(fs::read(&input).unwrap() == bytes);
    sample::write_split(dir.path());
    let part = |i| dir.path().join(format!("m-0000{i}-of-00002.gguf"));
    for output in [part(1), part(2)] {
        refused(&call(&part(1), &output, "q8_0"), 1, &["must be another file than"]);
    }
}

#[test]
fn damaged_files_are_refused_and_the_old_output_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    sample::write(&input);
    fs::write(&output, "old").unwrap();
    let whole = fs::read(&input).unwrap();
    for len in [0, 3, 4, 23, 24, 100, 700, whole.len() / 2, whole.len() - 64] {
        fs::write(&input, &whole[..len]).unwrap();
        refused(&call(&input, &output, "q8_0"), 1, &["in.gguf: stored", "must be"]);
    }
    // A header that says something else, byte by byte: refused, or a file that is written.
    for at in (0..1200).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&input, &bytes).unwrap();
        let new = dir.path().join("new.gguf");
        let ran = call(&input, &new, "q8_0");
        assert!(matches!(ran.code, Some(0 | 1)), "byte {at}: {:?}: {}", ran.code, ran.err);
        assert_eq!(ran.code == Some(0), new.exists(), "byte {at}: {}", ran.err);
        let _ = fs::remove_file(&new);
    }
    assert_eq!(fs::read(&output).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["in.gguf", "out.gguf"]);
}

/// A file of one tensor of f32.
fn one(path: &Path, name: &'static str, x: &[f32]) {
    let bytes = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let given = Given { name, shape: vec![x.len() / 2, 2], kind: WeightFormat::F32.into(), bytes };
    sample::save(path, GgufWriter::new(), &[given]);
}

#[test]
fn tensors_that_cannot_be_written_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    let mut x = sample::weights(1, 64);
    x[40] = f32::INFINITY;
    one(&input, "a\nb.weight", &x);
    let words = ["in.gguf: tensor `a\\nb.weight`: x = NaN or infinity must be finite"];
    refused(&call(&input, &output, "mxfp4"), 1, &words);
    x[40] = -1e5;
    one(&input, "a.weight", &x);
    let words = ["in.gguf: tensor `a.weight`: weight = -100000 must be at most 65504"];
    refused(&call(&input, &output, "f16"), 1, &words);
    // A type of unknown size, behind the counts, the name and the shape.
    let mut bytes = fs::read(&input).unwrap();
    let place = 24 + 8 + "a.weight".len() + 4 + 2 * 8;
    assert_eq!(bytes[place..place + 4], TensorType::from(WeightFormat::F32).id().to_le_bytes());
    bytes[place] = 99;
    fs::write(&input, &bytes).unwrap();
    let words = ["in.gguf: tensor `a.weight`: type of a tensor = 99 must be a type of known size"];
    refused(&call(&input, &output, "q8_0"), 1, &words);
    assert_eq!(names(dir.path()), ["in.gguf"]);
}
