//! Beam search with a length penalty.

use anyhow::{Result, ensure};
use kvern::{MatMut, ops};

use crate::model::Session;

/// Parameters of a beam search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Beam width: continuations that are kept at each step.
    pub beams: usize,
    /// Most tokens.
    pub tokens: usize,
    /// Exponent `a` of the penalty: see [`Beam::score`].
    pub penalty: f64,
    /// A text ends with this token.
    pub end: Option<u32>,
}

/// A continuation of the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    /// The tokens after the prompt.
    pub ids: Vec<u32>,
    /// Natural logarithm of their probability.
    pub log_probability: f64,
}

impl Beam {
    /// `log_probability / ((5 + tokens) / 6)^penalty` (Wu et al. 2016): without the penalty, short texts
    /// would always win.
    pub fn score(&self, penalty: f64) -> f64 {
        let length = (5.0 + self.ids.len() as f64) / 6.0;
        self.log_probability / libm::pow(length, penalty)
    }
}

/// Returns the continuations with the best scores, the best first: those that ended, and those that reached
/// the limit of tokens.
///
/// One session serves all beams: it truncates its caches to the common prefix of the previous beam and the
/// next one, and computes the remaining tokens.
///
/// # Errors
/// When the prompt is empty, there are no beams or tokens, or the session has no room for the tokens.
pub fn search(session: &mut Session<'_>, prompt: &[u32], search: Search) -> Result<Vec<Beam>> {
    ensure!(!prompt.is_empty(), "the prompt has 0 tokens; at least 1 is needed");
    ensure!(search.beams > 0 && search.tokens > 0, "a search needs a beam and a token");
    let mut walker = Walker { session, prompt, held: Vec::new() };
    walker.session.clear();
    let mut open = vec![Beam { ids: Vec::new(), log_probability: 0.0 }];
    let mut ended = Vec::new();
    for _ in 0..search.tokens {
        let mut next = Vec::new();
        for beam in &open {
            let log_probabilities = walker.log_probabilities(&beam.ids)?;
            for (id, log_probability) in best(&log_probabilities, search.beams) {
                let mut ids = beam.ids.clone();
                ids.push(id);
                next.push(Beam { ids, log_probability: beam.log_probability + log_probability });
            }
        }
        // The sort is stable: equal ones stay in the order of their beams and ids.
        next.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
        next.truncate(search.beams);
        let (done, rest): (Vec<_>, Vec<_>) =
            next.into_iter().partition(|beam| beam.ids.last().copied() == search.end);
        ended.extend(done);
        open = rest;
        if open.is_empty() || ended.len() >= search.beams {
            break;
        }
    }
    if ended.len() < search.beams {
        ended.append(&mut open);
    }
    ended.sort_by(|a, b| b.score(search.penalty).total_cmp(&a.score(search.penalty)));
    ended.truncate(search.beams);
    Ok(ended)
}

/// A session, and the ids after the prompt that its caches hold.
struct Walker<'a, 'm> {
    session: &'a mut Session<'m>,
    prompt: &'a [u32],
    held: Vec<u32>,
}

impl Walker<'_, '_> {
    /// Log-probabilities of the token after the prompt and `ids`.
    fn log_probabilities(&mut self, ids: &[u32]) -> Result<Vec<f64>> {
        let (ctx, vocabulary) = (self.session.context(), self.session.model().shape().vocabulary);
        if self.session.is_empty() {
            let (_, before) = self.prompt.split_last().unwrap_or((&0, &[]));
            if !before.is_empty() {
                self.session.forward(before)?;
            }
        }
        // The last token is always recomputed, because its logits are the result.
        let common = self.held.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let keep = common.min(ids.len().saturating_sub(1));
        let from_prompt = ids.is_empty() || self.held.is_empty() && self.session.len() < self.prompt.len();
        let mut rest = Vec::new();
        if from_prompt {
            self.session.truncate(self.prompt.len() - 1)?;
            rest.extend(self.prompt.last());
            rest.extend(ids);
        } else {
            self.session.truncate(self.prompt.len() + keep)?;
            rest.extend(&ids[keep..]);
        }
        let mut logits = Vec::new();
        for id in rest {
            logits = self.session.forward(&[id])?.to_vec();
        }
        self.held = ids.to_vec();

        let best = ops::argmax(ctx, &logits).unwrap_or(0);
        let mut probabilities = logits.clone();
        ops::softmax(ctx, MatMut::dense(&mut probabilities, 1, vocabulary)?);
        let log_sum = f64::from(logits[best]) - libm::log(f64::from(probabilities[best]));
        Ok(logits.iter().map(|&logit| f64::from(logit) - log_sum).collect())
    }
}

