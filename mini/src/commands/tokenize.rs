//! `mini tokenize`: build the vocabulary and encode the corpus.

use std::io::Write;

use anyhow::Result;

use crate::report::outputs::Outputs;
use crate::text::Tokenizer;
use crate::text::corpus;
use crate::text::token_file;

/// Writes `vocab.txt` and `tokens.jsonl` of the generated corpus.
///
/// The corpus is generated, not read: the tokens do not depend on what is in the output directory.
///
/// # Errors
/// When a file cannot be written.
pub fn run(outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    outputs.create()?;
    let text = corpus::generate();
    let tokenizer = Tokenizer::from_text(&text);
    let ids = tokenizer.encode(&text);

    let (vocab, tokens) = (outputs.vocab(), outputs.tokens());
    tokenizer.save(&vocab)?;
    let records = token_file::write(&tokens, &ids)?;
    writeln!(log, "{}: {} tokens", vocab.display(), tokenizer.vocabulary())?;
    writeln!(log, "{}: {} ids in {records} records", tokens.display(), ids.len())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_files_give_the_corpus_back() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path().join("out"));
        let mut log = Vec::new();
        run(&outputs, &mut log).unwrap();

        let tokenizer = Tokenizer::load(&outputs.vocab()).unwrap();
        let ids = token_file::read(&outputs.tokens()).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap() + "\n", corpus::generate());
        let log = String::from_utf8(log).unwrap();
        assert!(log.contains("50000 ids in 98 records"), "{log}");
    }
}
