//! Word tokenizer: splits on white space and numbers the words by frequency.
//!
//! Ids 0 to 3 are the special tokens; then come the words, the most frequent first, and among equally
//! frequent ones the one that appears first in the text. The rule leaves no choice open: the same text gives
//! the same ids.
//!
//! `vocab.txt` has one token a line: line number (from 0) = id.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The special tokens, in the order of their ids.
pub const SPECIAL: [&str; 4] = ["<PAD>", "<UNK>", "<BOS>", "<EOS>"];

/// Id of `<PAD>`: fills a sequence up to a common length.
pub const PAD: u32 = 0;
/// Id of `<UNK>`: stands for a word that the vocabulary does not have.
pub const UNK: u32 = 1;
/// Id of `<BOS>`: beginning of sequence.
pub const BOS: u32 = 2;
/// Id of `<EOS>`: end of sequence.
pub const EOS: u32 = 3;

/// A vocabulary and both its directions: word to id, id to word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Tokenizer {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Tokenizer {
    /// Builds the vocabulary of `text`.
    ///
    /// Special tokens that stand in the text keep their ids and are not counted as words.
    pub fn from_text(text: &str) -> Self {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        let mut words = Vec::new();
        for word in text.split_whitespace().filter(|w| !SPECIAL.contains(w)) {
            let count = counts.entry(word).or_default();
            if *count == 0 {
                words.push(word);
            }
            *count += 1;
        }
        // The sort is stable: equal counts stay in order of first appearance.
        words.sort_by_key(|word| Reverse(counts[word]));

        let tokens = SPECIAL.into_iter().chain(words);
        Self::from_tokens(tokens.map(str::to_owned).collect())
    }

    /// As [`Tokenizer::from_text`], with the `limit` most frequent tokens.
    pub fn most_frequent(text: &str, limit: usize) -> Self {
        let mut tokens = Self::from_text(text).tokens;
        tokens.truncate(limit.max(SPECIAL.len()));
        Self::from_tokens(tokens)
    }

    fn from_tokens(tokens: Vec<String>) -> Self {
        let ids = tokens.iter().cloned().zip(0..).collect();
        Self { tokens, ids }
    }

    /// Number of tokens, the special ones included.
    pub fn vocabulary(&self) -> usize {
        self.tokens.len()
    }

    /// The ids of the words of `text`; [`UNK`] for a word not in the vocabulary. No `<BOS>` or `<EOS>` is
    /// added.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        text.split_whitespace().map(|word| self.ids.get(word).copied().unwrap_or(UNK)).collect()
    }

    /// The tokens of `ids`, joined by one space.
    ///
    /// # Errors
    /// When an id is not below [`Tokenizer::vocabulary`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let words = ids
            .iter()
            .enumerate()
            .map(|(i, &id)| {
                let token = self.tokens.get(id as usize).with_context(|| {
                    format!("token {i} has id {id}, but the vocabulary ends at id {}", self.vocabulary() - 1)
                })?;
                Ok(token.as_str())
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(words.join(" "))
    }

    /// Writes the vocabulary, one token a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, self.tokens.join("\n") + "\n")
            .with_context(|| format!("cannot write the vocabulary to {}", path.display()))
    }

    /// Reads a vocabulary that [`Tokenizer::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8, does not begin with the special tokens, is cut off within
    /// a line, or has a line that is empty, holds white space or repeats an earlier one. The message names
    /// the line.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the vocabulary {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("bad vocabulary {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        ensure!(text.ends_with('\n'), "the file does not end with a newline: it is empty or cut off");
        let tokens: Vec<String> = text.lines().map(str::to_owned).collect();
        for (id, special) in SPECIAL.iter().enumerate() {
            let found = tokens.get(id).map_or("end of file", String::as_str);
            ensure!(found == *special, "line {}: expected {special}, found {found:?}", id + 1);
        }
        for (i, token) in tokens.iter().enumerate() {
            ensure!(!token.is_empty(), "line {}: empty", i + 1);
            ensure!(
                !token.contains(char::is_whitespace),
                "line {}: white space in the token {token:?}",
                i + 1
            );
        }
        let tokenizer = Self::from_tokens(tokens);
        if tokenizer.ids.len() < tokenizer.tokens.len() {
            bail!(tokenizer.first_repetition());
        }
        Ok(tokenizer)
    }

    fn first_repetition(&self) -> String {
        let mut first = HashMap::new();
        for (i, token) in self.tokens.iter().enumerate() {
            if let Some(earlier) = first.insert(token, i) {
                return format!("line {}: {token:?} repeats line {}", i + 1, earlier + 1);
            }
        }
        String::new()
    }
}