/// The `count` greatest values with their places, the first of equals first.
fn best(values: &[f64], count: usize) -> Vec<(u32, f64)> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.into_iter().take(count).map(|id| (id as u32, values[id])).collect()
}

#[cfg(test)]
mod tests {
    use kvern::Context;

    use super::super::generate::generate;
    use super::*;
    use crate::model::{Model, Quant, Shape, Weights};

    fn with_session<T>(vocabulary: usize, test: impl FnOnce(&mut Session<'_>) -> T) -> T {
        let ctx = Context::serial();
        let shape = Shape { vocabulary, dim: 32, heads: 1, ffn: 32, layers: 1, context: 16 };
        let model = Model::pack(&ctx, shape, Weights::initial(&shape, 9), Quant::Fp32).unwrap();
        test(&mut Session::new(&ctx, &model, 8).unwrap())
    }

    const SEARCH: Search = Search { beams: 1, tokens: 6, penalty: 0.6, end: None };

    #[test]
    fn one_beam_is_greedy() {
        with_session(50, |session| {
            let greedy = generate(session, &[2, 7], 6, true, |_| ()).unwrap().ids;
            assert_eq!(search(session, &[2, 7], SEARCH).unwrap()[0].ids, greedy);
        });
    }

    /// With as many beams as there are sequences, the search is exhaustive.
    #[test]
    fn enough_beams_find_the_best_of_all_texts() {
        with_session(5, |session| {
            let all = Search { beams: 625, tokens: 4, penalty: 0.0, ..SEARCH };
            let found = search(session, &[1], all).unwrap();
            assert_eq!(found.len(), 625);
            let sum: f64 = found.iter().map(|beam| beam.log_probability.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-4, "{sum}");
            assert!(found.windows(2).all(|pair| pair[0].log_probability >= pair[1].log_probability));
            let few = search(session, &[1], Search { beams: 125, ..all }).unwrap();
            assert_eq!(few[0], found[0]);
        });
    }

    #[test]
    fn texts_end_with_the_end_and_long_ones_win_by_the_penalty() {
        with_session(5, |session| {
            let ending = Search { beams: 20, tokens: 6, end: Some(3), ..SEARCH };
            let [short, long] = [0.0, 3.0].map(|penalty| {
                let found = search(session, &[1], Search { penalty, ..ending }).unwrap();
                assert!(found.iter().all(|beam| beam.ids.last() == Some(&3) || beam.ids.len() == 6));
                assert!(found.iter().all(|beam| !beam.ids[..beam.ids.len() - 1].contains(&3)));
                found[0].ids.len()
            });
            assert!(short <= long, "{short} {long}");
        });
        let beam = Beam { ids: vec![1; 7], log_probability: -4.0 };
        assert_eq!((beam.score(0.0), beam.score(1.0)), (-4.0, -2.0));
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        with_session(5, |session| {
            assert!(search(session, &[], SEARCH).is_err());
            assert!(search(session, &[1], Search { beams: 0, ..SEARCH }).is_err());
            assert!(search(session, &[1], Search { tokens: 99, ..SEARCH }).is_err());
        });
    }
}
