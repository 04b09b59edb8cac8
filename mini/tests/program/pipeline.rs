//! Training, checkpoints, generation and archives as a user runs them.

use std::path::Path;

use mini::report::outputs::{Outputs, is_timed};
use mini::train::Checkpoint;

use crate::mini;

/// A model that trains in a moment.
const SMALL: [&str; 8] = ["--dim", "32", "--heads", "1", "--ffn", "32", "--context", "64"];

fn good(out: &Path, args: &[&str]) -> String {
    let output = mini(out, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bad(out: &Path, args: &[&str]) -> String {
    let output = mini(out, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!error.contains("panicked"), "{error}");
    error
}

fn train(out: &Path, options: &[&str]) -> String {
    let steps: &[&str] = if options.contains(&"--steps") { &[] } else { &["--steps", "12"] };
    good(out, &[&["train", "--seq", "16"], steps, &SMALL[..], options].concat())
}

#[test]
fn a_resumed_training_ends_with_the_same_bytes() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for decay in [&[][..], &["--decay"]] {
        train(whole.path(), decay);
        train(parts.path(), &[&["--stop-after", "5", "--train-threads", "1"], decay].concat());
        train(parts.path(), &[&["--stop-after", "6", "--resume"], decay].concat());
        let text = train(
            parts.path(),
            &[&["--resume", "--checkpoint-every", "2", "--isa", "scalar"], decay].concat(),
        );
        assert!(text.contains("steps 1 to 12"), "{text}");
        for file in ["seed.safetensors", "loss_seed.csv", "plot_loss_seed.png", "metrics.json"] {
            let [a, b] = [&whole, &parts].map(|dir| std::fs::read(dir.path().join(file)).unwrap());
            assert!(a == b, "{file} differs");
        }
    }
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let resume = |options: &[&str]| {
        let fixed = ["train", "--seq", "16", "--steps", "12", "--resume"];
        bad(dir.path(), &[&fixed, &SMALL[..], options].concat())
    };
    assert!(resume(&[]).contains("nothing to --resume"));
    train(dir.path(), &[]);
    assert!(resume(&["--lr", "1e-2"]).contains("was trained otherwise"));
    assert!(resume(&["--layers", "2"]).contains("other sizes"));
    assert!(resume(&["--stop-after", "3"]).contains("step 12 already"));
    let path = Outputs::new(dir.path()).checkpoint("seed");
    let bytes = std::fs::read(&path).unwrap();
    for (text, part) in [(&bytes[..bytes.len() - 9], "seed.safetensors"), (b"nonsense", "seed.safetensors")] {
        std::fs::write(&path, text).unwrap();
        assert!(resume(&[]).contains(part));
    }
}

#[test]
fn a_checkpoint_is_read_as_it_was_written_and_a_strange_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), &[]);
    let path = Outputs::new(dir.path()).checkpoint("seed");
    let found = Checkpoint::load(&path).unwrap();
    assert_eq!((found.header.step, found.adam.step, found.held_out.len()), (12, 12, 4097));
    let copy = dir.path().join("copy.safetensors");
    found.save(&copy).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(std::fs::read(&copy).unwrap() == bytes);
    assert!(found.save(dir.path()).is_err());

    // Changes of the same length keep the file well formed.
    for (from, to, part) in [
        ("\"head.bias\"", "\"head.bios\"", "head.bias"),
        ("\"held_out\"", "\"held_off\"", "held_out"),
        ("\\\"heads\\\":1", "\\\"heads\\\":3", "--heads 3"),
        ("\\\"heads\\\":1", "\\\"heads\\\":0", "a size of 0"),
        ("\\\"dim\\\":32", "\\\"dim\\\":64", "shape"),
        ("\\\"<PAD>\\\"", "\\\"<PUD>\\\"", "metadata"),
        ("\"mini\"", "\"maxi\"", "no metadata"),
    ] {
        let place = bytes.windows(from.len()).position(|window| window == from.as_bytes());
        let place = place.unwrap_or_else(|| panic!("no {from} in the header"));
        let mut changed = bytes.clone();
        changed[place..place + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&copy, changed).unwrap();
        let error = format!("{:#}", Checkpoint::load(&copy).err().unwrap());
        assert!(error.contains(part) && error.contains("copy.safetensors"), "{part}: {error}");
    }
}

#[test]
fn a_file_of_the_user_is_learnt_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.txt");
    std::fs::write(&file, "där står ein baum im wald und rauscht \n".repeat(120)).unwrap();
    let corpus = file.to_str().unwrap();
    let text = train(dir.path(), &["--corpus", corpus, "--steps", "150", "--lr", "1e-2", "--clip", "5"]);
    assert!(text.contains("vocabulary 12"), "{text}");
    let weights = dir.path().join("file.safetensors");
    let generate = ["generate", "--weights", weights.to_str().unwrap(), "--context", "64"];
    let greedy = good(dir.path(), &[&generate, &["--prompt", "ein baum", "--tokens", "4"][..]].concat());
    assert!(greedy.starts_with("ein baum | im wald und rauscht\n"), "{greedy}");
    assert!(greedy.contains("(150 steps of training)"), "{greedy}");

    let until =
        ["--prompt", "ein", "--until", "wald", "--temperature", "0.1", "--top-k", "3", "--top-p", "0.9"];
    let drawn = good(dir.path(), &[&generate, &until[..]].concat());
    assert!(drawn.starts_with("ein | baum im wald\n"), "{drawn}");
    assert!(bad(dir.path(), &[&generate, &["--until", "vogel"][..]].concat()).contains("vogel"));
    let beams = ["--prompt", "ein", "--beam", "3", "--until", "wald", "--length-penalty", "0.5"];
    let found = good(dir.path(), &[&generate, &beams[..]].concat());
    assert!(found.lines().nth(1).unwrap().ends_with("  baum im wald"), "{found}");
    assert_eq!(found.lines().count(), 5, "{found}");

    for (bytes, part) in [(&b"few words"[..], "to train on"), (&b"\xff\xfe"[..], "cannot read --corpus")] {
        std::fs::write(&file, bytes).unwrap();
        assert!(bad(dir.path(), &["train", "--corpus", corpus]).contains(part));
    }
}

