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

/// A round repeats the call until it lasts about this long, so that the clock's own cost does not count.
const ROUND: f64 = 200e-6;

/// Calls longer than this are not called once before they are timed: threads wake within 1 % of it.
const LONG: f64 = 5e-3;

/// Times all candidates in turn until `budget` is spent on each (at least 5 rounds).
pub fn interleave(candidates: &mut [Candidate<'_>], budget: Duration) -> Vec<Times> {
    interleave_resting(candidates, budget, || {})
}

/// [`interleave`], with `rest` after each round, off the clock: where threads that wait for more work have to
/// be told to sleep, so that they take no core from the next candidate.
pub fn interleave_resting(
    candidates: &mut [Candidate<'_>],
    budget: Duration,
    mut rest: impl FnMut(),
) -> Vec<Times> {
    let repeats: Vec<usize> = candidates
        .iter_mut()
        .map(|call| {
            call(); // warm-up
            let start = Instant::now();
            call();
            let seconds = start.elapsed().as_secs_f64();
            rest();
            // 0 for a long call: one, and no other before it.
            if seconds > LONG { 0 } else { (ROUND / seconds.max(1e-8)).ceil().clamp(1.0, 1e5) as usize }
        })
        .collect();
    let mut times = vec![Vec::new(); candidates.len()];
    let start = Instant::now();
    let budget = budget * candidates.len() as u32;
    while times[0].len() < 5 || start.elapsed() < budget {
        for ((call, times), &repeats) in candidates.iter_mut().zip(&mut times).zip(&repeats) {
            if repeats > 0 {
                call(); // wakes threads that sleep
            }
            let repeats = repeats.max(1);
            let start = Instant::now();
            for _ in 0..repeats {
                call();
            }
            times.push(start.elapsed().as_secs_f64() / repeats as f64);
            rest();
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
