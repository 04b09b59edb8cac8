//! SHA-256 of the files of a directory, in the format of `sha256sum`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `digest` in lower-case hexadecimal.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file's name, with `/` between its parts, and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// Relative to the directory.
    pub name: String,
    /// In hexadecimal.
    pub sha256: String,
}

/// Names of all files below `dir`, sorted by their bytes.
///
/// # Errors
/// When a directory cannot be read or a name is not UTF-8.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = vec![(dir.to_owned(), String::new())];
    while let Some((dir, prefix)) = rest.pop() {
        let cannot_read = || format!("cannot read the directory {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(cannot_read)? {
            let entry = entry.with_context(cannot_read)?;
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{name:?} is not UTF-8"))?;
            let name = format!("{prefix}{name}");
            if entry.file_type().with_context(cannot_read)?.is_dir() {
                rest.push((entry.path(), name + "/"));
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Hashes the files `names` below `dir`.
///
/// # Errors
/// When one cannot be read.
pub fn of(dir: &Path, names: &[String]) -> Result<Vec<FileHash>> {
    let hash = |name: &String| {
        let path: PathBuf = dir.join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(FileHash { name: name.clone(), sha256: sha256_hex(&bytes) })
    };
    names.iter().map(hash).collect()
}

/// Writes the hashes.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, hashes: &[FileHash]) -> Result<()> {
    let text: String = hashes.iter().map(|hash| format!("{}  {}\n", hash.sha256, hash.name)).collect();
    fs::write(path, text).with_context(|| format!("cannot write the hashes to {}", path.display()))
}

/// Reads the hashes that [`write()`] wrote.
///
/// # Errors
/// When the file cannot be read or a line is not of that form; the message names the line.
pub fn read(path: &Path) -> Result<Vec<FileHash>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the hashes {}", path.display()))?;
    let parse = |(i, line): (usize, &str)| {
        let bad = || format!("{}: line {} is no hash and name", path.display(), i + 1);
        let (sha256, name) = line.split_once("  ").with_context(bad)?;
        ensure!(sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()), bad());
        Ok(FileHash { name: name.to_owned(), sha256: sha256.to_owned() })
    };
    text.lines().enumerate().map(parse).collect()
}

/// Describes each file whose hash differs between `a` and `b`, or that only one of them has.
pub fn differences(a: &[FileHash], b: &[FileHash]) -> Vec<String> {
    let find = |in_: &[FileHash], name: &str| in_.iter().find(|hash| hash.name == name).cloned();
    let mut found = Vec::new();
    for hash in a {
        match find(b, &hash.name) {
            None => found.push(format!("{} is missing", hash.name)),
            Some(other) if other.sha256 != hash.sha256 => {
                found.push(format!("{} differs: {} and {}", hash.name, hash.sha256, other.sha256));
            }
            Some(_) => {}
        }
    }
    let extra = b.iter().filter(|hash| find(a, &hash.name).is_none());
    found.extend(extra.map(|hash| format!("{} is not expected", hash.name)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(name: &str, text: &str) -> FileHash {
        FileHash { name: name.into(), sha256: sha256_hex(text.as_bytes()) }
    }

    #[test]
    fn files_of_all_folders_are_found_in_order_and_hashed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        for name in ["z", "b/c/x", "a"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names = names(dir.path()).unwrap();
        assert_eq!(names, ["a", "b/c/x", "z"]);
        let hashes = of(dir.path(), &names).unwrap();
        assert_eq!(hashes[1], hash("b/c/x", "b/c/x"));
        let path = dir.path().join("hashes.txt");
        write(&path, &hashes).unwrap();
        assert_eq!(read(&path).unwrap(), hashes);
        assert!(of(dir.path(), &["none".into()]).is_err());
        assert!(super::names(&dir.path().join("none")).is_err());
    }

    #[test]
    fn differences_are_named() {
        let a = [hash("same", "1"), hash("changed", "1"), hash("gone", "1")];
        let b = [hash("same", "1"), hash("changed", "2"), hash("new", "1")];
        let found = differences(&a, &b);
        assert!(found[0].starts_with("changed differs: "), "{found:?}");
        assert_eq!(found[1..], ["gone is missing", "new is not expected"]);
        assert!(differences(&a, &a).is_empty());
    }

    #[test]
    fn bad_lines_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hashes.txt");
        for text in ["abc  name\n", "abc\n"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("line 1"));
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&path).is_err());
        assert!(write(dir.path(), &[]).is_err());
    }
}
