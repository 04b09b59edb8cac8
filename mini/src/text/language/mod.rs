//! A generated language whose entropy is known exactly.
//!
//! A seeded grammar writes sentences over a lexicon of 1000 words: determiners, adjectives and nouns that
//! agree in number, verbs that agree with their subject across a prepositional phrase, objects, adverbs and
//! conjunctions. It is a Markov source: a state chooses an arc, the arc names a class of words and the next
//! state, and the class chooses a word. No two classes share a word and no two arcs of a state share a class,
//! so the words determine the states, and the entropy is that of the choices: see [`Language::entropy`].

mod grammar;
mod words;

pub use grammar::{Class, State};

use crate::random::SplitMix64;
use grammar::STATES;
use words::Lexicon;

/// Words of the text that is trained on.
pub const TRAINING_WORDS: usize = 600_000;

/// Words of the text that is evaluated on: another stream of the same source.
pub const HELD_OUT_WORDS: usize = 16_385;

/// The language of one seed.
pub struct Language {
    seed: u64,
    lexicon: Lexicon,
}

impl Language {
    /// The language whose words and texts `seed` chooses. Its grammar and its entropy are the same for every
    /// seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, lexicon: Lexicon::new(seed) }
    }

    /// The text that is trained on.
    pub fn training_text(&self) -> String {
        self.text(0, TRAINING_WORDS)
    }

    /// The text that is evaluated on.
    pub fn held_out_text(&self) -> String {
        self.text(1, HELD_OUT_WORDS)
    }

    /// `count` words of text number `stream`, joined by one space, a line for each sentence.
    pub fn text(&self, stream: u64, count: usize) -> String {
        let mut random = SplitMix64::stream(self.seed, stream.wrapping_add(1));
        let mut text = String::new();
        let mut state = State::Sentence;
        for _ in 0..count {
            let arcs = state.arcs();
            let arc = &arcs[weighted(&mut random, arcs.iter().map(|arc| arc.weight))];
            let word = weighted(&mut random, arc.class.weights());
            text.push_str(self.lexicon.word(arc.class, word));
            text.push(if arc.class == Class::Stop { '\n' } else { ' ' });
            state = arc.next;
        }
        text.pop();
        text.push('\n');
        text
    }

    /// Entropy rate in nats per word: the mean, over the stationary distribution of the states, of the
    /// entropy of the arc and of the word. Its exponential is the least perplexity that any model can have on
    /// long texts.
    pub fn entropy() -> f64 {
        let share = grammar::stationary();
        STATES.iter().zip(share).map(|(state, share)| share * state_entropy(*state)).sum()
    }

    /// Every word once, class by class.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.lexicon.words()
    }
}

/// Entropy of the next word in one state.
fn state_entropy(state: State) -> f64 {
    let arcs = state.arcs();
    let total: u64 = arcs.iter().map(|arc| arc.weight).sum();
    let of_words = |arc: &grammar::Arc| arc.weight as f64 / total as f64 * entropy_of(arc.class.weights());
    entropy_of(arcs.iter().map(|arc| arc.weight)) + arcs.iter().map(of_words).sum::<f64>()
}

/// Entropy in nats of a choice with these weights.
fn entropy_of(weights: impl Iterator<Item = u64> + Clone) -> f64 {
    let total = weights.clone().sum::<u64>() as f64;
    let share = |weight: u64| weight as f64 / total;
    -weights.map(|weight| share(weight) * libm::log(share(weight))).sum::<f64>()
}

/// Index of one of the weights, drawn in proportion to them.
fn weighted(random: &mut SplitMix64, weights: impl Iterator<Item = u64> + Clone) -> usize {
    let mut draw = random.below(weights.clone().sum());
    for (i, weight) in weights.enumerate() {
        if draw < weight {
            return i;
        }
        draw -= weight;
    }
    0
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::hashes::sha256_hex;

    #[test]
    fn the_lexicon_has_a_thousand_different_words() {
        let language = Language::new(42);
        assert_eq!(language.words().count(), 1000);
        assert_eq!(language.words().collect::<HashSet<_>>().len(), 1000);
        assert!(language.words().all(|word| !word.contains(char::is_whitespace)));
    }

    #[test]
    fn the_texts_are_the_same_on_every_machine_and_of_their_length() {
        let language = Language::new(42);
        let text = language.held_out_text();
        assert_eq!(text.split_whitespace().count(), HELD_OUT_WORDS);
        assert_eq!(
            sha256_hex(text.as_bytes()),
            "13751bae5bc1063bb4df0c48eb2f5ba9afe467ccf1b55614b6ee951c499e2825"
        );
        assert_ne!(text, language.text(2, HELD_OUT_WORDS));
        assert_ne!(text, Language::new(43).held_out_text());
    }

    /// The log-probability of a long text under the source's own parse tends to the entropy.
    #[test]
    fn a_long_text_costs_its_entropy() {
        let language = Language::new(7);
        let classes: HashMap<&str, (Class, usize)> =
            Class::ALL.into_iter().flat_map(|class| language.lexicon.of(class)).collect();
        let text = language.text(5, 400_000);
        let (mut state, mut nats, mut count) = (State::Sentence, 0.0, 0.0);
        for word in text.split_whitespace() {
            let (class, index) = classes[word];
            let total: u64 = state.arcs().iter().map(|arc| arc.weight).sum();
            let arcs = state.arcs();
            let arc = arcs.iter().find(|arc| arc.class == class).expect("the grammar allows it");
            let words: Vec<u64> = class.weights().collect();
            let p = arc.weight as f64 / total as f64 * words[index] as f64 / words.iter().sum::<u64>() as f64;
            nats -= p.ln();
            count += 1.0;
            state = arc.next;
        }
        let (found, exact) = (nats / count, Language::entropy());
        assert!((found - exact).abs() < 0.01, "{found} {exact}");
    }

    #[test]
    fn shares_of_the_states_add_up_and_entropies_of_known_choices_are_right() {
        let share = grammar::stationary();
        assert!((share.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(share.iter().all(|share| *share > 0.0));
        assert!((entropy_of([3, 3, 3, 3].into_iter()) - 4f64.ln()).abs() < 1e-15);
        assert_eq!(entropy_of([9].into_iter()), 0.0);
    }
}
