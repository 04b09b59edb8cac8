//! The grammar: classes of words, states, and the arcs between them.

/// Grammatical number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// One.
    Singular,
    /// Several.
    Plural,
}

use Number::{Plural, Singular};

/// A class of words; no word is in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Determiners of a number.
    Determiner(Number),
    /// Names, which are singular.
    Name,
    /// Adjectives.
    Adjective,
    /// Nouns of a number.
    Noun(Number),
    /// Verbs with an object, agreeing with a subject of a number.
    Transitive(Number),
    /// Verbs without an object, agreeing with a subject of a number.
    Intransitive(Number),
    /// Prepositions.
    Preposition,
    /// Adverbs.
    Adverb,
    /// Conjunctions.
    Conjunction,
    /// The end of a sentence.
    Stop,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 14] = [
        Self::Determiner(Singular),
        Self::Determiner(Plural),
        Self::Name,
        Self::Adjective,
        Self::Noun(Singular),
        Self::Noun(Plural),
        Self::Transitive(Singular),
        Self::Transitive(Plural),
        Self::Intransitive(Singular),
        Self::Intransitive(Plural),
        Self::Preposition,
        Self::Adverb,
        Self::Conjunction,
        Self::Stop,
    ];

    /// Words of the class; 1000 in all.
    pub fn size(self) -> usize {
        match self {
            Self::Determiner(_) => 6,
            Self::Name => 120,
            Self::Adjective => 160,
            Self::Noun(_) => 150,
            Self::Transitive(_) => 70,
            Self::Intransitive(_) => 50,
            Self::Preposition => 16,
            Self::Adverb => 144,
            Self::Conjunction => 7,
            Self::Stop => 1,
        }
    }

    /// Weight of each word: Zipf's law (Mandelbrot's form), in whole numbers.
    pub fn weights(self) -> impl Iterator<Item = u64> + Clone {
        (0..self.size() as u64).map(|rank| 100_000 / (rank + 10))
    }
}

/// State of the Markov source: all that the words so far say about the next word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Before a sentence or a clause.
    Sentence,
    /// In the subject, after its determiner.
    Subject(Number),
    /// In the subject, after an adjective.
    SubjectNoun(Number),
    /// After the subject.
    Verb(Number),
    /// In a phrase between subject and verb, after its preposition.
    Phrase(Number),
    /// After the determiner of the phrase: numbers of subject and phrase.
    PhraseNoun(Number, Number),
    /// After the phrase.
    LateVerb(Number),
    /// After a verb with an object.
    Object,
    /// In the object, after its determiner.
    ObjectNoun(Number),
    /// In the object, after an adjective.
    ObjectLast(Number),
    /// After a complete clause.
    Clause,
    /// After its adverb.
    End,
}

/// Every state.
pub const STATES: [State; 22] = [
    State::Sentence,
    State::Subject(Singular),
    State::Subject(Plural),
    State::SubjectNoun(Singular),
    State::SubjectNoun(Plural),
    State::Verb(Singular),
    State::Verb(Plural),
    State::Phrase(Singular),
    State::Phrase(Plural),
    State::PhraseNoun(Singular, Singular),
    State::PhraseNoun(Singular, Plural),
    State::PhraseNoun(Plural, Singular),
    State::PhraseNoun(Plural, Plural),
    State::LateVerb(Singular),
    State::LateVerb(Plural),
    State::Object,
    State::ObjectNoun(Singular),
    State::ObjectNoun(Plural),
    State::ObjectLast(Singular),
    State::ObjectLast(Plural),
    State::Clause,
    State::End,
];

/// One choice of a state.
#[derive(Clone, Copy, Debug)]
pub struct Arc {
    /// Its weight among those of the state, which add up to 100.
    pub weight: u64,
    /// The class of the word that is written.
    pub class: Class,
    /// The state after it.
    pub next: State,
}

fn arc(weight: u64, class: Class, next: State) -> Arc {
    Arc { weight, class, next }
}

