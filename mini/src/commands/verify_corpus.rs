//! `mini verify-corpus`: compare the corpus on disk with the generated one.

use std::io::Write;

use anyhow::{Result, ensure};

use crate::report::outputs::Outputs;
use crate::text::corpus;

/// Compares `corpus.txt` and `corpus.sha256` with the generated corpus.
///
/// # Errors
/// When a file cannot be read or differs; the message has both hashes and, for the corpus, both lengths and
/// the offset of the first difference.
pub fn run(outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    let path = outputs.corpus();
    let found = corpus::verify(&path)?;
    ensure!(found.matches(), "{} is not the corpus\n{found}", path.display());

    let path = outputs.corpus_sha256();
    let stored = corpus::read_sha256(&path)?;
    ensure!(
        stored == found.expected_sha256,
        "{} has {stored}, but the corpus has {}",
        path.display(),
        found.expected_sha256
    );
    writeln!(log, "corpus verified: SHA-256 {stored}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::hashes::sha256_hex;

    fn with_corpus() -> (tempfile::TempDir, Outputs) {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path());
        crate::commands::corpus::run(&outputs, &mut Vec::new()).unwrap();
        (dir, outputs)
    }

    fn error(outputs: &Outputs) -> String {
        format!("{:#}", run(outputs, &mut Vec::new()).unwrap_err())
    }

    #[test]
    fn the_written_corpus_is_verified() {
        let (_dir, outputs) = with_corpus();
        run(&outputs, &mut Vec::new()).unwrap();
    }

    #[test]
    fn a_truncated_corpus_is_refused() {
        let (_dir, outputs) = with_corpus();
        fs::write(outputs.corpus(), "word704 word2").unwrap();
        let error = error(&outputs);
        assert!(error.contains("first difference at byte 13"), "{error}");
    }

    #[test]
    fn a_wrong_stored_digest_is_refused() {
        let (_dir, outputs) = with_corpus();
        let wrong = sha256_hex(b"");
        corpus::write_sha256(&outputs.corpus_sha256(), &wrong, "corpus.txt").unwrap();
        let error = error(&outputs);
        assert!(error.contains(&wrong), "{error}");
        assert!(error.contains(corpus::SHA256), "{error}");
    }

    #[test]
    fn missing_files_are_named() {
        let (_dir, outputs) = with_corpus();
        fs::remove_file(outputs.corpus_sha256()).unwrap();
        assert!(error(&outputs).contains("corpus.sha256"));
        fs::remove_file(outputs.corpus()).unwrap();
        assert!(error(&outputs).contains("corpus.txt"));
    }
}
