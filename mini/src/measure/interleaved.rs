//! Timing of several cases against each other.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::progress;

/// Time and number of rounds of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// No round begins after this time, except the first [`Effort::least`].
    pub budget: Duration,
    /// Rounds at least.
    pub least: usize,
    /// Rounds at most.
    pub most: usize,
}

/// Runs `cases` cases one after the other, round after round, so that a machine that changes its speed
/// changes it for all of them. A first round warms up and does not count.
///
/// A progress bar labelled `what` shows the share of the budget that is spent; it is drawn between the runs,
/// never during one. `run` gets the number of the case and returns its time. The result has one sample for
/// each case, in milliseconds.
///
/// # Errors
/// The first one of `run`.
pub fn interleaved(
    what: &'static str,
    effort: Effort,
    cases: usize,
    mut run: impl FnMut(usize) -> Result<Duration>,
) -> Result<Vec<Vec<f64>>> {
    let mut samples = vec![Vec::new(); cases];
    for case in 0..cases {
        run(case)?;
    }
    let bar = progress::bar(effort.budget.as_millis() as u64, what);
    let start = Instant::now();
    for round in 0..effort.most {
        let spent = start.elapsed();
        if round >= effort.least && spent >= effort.budget {
            break;
        }
        bar.set_position(spent.min(effort.budget).as_millis() as u64);
        for (case, sample) in samples.iter_mut().enumerate() {
            sample.push(run(case)?.as_secs_f64() * 1e3);
        }
    }
    bar.finish_and_clear();
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn effort(budget: Duration) -> Effort {
        Effort { budget, least: 2, most: 5 }
    }

    #[test]
    fn cases_alternate_after_one_round_of_warming_up() {
        let mut order = Vec::new();
        let samples = interleaved("test", effort(Duration::ZERO), 2, |case| {
            order.push(case);
            Ok(Duration::from_millis(order.len() as u64))
        })
        .unwrap();
        assert_eq!(order, [0, 1, 0, 1, 0, 1]);
        assert_eq!(samples, [[3.0, 5.0], [4.0, 6.0]]);
    }

    #[test]
    fn rounds_end_at_the_limit_and_at_an_error() {
        let samples = interleaved("test", effort(Duration::MAX), 1, |_| Ok(Duration::ZERO)).unwrap();
        assert_eq!(samples[0].len(), 5);
        assert!(interleaved("test", effort(Duration::MAX), 1, |_| bail!("no")).is_err());
    }
}
