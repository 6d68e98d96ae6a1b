//! How long the steps of an introduction took.
//!
//! Invariant: each step lasts from the end of the one before, so that they add up to the whole.

use std::time::{Duration, Instant};

use super::Step;

/// How long each step took.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTimes([Duration; Step::ALL.len()]);

impl StepTimes {
    /// How long a step took; nothing if it was not taken.
    pub fn of(&self, step: Step) -> Duration {
        self.0.get(step as usize).copied().unwrap_or_default()
    }
}

/// The stopwatch of one introduction.
pub(super) struct Watch {
    last: Instant,
    times: StepTimes,
}

impl Watch {
    pub(super) fn begin() -> Self {
        Self {
            last: Instant::now(),
            times: StepTimes::default(),
        }
    }

    /// A step ends now.
    pub(super) fn done(&mut self, step: Step) {
        let now = Instant::now();
        if let Some(time) = self.times.0.get_mut(step as usize) {
            *time = now.saturating_duration_since(self.last);
        }
        self.last = now;
    }

    pub(super) fn times(&self) -> StepTimes {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_add_up_to_the_whole() {
        let begun = Instant::now();
        let mut watch = Watch::begin();
        let first = watch.last;
        for step in Step::ALL {
            watch.done(step);
        }
        let times = watch.times();
        let sum: Duration = Step::ALL.into_iter().map(|step| times.of(step)).sum();
        assert_eq!(sum, watch.last - first);
        assert!(sum <= begun.elapsed());
    }
}
