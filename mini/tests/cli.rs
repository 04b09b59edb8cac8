//! The program as a user runs it: exit codes, files, messages.

use std::path::Path;
use std::process::{Command, Output};

fn mini(out: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mini"))
        .args(args)
        .arg("--out")
        .arg(out)
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn corpus_then_verify_then_tokenize() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["corpus", "verify-corpus", "tokenize"] {
        let output = mini(dir.path(), &[command]);
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{command} is quiet without a terminal");
    }
    for file in ["corpus.txt", "corpus.sha256", "vocab.txt", "tokens.jsonl"] {
        assert!(dir.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn every_file_is_the_same_in_two_runs() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&a, &b] {
        mini(dir.path(), &["corpus"]);
        mini(dir.path(), &["tokenize"]);
    }
    for file in ["corpus.txt", "corpus.sha256", "vocab.txt", "tokens.jsonl"] {
        let [a, b] = [&a, &b].map(|dir| std::fs::read(dir.path().join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn a_truncated_corpus_fails_with_both_hashes() {
    let dir = tempfile::tempdir().unwrap();
    mini(dir.path(), &["corpus"]);
    std::fs::write(dir.path().join("corpus.txt"), "word704").unwrap();
    let output = mini(dir.path(), &["verify-corpus"]);
    assert_eq!(output.status.code(), Some(1));
    for part in [mini::corpus::SHA256, "394585 bytes", "7 bytes", "at byte 7"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn bad_options_fail_with_their_names_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (vec!["corpus", "--threads", "0"], "1..=256"),
        (vec!["bench", "--heads", "5"], "--heads 5 does not divide --dim 128"),
        (vec!["generate", "--prompt", " "], "--prompt"),
        (vec!["plot"], "--out"),
        (vec!["nonsense"], "nonsense"),
    ] {
        let output = mini(dir.path(), &args);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    }
}