impl From<Tokenizer> for Vec<String> {
    fn from(tokenizer: Tokenizer) -> Self {
        tokenizer.tokens
    }
}

impl TryFrom<Vec<String>> for Tokenizer {
    type Error = anyhow::Error;

    fn try_from(tokens: Vec<String>) -> Result<Self> {
        Self::parse(&(tokens.join("\n") + "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::corpus;
    use super::*;

    #[test]
    fn special_tokens_have_their_ids() {
        let tokenizer = Tokenizer::from_text("");
        assert_eq!(tokenizer.vocabulary(), 4);
        for (id, token) in [(PAD, "<PAD>"), (UNK, "<UNK>"), (BOS, "<BOS>"), (EOS, "<EOS>")] {
            assert_eq!(tokenizer.encode(token), [id]);
            assert_eq!(tokenizer.decode(&[id]).unwrap(), token);
        }
    }

    #[test]
    fn words_go_by_frequency_and_ties_by_first_appearance() {
        let tokenizer = Tokenizer::from_text("d b c a b\ta\n d e <UNK> <UNK> <UNK>");
        assert_eq!(tokenizer.tokens[4..], ["d", "b", "a", "c", "e"]);
    }

    #[test]
    fn the_vocabulary_of_the_corpus() {
        let text = corpus::generate();
        let tokenizer = Tokenizer::from_text(&text);
        assert_eq!(tokenizer.vocabulary(), 1004);
        // They appear 76, 70, 70, 69, 69 and 69 times.
        let expected = ["word443", "word338", "word211", "word995", "word485", "word781"];
        assert_eq!(tokenizer.tokens[4..10], expected);

        let ids = tokenizer.encode(&text);
        assert_eq!(ids.len(), corpus::WORDS);
        assert_eq!(tokenizer.decode(&ids).unwrap() + "\n", text);
    }

    #[test]
    fn unknown_words_become_unk() {
        let tokenizer = Tokenizer::from_text("a b");
        assert_eq!(tokenizer.encode("a z b"), [4, UNK, 5]);
        assert_eq!(tokenizer.decode(&[4, UNK]).unwrap(), "a <UNK>");
    }

    #[test]
    fn decode_names_the_id_out_of_range() {
        let error = Tokenizer::from_text("a").decode(&[4, 5]).unwrap_err();
        assert_eq!(error.to_string(), "token 1 has id 5, but the vocabulary ends at id 4");
    }

    #[test]
    fn save_and_load_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vocab.txt");
        let tokenizer = Tokenizer::from_text("one two two");
        tokenizer.save(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "<PAD>\n<UNK>\n<BOS>\n<EOS>\ntwo\none\n");
        assert_eq!(Tokenizer::load(&path).unwrap(), tokenizer);
    }

    #[test]
    fn bad_vocabularies_are_refused() {
        let head = SPECIAL.join("\n");
        for (text, reason) in [
            (String::new(), "cut off"),
            (format!("{head}\nwor"), "cut off"),
            ("<PAD>\n".into(), "line 2: expected <UNK>, found \"end of file\""),
            ("<PAD>\n<BOS>\n".into(), "line 2: expected <UNK>, found \"<BOS>\""),
            (format!("{head}\na\n\nb\n"), "line 6: empty"),
            (format!("{head}\na b\n"), "line 5: white space"),
            (format!("{head}\na\nb\na\n"), "line 7: \"a\" repeats line 5"),
        ] {
            let error = Tokenizer::parse(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn unreadable_vocabularies_are_errors_that_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vocab.txt");
        let error = Tokenizer::load(&path).unwrap_err().to_string();
        assert!(error.contains("vocab.txt"), "{error}");

        fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = format!("{:#}", Tokenizer::load(&path).unwrap_err());
        assert!(error.contains("UTF-8"), "{error}");
    }
}
