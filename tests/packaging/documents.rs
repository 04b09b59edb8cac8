//! Documents and comments: every path that they name exists, and no line is wider than rustfmt's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Columns of a line, as in rustfmt.toml.
const WIDTH: usize = 110;

/// What is made by builds and runs, and so may be named without being there.
const MADE: [&str; 4] = ["target", "out", "dist", "build"];

const TEXTS: [&str; 14] =
    ["rs", "md", "py", "sh", "c", "h", "cpp", "hpp", "toml", "yml", "in", "txt", "tsv", "cmake"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text of the repository, relative to its root.
fn texts() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".github" && name != ".ci";
            if path.is_dir() {
                let made = MADE.contains(&name.as_str()) || name == "artifacts" || name == "corpus";
                if !made && !hidden {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| TEXTS.iter().any(|text| e == *text))
                || path.parent().and_then(Path::file_name).is_some_and(|folder| folder == ".ci")
                || name == "Makefile"
            {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 150, "only {} texts were found", found.len());
    found.sort();
    found
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Whether a path of `file`'s folder or of the root is there; `*` stands for any name.
fn exists(file: &Path, path: &str) -> bool {
    let bases = [root().to_owned(), root().join(file.parent().unwrap_or(Path::new("")))];
    bases.iter().any(|base| {
        let mut here = vec![base.clone()];
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            here = match part.split_once('*') {
                None => here.iter().map(|dir| dir.join(part)).filter(|path| path.exists()).collect(),
                Some((before, after)) => {
                    let matches = |path: &PathBuf| {
                        let name = path.file_name().unwrap().to_string_lossy();
                        name.len() >= before.len() + after.len()
                            && name.starts_with(before)
                            && name.ends_with(after)
                    };
                    let entries = here.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten());
                    entries.map(|entry| entry.unwrap().path()).filter(matches).collect()
                }
            };
        }
        !here.is_empty()
    })
}

/// Whether a word is meant as a path of this repository: its first part is a folder of the root, or it is a
/// document.
fn is_path(word: &str, folders: &BTreeSet<String>) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-./*".contains(c);
    if word.contains("//") || word.contains("..") || !word.chars().all(good) {
        return false;
    }
    match word.split_once('/') {
        Some((first, rest)) => {
            let made = MADE.contains(&first) || rest.starts_with("artifacts/");
            folders.contains(first) && !rest.is_empty() && !made
        }
        None => {
            word.len() > 3
                && word.ends_with(".md")
                && word.chars().next().is_some_and(|c| c.is_ascii_uppercase())
        }
    }
}

#[test]
fn every_path_that_documents_name_exists() {
    let folders: BTreeSet<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let (mut missing, mut seen) = (Vec::new(), 0);
    for file in texts() {
        let document = file.extension().is_some_and(|e| e == "md");
        for line in read(&file).lines() {
            // In code, what comments say; in documents, everything.
            let comment = match line.trim_start() {
                text if document
                    || text.starts_with('#')
                    || text.starts_with("//")
                    || text.starts_with('*') =>
                {
                    text
                }
                _ => continue,
            };
            let words = comment.split(|c: char| c.is_whitespace() || "`()[]<>\"',;:|{}=".contains(c));
            for word in words.map(|word| word.trim_end_matches('.')).filter(|word| is_path(word, &folders)) {
                seen += 1;
                if !exists(&file, word) {
                    missing.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "these name what is not there:\n{}", missing.join("\n"));
    assert!(seen > 60, "only {seen} paths were found");
}

/// Links of documents, and headings that they point to.
#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut seen = 0;
    for file in texts().into_iter().filter(|file| file.extension().is_some_and(|e| e == "md")) {
        let text = read(&file);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            seen += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            if path.starts_with("http") {
                continue;
            }
            let here = root().join(file.parent().unwrap_or(Path::new(""))).join(path);
            let target = if path.is_empty() { root().join(&file) } else { here };
            assert!(target.exists(), "{}: `{link}` leads nowhere", file.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let anchor = |line: &str| {
                    let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                    title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect::<String>()
                };
                let found =
                    text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading);
                assert!(found, "{}: `{link}` names no heading", file.display());
            }
        }
    }
    assert!(seen > 10, "only {seen} links were found");
}

#[test]
fn no_line_is_wider_than_the_code() {
    assert!(read(Path::new("rustfmt.toml")).contains(&format!("max_width = {WIDTH}")));
    let mut wide = Vec::new();
    for file in texts() {
        let (name, data) = (file.to_str().unwrap().replace('\\', "/"), ["tsv", "txt"]);
        if file.extension().is_some_and(|e| data.iter().any(|data| e == *data)) {
            continue;
        }
        let table = |line: &str| name.ends_with(".md") && line.starts_with('|');
        for (i, line) in read(&file).lines().enumerate() {
            if line.chars().count() > WIDTH && !table(line) && !line.contains("https://") {
                wide.push(format!("{name}:{}: {} columns", i + 1, line.chars().count()));
            }
        }
    }
    assert!(wide.is_empty(), "{} lines are wider than {WIDTH} columns:\n{}", wide.len(), wide.join("\n"));
}
