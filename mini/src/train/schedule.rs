//! The learning rate of each step.

/// Warm-up, then a constant rate or one that falls to zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate after the warm-up.
    pub rate: f64,
    /// Steps over which the rate rises linearly.
    pub warmup: u64,
    /// Step at which the rate reaches zero, falling linearly from the end of the warm-up; `None` for a
    /// constant rate.
    pub decay: Option<u64>,
}

impl Schedule {
    /// The rate of step number `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.rate * (step + 1) as f64 / self.warmup as f64;
        }
        match self.decay {
            Some(total) if total > self.warmup => {
                let left = total.saturating_sub(step) as f64 / (total - self.warmup) as f64;
                self.rate * left
            }
            _ => self.rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_stays() {
        let schedule = Schedule { rate: 1.0, warmup: 4, decay: None };
        assert_eq!([0, 1, 3, 4, 1000].map(|step| schedule.at(step)), [0.25, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!(Schedule { warmup: 0, ..schedule }.at(0), 1.0);
    }

    #[test]
    fn it_falls_to_zero_after_the_last_step() {
        let schedule = Schedule { rate: 2.0, warmup: 2, decay: Some(6) };
        assert_eq!([1, 2, 4, 5, 6, 7].map(|step| schedule.at(step)), [2.0, 2.0, 1.0, 0.5, 0.0, 0.0]);
        assert_eq!(Schedule { decay: Some(1), ..schedule }.at(5), 2.0);
    }
}
