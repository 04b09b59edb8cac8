//! The batches of a training: sequences cut from the text at seeded random positions.

use anyhow::{Result, ensure};

use crate::random::SplitMix64;

/// The batches of one text. Batch `i` depends on the seed and on `i` alone, so a resumed training sees the
/// batches of an uninterrupted one.
#[derive(Clone, Copy, Debug)]
pub struct Batches<'a> {
    ids: &'a [u32],
    seed: u64,
    sequences: usize,
    tokens: usize,
}

impl<'a> Batches<'a> {
    /// Batches of `sequences` sequences of `tokens` predictions.
    ///
    /// # Errors
    /// When a size is 0, or the text has no more than `tokens` tokens; the message has the numbers.
    pub fn new(ids: &'a [u32], seed: u64, sequences: usize, tokens: usize) -> Result<Self> {
        ensure!(sequences > 0 && tokens > 0, "batches of {sequences} x {tokens} tokens are empty");
        ensure!(
            ids.len() > tokens,
            "a text of {} tokens is too short for --seq {tokens}, which needs {}",
            ids.len(),
            tokens.saturating_add(1)
        );
        Ok(Self { ids, seed, sequences, tokens })
    }

    /// Inputs and targets of batch `index`: (sequences, tokens) each.
    pub fn get(&self, index: u64) -> (Vec<u32>, Vec<u32>) {
        let mut random = SplitMix64::stream(self.seed, index);
        let places = (self.ids.len() - self.tokens) as u64;
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..self.sequences {
            let start = random.below(places) as usize;
            inputs.extend_from_slice(&self.ids[start..start + self.tokens]);
            targets.extend_from_slice(&self.ids[start + 1..start + 1 + self.tokens]);
        }
        (inputs, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_follow_inputs_and_batches_repeat_by_number() {
        let ids: Vec<u32> = (0..100).collect();
        let batches = Batches::new(&ids, 7, 3, 5).unwrap();
        let (inputs, targets) = batches.get(4);
        assert_eq!(inputs.len(), 15);
        assert!(inputs.iter().zip(&targets).all(|(a, b)| a + 1 == *b));
        assert_eq!(batches.get(4), (inputs.clone(), targets));
        assert_ne!(batches.get(5).0, inputs);
    }

    #[test]
    fn the_shortest_text_has_one_piece_and_a_shorter_one_none() {
        let ids = [1, 2, 3, 4];
        assert_eq!(Batches::new(&ids, 1, 1, 3).unwrap().get(0), (vec![1, 2, 3], vec![2, 3, 4]));
        let error = Batches::new(&ids, 1, 1, 4).unwrap_err().to_string();
        assert_eq!(error, "a text of 4 tokens is too short for --seq 4, which needs 5");
        assert!(Batches::new(&ids, 1, 0, 3).is_err());
        assert!(Batches::new(&ids, 1, 1, 0).is_err());
    }
}