#[test]
fn draws_repeat_by_their_seed() {
    let dir = tempfile::tempdir().unwrap();
    let draw = |options: &str| {
        let line = format!("generate --prompt word7 --tokens 12 --temperature 1 {options}");
        good(dir.path(), &line.split_whitespace().collect::<Vec<_>>()).lines().next().unwrap().to_owned()
    };
    // The seed is that of the initial weights too, so other draws need another temperature.
    assert_eq!(draw("--seed 1"), draw("--seed 1 --no-cache --isa scalar"));
    assert_ne!(draw("--seed 1"), draw("--seed 2"));
    assert!(bad(dir.path(), &["generate", "--top-k", "3"]).contains("--temperature above 0"));
}

#[test]
fn bad_training_options_are_refused_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    for (options, part) in [
        ("train --seq 600", "--seq 600 is more than --context 512"),
        ("train --batch 4096 --seq 512", "--batch 4096 and --seq 512"),
        ("train --corpus none.txt", "none.txt"),
        ("train --lr 1e30 --clip 1e30 --steps 20", "diverged"),
        ("generate --weights none.safetensors", "none.safetensors"),
    ] {
        assert!(bad(dir.path(), &options.split(' ').collect::<Vec<_>>()).contains(part), "{options}");
    }
    for options in ["train --lr 0", "train --lr x", "generate --top-p 2", "generate --temperature -1"] {
        assert_eq!(mini(dir.path(), &options.split(' ').collect::<Vec<_>>()).status.code(), Some(2));
    }
}

#[test]
fn two_runs_are_the_same_and_their_archives_too() {
    let dir = tempfile::tempdir().unwrap();
    let text = good(dir.path(), &[&["test-idem", "--steps", "2"], &SMALL[..]].concat());
    assert!(text.contains("files are the same in both runs"), "{text}");
    // A directory that is in the way is emptied first.
    std::fs::write(dir.path().join("idem/a/stray.txt"), "stray").unwrap();
    let mut archives = Vec::new();
    for name in ["a", "b"] {
        let out = dir.path().join("idem").join(name);
        if name == "a" {
            std::fs::remove_file(out.join("stray.txt")).unwrap();
        }
        let dist = dir.path().join(name);
        good(&out, &["pack", "--dist", dist.to_str().unwrap()]);
        assert!(good(&out, &["verify", "--dist", dist.to_str().unwrap()]).contains("verified"));
        archives.push(std::fs::read(dist.join("proy-v1.0.0.tar.gz")).unwrap());
    }
    assert!(archives[0] == archives[1]);
    for (name, timed) in [
        ("bench.csv", true),
        ("timings/train_seed.csv", true),
        ("plot_quant.png", true),
        ("timings", false),
        ("metrics.json", false),
        ("language.safetensors", false),
    ] {
        assert_eq!(is_timed(name), timed, "{name}");
    }
}

#[cfg(feature = "bpe")]
#[test]
fn pieces_of_words_are_learnt_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.txt");
    std::fs::write(&file, "där står ein baum im wald und rauscht\n".repeat(200)).unwrap();
    let options = ["--tokenizer", "bpe", "--vocabulary", "320", "--steps", "150", "--lr", "1e-2"];
    let text = train(dir.path(), &[&["--corpus", file.to_str().unwrap()], &options[..]].concat());
    assert!(text.contains("vocabulary "), "{text}");
    let weights = dir.path().join("file.safetensors");
    let generate = ["generate", "--weights", weights.to_str().unwrap(), "--context", "64", "--tokens", "6"];
    let found = good(dir.path(), &[&generate, &["--prompt", "där står ein baum"][..]].concat());
    assert!(found.contains("im wald und rauscht"), "{found}");
}

#[cfg(feature = "bpe")]
#[test]
fn a_training_on_pieces_is_resumed_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.txt");
    let line = "zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 🐦\n";
    std::fs::write(&file, line.repeat(90)).unwrap();
    let hash = |name: &str, parts: &[&[&str]]| {
        let out = dir.path().join(name);
        let options = ["--corpus", file.to_str().unwrap(), "--tokenizer", "bpe", "--vocabulary", "300"];
        let mut last = String::new();
        for part in parts {
            last = train(&out, &[&options[..], &["--steps", "6"], part].concat());
        }
        let line = last.lines().find(|line| line.starts_with("weights sha256: "));
        line.unwrap_or_else(|| panic!("no hash in {last}")).to_owned()
    };
    let whole = hash("whole", &[&[]]);
    assert_eq!(hash("parts", &[&["--stop-after", "2"], &["--resume"]]), whole);
}
