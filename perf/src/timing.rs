//! Interleaved timing: every candidate of a case runs in turn, round after round.

use std::time::{Duration, Instant};

/// Seconds that one call took, for each candidate.
pub struct Times(Vec<f64>);

impl Times {
    /// The middle of all rounds.
    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }
}

/// A candidate: one call is one unit of work.
pub type Candidate<'a> = Box<dyn FnMut() + 'a>;

/// Times all candidates in turn until `budget` is spent on each (at least 5 rounds). A round repeats the call
/// until it lasts about 200 us, so that the clock's own cost does not count.
pub fn interleave(candidates: &mut [Candidate<'_>], budget: Duration) -> Vec<Times> {
    let repeats: Vec<usize> = candidates
        .iter_mut()
        .map(|call| {
            call(); // warm-up
            let start = Instant::now();
            call();
            (200e-6 / start.elapsed().as_secs_f64().max(1e-8)).ceil().clamp(1.0, 1e5) as usize
        })
        .collect();
    let mut times = vec![Vec::new(); candidates.len()];
    let start = Instant::now();
    let budget = budget * candidates.len() as u32;
    while times[0].len() < 5 || start.elapsed() < budget {
        for ((call, times), &repeats) in candidates.iter_mut().zip(&mut times).zip(&repeats) {
            let start = Instant::now();
            for _ in 0..repeats {
                call();
            }
            times.push(start.elapsed().as_secs_f64() / repeats as f64);
        }
    }
    times
        .into_iter()
        .map(|mut t| {
            t.sort_by(f64::total_cmp);
            Times(t)
        })
        .collect()
}
