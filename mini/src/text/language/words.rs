//! The words: short ones of English for the small classes, seeded syllables with the ending of their class
//! for the others.

use std::collections::HashSet;

use super::grammar::{Class, Number};
use crate::random::SplitMix64;

const CONSONANTS: [&str; 16] =
    ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "br", "st", "tr"];
const VOWELS: [&str; 6] = ["a", "e", "i", "o", "u", "ou"];

/// The words of every class, the most frequent first.
pub struct Lexicon {
    classes: Vec<(Class, Vec<String>)>,
}

impl Lexicon {
    /// The words that `seed` chooses.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix64::stream(seed, 0);
        let mut taken = HashSet::new();
        let mut make = |class: Class| {
            let fixed = fixed(class).iter().map(|word| (*word).to_owned());
            let mut words: Vec<String> = fixed.take(class.size()).collect();
            taken.extend(words.iter().cloned());
            while words.len() < class.size() {
                let word = invented(&mut random, class);
                if taken.insert(word.clone()) {
                    words.push(word);
                }
            }
            (class, words)
        };
        Self { classes: Class::ALL.into_iter().map(&mut make).collect() }
    }

    /// Word number `index` of a class.
    pub fn word(&self, class: Class, index: usize) -> &str {
        let words = self.classes.iter().find(|(other, _)| *other == class);
        words.and_then(|(_, words)| words.get(index)).map_or("", String::as_str)
    }

    /// The words of a class with their numbers.
    #[cfg(test)]
    pub fn of(&self, class: Class) -> Vec<(&str, (Class, usize))> {
        (0..class.size()).map(|index| (self.word(class, index), (class, index))).collect()
    }

    /// Every word.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().flat_map(|(_, words)| words.iter().map(String::as_str))
    }
}

/// Words that are not invented.
fn fixed(class: Class) -> &'static [&'static str] {
    match class {
        Class::Determiner(Number::Singular) => &["the", "a", "this", "that", "each", "every"],
        Class::Determiner(Number::Plural) => &["these", "those", "some", "many", "few", "all"],
        Class::Preposition => &[
            "of", "in", "with", "near", "behind", "under", "over", "from", "at", "by", "beside", "above",
            "below", "against", "among", "without",
        ],
        Class::Conjunction => &["and", "but", "while", "because", "so", "yet", "or"],
        Class::Stop => &["."],
        _ => &[],
    }
}

/// Two or three syllables and the ending of the class.
fn invented(random: &mut SplitMix64, class: Class) -> String {
    let mut pick = |from: &[&'static str]| from[random.below(from.len() as u64) as usize];
    let mut word = String::new();
    for _ in 0..2 {
        word.push_str(pick(&CONSONANTS));
        word.push_str(pick(&VOWELS));
    }
    match class {
        Class::Name => word = word[..1].to_uppercase() + &word[1..],
        Class::Adjective => word.push_str("ish"),
        Class::Noun(Number::Singular) => word.push_str(pick(&["n", "r", "l", "t"])),
        Class::Noun(Number::Plural) => word.push_str(pick(&["ns", "rs", "ls", "ts"])),
        Class::Transitive(Number::Singular) => word.push_str("zes"),
        Class::Transitive(Number::Plural) => word.push_str("ze"),
        Class::Intransitive(Number::Singular) => word.push_str("shes"),
        Class::Intransitive(Number::Plural) => word.push_str("sh"),
        Class::Adverb => word.push_str("ly"),
        _ => {}
    }
    word
}