impl State {
    /// The choices.
    pub fn arcs(self) -> Vec<Arc> {
        use Class::*;
        match self {
            Self::Sentence => vec![
                arc(40, Determiner(Singular), Self::Subject(Singular)),
                arc(35, Determiner(Plural), Self::Subject(Plural)),
                arc(25, Name, Self::Verb(Singular)),
            ],
            Self::Subject(n) => {
                vec![arc(35, Adjective, Self::SubjectNoun(n)), arc(65, Noun(n), Self::Verb(n))]
            }
            Self::SubjectNoun(n) => {
                vec![arc(15, Adjective, Self::SubjectNoun(n)), arc(85, Noun(n), Self::Verb(n))]
            }
            Self::Verb(n) => vec![
                arc(30, Preposition, Self::Phrase(n)),
                arc(45, Transitive(n), Self::Object),
                arc(25, Intransitive(n), Self::Clause),
            ],
            Self::Phrase(n) => vec![
                arc(50, Determiner(Singular), Self::PhraseNoun(n, Singular)),
                arc(50, Determiner(Plural), Self::PhraseNoun(n, Plural)),
            ],
            Self::PhraseNoun(n, of) => vec![arc(100, Noun(of), Self::LateVerb(n))],
            Self::LateVerb(n) => {
                vec![arc(60, Transitive(n), Self::Object), arc(40, Intransitive(n), Self::Clause)]
            }
            Self::Object => vec![
                arc(40, Determiner(Singular), Self::ObjectNoun(Singular)),
                arc(35, Determiner(Plural), Self::ObjectNoun(Plural)),
                arc(25, Name, Self::Clause),
            ],
            Self::ObjectNoun(n) => {
                vec![arc(30, Adjective, Self::ObjectLast(n)), arc(70, Noun(n), Self::Clause)]
            }
            Self::ObjectLast(n) => vec![arc(100, Noun(n), Self::Clause)],
            Self::Clause => vec![
                arc(30, Adverb, Self::End),
                arc(15, Conjunction, Self::Sentence),
                arc(55, Stop, Self::Sentence),
            ],
            Self::End => vec![arc(20, Conjunction, Self::Sentence), arc(80, Stop, Self::Sentence)],
        }
    }
}

/// Stationary distribution of the source: the share of all words that each of [`STATES`] writes.
///
/// The shares solve `share = share P` and add up to 1: a linear system, solved by elimination. Elimination
/// rather than powers of `P`, which need not converge (a periodic chain).
pub fn stationary() -> Vec<f64> {
    let n = STATES.len();
    // Row `j`: the flow into state `j` minus its share is 0; the last row: the sum is 1.
    let mut rows = vec![vec![0.0; n + 1]; n];
    for (i, state) in STATES.iter().enumerate() {
        let arcs = state.arcs();
        let total: u64 = arcs.iter().map(|arc| arc.weight).sum();
        for arc in &arcs {
            if let Some(j) = STATES.iter().position(|state| *state == arc.next) {
                rows[j][i] += arc.weight as f64 / total as f64;
            }
        }
        rows[i][i] -= 1.0;
    }
    rows[n - 1] = vec![1.0; n + 1];
    for column in 0..n {
        let magnitude = |row: &usize| rows[*row][column].abs();
        let pivot = (column..n).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b))).unwrap_or(column);
        rows.swap(column, pivot);
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_have_a_thousand_words_and_each_word_a_chance() {
        assert_eq!(Class::ALL.map(Class::size).iter().sum::<usize>(), 1000);
        assert!(Class::ALL.iter().all(|class| class.weights().all(|weight| weight > 0)));
    }

    #[test]
    fn arcs_add_up_to_100_and_tell_the_next_state_by_their_class() {
        for state in STATES {
            let arcs = state.arcs();
            assert_eq!(arcs.iter().map(|arc| arc.weight).sum::<u64>(), 100, "{state:?}");
            for (i, arc) in arcs.iter().enumerate() {
                assert!(STATES.contains(&arc.next));
                assert!(arcs[..i].iter().all(|other| other.class != arc.class), "{state:?}");
            }
        }
    }

    #[test]
    fn what_flows_into_a_state_is_its_share() {
        let share = stationary();
        for (j, state) in STATES.iter().enumerate() {
            let mut flow = 0.0;
            for (i, from) in STATES.iter().enumerate() {
                let arcs = from.arcs();
                flow += share[i]
                    * arcs
                        .iter()
                        .filter(|arc| arc.next == *state)
                        .map(|arc| arc.weight as f64 / 100.0)
                        .sum::<f64>();
            }
            assert!((flow - share[j]).abs() < 1e-12, "{state:?}");
        }
    }
}
