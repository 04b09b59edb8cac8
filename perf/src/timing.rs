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

/// What is timed.
pub struct Candidate<'a> {
    call: Box<dyn FnMut() + 'a>,
    rest: Option<Box<dyn FnMut() + 'a>>,
}

impl<'a> Candidate<'a> {
    /// One call of `call` is one unit of work.
    pub fn new(call: impl FnMut() + 'a) -> Candidate<'a> {
        Candidate { call: Box::new(call), rest: None }
    }

    /// `rest` runs after each round, off the clock: where threads that wait for more work have to be told to
    /// sleep, so that they take no core from the next candidate.
    pub fn resting(mut self, rest: impl FnMut() + 'a) -> Candidate<'a> {
        self.rest = Some(Box::new(rest));
        self
    }

    /// Calls once, which also wakes threads that sleep, and returns how long that took.
    fn wake(&mut self) -> f64 {
        let start = Instant::now();
        (self.call)();
        start.elapsed().as_secs_f64()
    }

    fn rest(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest();
        }
    }
}

/// A round repeats the call until it lasts about this long, so that the clock's own cost does not count.
const ROUND: f64 = 200e-6;

/// Calls longer than this are not called once before they are timed: threads wake within 1 % of it.
const LONG: f64 = 5e-3;

/// Times all candidates in turn until `budget` is spent on each (at least 5 rounds).
pub fn interleave(candidates: &mut [Candidate<'_>], budget: Duration) -> Vec<Times> {
    let calls: Vec<f64> = candidates
        .iter_mut()
        .map(|candidate| {
            candidate.wake();
            let seconds = candidate.wake();
            candidate.rest();
            seconds
        })
        .collect();
    let mut times = vec![Vec::new(); candidates.len()];
    let start = Instant::now();
    let budget = budget * candidates.len() as u32;
    while times[0].len() < 5 || start.elapsed() < budget {
        for ((candidate, times), &seconds) in candidates.iter_mut().zip(&mut times).zip(&calls) {
            let repeats = (ROUND / seconds.max(1e-8)).ceil().clamp(1.0, 1e5) as usize;
            if seconds < LONG {
                candidate.wake();
            }
            let start = Instant::now();
            for _ in 0..repeats {
                (candidate.call)();
            }
            times.push(start.elapsed().as_secs_f64() / repeats as f64);
            candidate.rest();
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
