//! The program as a user runs it: exit codes, files, messages.

use std::process::Output;

use mini::report::outputs::Outputs;

use crate::mini;

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
    for part in [mini::text::corpus::SHA256, "394585 bytes", "7 bytes", "at byte 7"] {
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
        (vec!["generate", "--tokens", "600"], "--tokens 600 are 608 tokens, more than --context 512"),
        (
            vec!["generate", "--dim", "48", "--heads", "2", "--quant", "int8"],
            "--dim 48 is no multiple of 32, the block of Int8",
        ),
        (vec!["bench", "--context", "50"], "--context 50 is less than 51"),
        (vec!["bench-quant", "--ffn", "100"], "--ffn 100 is no multiple of 32"),
        (vec!["run", "--dim", "48", "--heads", "2"], "--dim 48 is no multiple of 32"),
        (vec!["nonsense"], "nonsense"),
    ] {
        let output = mini(dir.path(), &args);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    }
}

/// Files, summary and plots of everything at once.
#[test]
fn a_run_writes_every_file_and_says_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let output = mini(dir.path(), &["run", "--steps", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "a run is quiet without a terminal");
    for file in Outputs::new(dir.path()).all() {
        assert!(file.metadata().unwrap().len() > 0, "{}", file.display());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        mini::text::corpus::SHA256,
        "456300 parameters",
        "verdict: size Int4 0.254 < Int8 0.471 < FP32 1.743 MiB: yes",
        "equal with and without cache, at 1 and 2 threads: yes",
        "the seed's words are drawn uniformly",
        "language, 3 steps, floor 52.05:",
        "plot_context.png",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// The file without timings has the same bytes at every tier and number of threads.
#[test]
fn the_quality_is_the_same_in_every_run() {
    let quality = |options: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let model = ["--dim", "32", "--heads", "1", "--ffn", "32", "--context", "64"];
        let output = mini(dir.path(), &[&["bench-quant"], &model[..], options].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        std::fs::read_to_string(Outputs::new(dir.path()).accuracy_drop()).unwrap()
    };
    let plain = quality(&[]);
    assert_eq!(quality(&["--isa", "scalar"]), plain);
    assert_eq!(quality(&["--threads", "2"]), plain);
}

#[test]
fn the_cache_changes_no_logit_of_other_models_either() {
    let dir = tempfile::tempdir().unwrap();
    let model = ["--dim", "64", "--heads", "8", "--ffn", "32", "--layers", "2", "--context", "51"];
    let output = mini(dir.path(), &[&["bench"], &model[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("  equal").count(), 3, "{text}");
    let rows = std::fs::read_to_string(Outputs::new(dir.path()).bench_context()).unwrap();
    assert_eq!(rows.lines().count(), 3, "the header, 16 and 32: {rows}");
}
