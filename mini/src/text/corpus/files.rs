//! The corpus on disk: writing it, and comparing a file with the generated corpus.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::generator::generate;
use crate::hashes::{hex, sha256_hex};

const CHUNK: usize = 64 * 1024;

/// Generates the corpus into `path` and returns its SHA-256 in hexadecimal.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path) -> Result<String> {
    let text = generate();
    fs::write(path, &text).with_context(|| format!("cannot write the corpus to {}", path.display()))?;
    Ok(sha256_hex(text.as_bytes()))
}

/// Writes `digest` in the format of `sha256sum`, for the file name `of`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_sha256(path: &Path, digest: &str, of: &str) -> Result<()> {
    fs::write(path, format!("{digest}  {of}\n"))
        .with_context(|| format!("cannot write the SHA-256 to {}", path.display()))
}

/// The result of [`verify`]: the generated corpus against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// SHA-256 of the generated corpus, in hexadecimal.
    pub expected_sha256: String,
    /// SHA-256 of the file, in hexadecimal.
    pub actual_sha256: String,
    /// Length of the generated corpus in bytes.
    pub expected_length: u64,
    /// Length of the file in bytes.
    pub actual_length: u64,
    /// Offset of the first byte that differs. If one text is a prefix of the other, this is the length of the
    /// prefix.
    pub first_difference: Option<u64>,
}

impl Verification {
    /// Whether the file holds the corpus, byte for byte.
    pub fn matches(&self) -> bool {
        self.expected_sha256 == self.actual_sha256
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "expected {} ({} bytes)", self.expected_sha256, self.expected_length)?;
        write!(f, "found    {} ({} bytes)", self.actual_sha256, self.actual_length)?;
        match self.first_difference {
            Some(offset) => write!(f, "\nfirst difference at byte {offset}"),
            None => Ok(()),
        }
    }
}

/// Regenerates the corpus and compares it with the file at `path`.
///
/// The file is read in chunks: its length does not matter.
///
/// # Errors
/// When the file cannot be read. A file that differs is no error here: see [`Verification::matches`].
pub fn verify(path: &Path) -> Result<Verification> {
    let cannot_read = || format!("cannot read the corpus {}", path.display());
    let metadata = fs::metadata(path).with_context(cannot_read)?;
    ensure!(metadata.is_file(), "{}: not a file", cannot_read());
    let mut file = File::open(path).with_context(cannot_read)?;

    let expected = generate();
    let mut hasher = Sha256::new();
    let mut length = 0;
    let mut difference = None;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk).with_context(cannot_read)?;
        if read == 0 {
            break;
        }
        let found = &chunk[..read];
        let rest = expected.as_bytes().get(length..).unwrap_or_default();
        difference = difference.or_else(|| {
            let same = found.iter().zip(rest).take_while(|(a, b)| a == b).count();
            (same < read).then_some(length + same)
        });
        hasher.update(found);
        length += read;
    }
    if length < expected.len() {
        difference = difference.or(Some(length));
    }

    Ok(Verification {
        expected_sha256: sha256_hex(expected.as_bytes()),
        actual_sha256: hex(&hasher.finalize()),
        expected_length: expected.len() as u64,
        actual_length: length as u64,
        first_difference: difference.map(|offset| offset as u64),
    })
}

/// Reads the digest from a file in the format of `sha256sum`.
///
/// # Errors
/// When the file cannot be read or does not begin with 64 hexadecimal digits.
pub fn read_sha256(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the SHA-256 file {}", path.display()))?;
    let digest = text.split_whitespace().next().unwrap_or_default();
    ensure!(
        digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
        "{}: expected 64 hexadecimal digits, found {:?} ({} characters)",
        path.display(),
        digest.chars().take(80).collect::<String>(),
        digest.chars().count()
    );
    Ok(digest.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::generator::{LENGTH, SHA256};
    use super::*;

    fn verify_bytes(bytes: &[u8]) -> Verification {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corpus.txt");
        fs::write(&path, bytes).unwrap();
        verify(&path).unwrap()
    }

    #[test]
    fn the_corpus_matches_itself() {
        let found = verify_bytes(generate().as_bytes());
        assert!(found.matches());
        assert_eq!(found.first_difference, None);
        assert_eq!(found.actual_sha256, SHA256);
    }

    #[test]
    fn one_changed_byte_is_found() {
        for offset in [0, CHUNK - 1, CHUNK, LENGTH - 1] {
            let mut bytes = generate().into_bytes();
            bytes[offset] ^= 1;
            let found = verify_bytes(&bytes);
            assert!(!found.matches());
            assert_eq!(found.first_difference, Some(offset as u64));
            assert_ne!(found.actual_sha256, found.expected_sha256);
        }
    }

    #[test]
    fn shorter_and_longer_files_differ_at_the_shorter_length() {
        let text = generate();
        let short = verify_bytes(&text.as_bytes()[..1000]);
        assert_eq!((short.actual_length, short.first_difference), (1000, Some(1000)));

        let long = verify_bytes(format!("{text}more").as_bytes());
        assert_eq!(long.actual_length, LENGTH as u64 + 4);
        assert_eq!(long.first_difference, Some(LENGTH as u64));

        let empty = verify_bytes(b"");
        assert_eq!((empty.actual_length, empty.first_difference), (0, Some(0)));
    }

    #[test]
    fn the_report_has_both_hashes_both_lengths_and_the_offset() {
        let found = verify_bytes(b"word7xx");
        let report = found.to_string();
        for part in [SHA256, &found.actual_sha256, "394585 bytes", "7 bytes", "at byte 5"] {
            assert!(report.contains(part), "no {part:?} in {report}");
        }
    }

    #[test]
    fn unreadable_files_are_errors_that_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.txt");
        for path in [missing.as_path(), dir.path()] {
            let error = format!("{:#}", verify(path).unwrap_err());
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        assert!(read_sha256(&missing).is_err());
    }

    #[test]
    fn sha256_files_round_trip_and_bad_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corpus.sha256");
        write_sha256(&path, SHA256, "corpus.txt").unwrap();
        assert_eq!(read_sha256(&path).unwrap(), SHA256);

        for bad in ["", "abc", &SHA256[1..], &SHA256.replace('c', "x")] {
            fs::write(&path, bad).unwrap();
            let error = read_sha256(&path).unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn write_returns_the_digest_of_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corpus.txt");
        assert_eq!(write(&path).unwrap(), SHA256);
        assert_eq!(fs::read_to_string(&path).unwrap(), generate());
    }

    #[test]
    fn write_names_the_path_it_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }
}
