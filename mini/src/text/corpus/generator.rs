//! The corpus: 50,000 random words, the same bytes on every machine.
//!
//! The words are `word1` to `word1000`, drawn uniformly by Python's generator seeded from a salted hash,
//! joined by one space and ended by a newline.

use sha2::{Digest, Sha256};

use super::mt19937::PythonRandom;

/// SHA-256 of the corpus, in hexadecimal.
pub const SHA256: &str = "c9c5afb3e4a4f1a2ef550cab7dc2a2b321f0344158ad8ba7b852caacd6357cb8";

/// Length of the corpus in bytes.
pub const LENGTH: usize = 394_585;

/// Number of words in the corpus.
pub const WORDS: usize = 50_000;

/// Number of different words in the corpus.
pub const DISTINCT_WORDS: u32 = 1000;

const SEED: u32 = 42;
const SALT: &str = "1a2b3c4d5e6f7890abcdef1234567890";

/// Generates the corpus.
pub fn generate() -> String {
    let mut random = PythonRandom::new(seed());
    let mut text = String::with_capacity(LENGTH);
    for i in 0..WORDS {
        if i > 0 {
            text.push(' ');
        }
        text.push_str("word");
        text.push_str(&random.randint(1..=DISTINCT_WORDS).to_string());
    }
    text.push('\n');
    text
}

/// The first `count` words of the corpus, joined by one space.
pub fn first_words(count: usize) -> String {
    let text = generate();
    let words: Vec<&str> = text.split_whitespace().take(count).collect();
    words.join(" ")
}

/// The generator's seed: the first 64 bits of SHA-256("SEED-SALT").
fn seed() -> u64 {
    let digest = Sha256::digest(format!("{SEED}-{SALT}"));
    digest.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashes::sha256_hex;

    #[test]
    fn the_bytes_are_the_published_ones() {
        let text = generate();
        assert_eq!(text.len(), LENGTH);
        assert_eq!(sha256_hex(text.as_bytes()), SHA256);
        assert_eq!(text.split_whitespace().count(), WORDS);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn it_begins_as_published() {
        assert_eq!(first_words(7), "word704 word225 word340 word575 word600 word575 word101");
    }

    #[test]
    fn the_seed_is_the_head_of_the_salted_hash() {
        assert_eq!(seed(), 0xe596_8a08_6e2f_2712);
    }
}
