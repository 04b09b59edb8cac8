//! `mini corpus`: generate the corpus and print its SHA-256.

use std::io::Write;

use anyhow::Result;

use crate::report::outputs::Outputs;
use crate::text::corpus;

/// Writes `corpus.txt` and `corpus.sha256`.
///
/// # Errors
/// When a file cannot be written.
pub fn run(outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    outputs.create()?;
    let path = outputs.corpus();
    let digest = corpus::write(&path)?;
    corpus::write_sha256(&outputs.corpus_sha256(), &digest, "corpus.txt")?;
    writeln!(log, "{}: {} words", path.display(), corpus::WORDS)?;
    writeln!(log, "SHA-256 {digest}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_writes_both_files_and_prints_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path().join("out"));
        let mut log = Vec::new();
        run(&outputs, &mut log).unwrap();

        assert!(String::from_utf8(log).unwrap().contains(corpus::SHA256));
        assert_eq!(
            fs::read_to_string(outputs.corpus_sha256()).unwrap(),
            format!("{}  corpus.txt\n", corpus::SHA256)
        );
        assert!(corpus::verify(&outputs.corpus()).unwrap().matches());
    }
}
