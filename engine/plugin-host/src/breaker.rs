//! The breaker of a binding: after repeated failures its component is left alone for a while.
//!
//! ```text
//!            failures in the window          open_ms over
//!  closed ──────────────────────────► open ──────────────► trial: one call
//!    ▲                                 ▲                     │        │
//!    └──────────── it answers ─────────┼─────────────────────┘        │
//!                                      └────── it fails ──────────────┘
//! ```
//!
//! Invariant: a function of the instants of its calls; it reads no clock.

use std::collections::VecDeque;

use brood_hooks::{Failure, Now};

use brood_policy::Breaker as Options;

#[derive(Debug)]
enum State {
    Closed(VecDeque<u64>),
    Open { until_ms: u64 },
    Trial { since_ms: u64 },
}

#[derive(Debug)]
pub(crate) struct Breaker {
    options: Options,
    state: State,
}

impl Breaker {
    pub(crate) const fn new(options: Options) -> Self {
        Self {
            options,
            state: State::Closed(VecDeque::new()),
        }
    }

    /// Whether a call may be made now.
    pub(crate) fn admit(&mut self, now: Now) -> Result<(), Failure> {
        let now_ms = now.as_unix_millis();
        let retry_ms = match self.state {
            State::Closed(_) => return Ok(()),
            State::Open { until_ms } if until_ms <= now_ms => {
                self.state = State::Trial { since_ms: now_ms };
                return Ok(());
            }
            State::Open { until_ms } => until_ms - now_ms,
            // A trial that never came back, because its host ended or panicked, is not waited for.
            State::Trial { since_ms } => {
                let until_ms = since_ms.saturating_add(self.options.open_ms);
                if until_ms <= now_ms {
                    self.state = State::Trial { since_ms: now_ms };
                    return Ok(());
                }
                until_ms - now_ms
            }
        };
        let failures = self.options.failures;
        Err(Failure::BreakerOpen { failures, retry_ms })
    }

    /// What became of a call that was admitted.
    pub(crate) fn note(&mut self, now: Now, failure: Option<&Failure>) {
        let now_ms = now.as_unix_millis();
        let opened = State::Open {
            until_ms: now_ms.saturating_add(self.options.open_ms),
        };
        let Some(failure) = failure else {
            if matches!(self.state, State::Trial { .. }) {
                self.state = State::Closed(VecDeque::new());
            }
            return;
        };
        match &mut self.state {
            // A trial that never reached the component says nothing about it: the next call is the trial.
            State::Trial { .. } if !failure.is_components() => {
                self.state = State::Open { until_ms: now_ms };
            }
            State::Trial { .. } => self.state = opened,
            State::Closed(_) if !failure.is_components() => {}
            State::Closed(failures) => {
                let window = self.options.window_ms;
                failures.push_back(now_ms);
                while failures
                    .front()
                    .is_some_and(|at| at.saturating_add(window) <= now_ms)
                {
                    failures.pop_front();
                }
                if failures.len() >= self.options.failures as usize {
                    self.state = opened;
                }
            }
            State::Open { .. } => {}
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::from_unix_nanos(ms * 1_000_000)
    }

    fn breaker() -> Breaker {
        Breaker::new(Options {
            failures: 2,
            window_ms: 100,
            open_ms: 50,
        })
    }

    const TRAP: Failure = Failure::OutOfFuel { fuel: 1 };

    #[test]
    fn failures_within_the_window_open_it_and_one_trial_closes_it() {
        let mut breaker = breaker();
        breaker.note(at(0), Some(&TRAP));
        assert!(breaker.admit(at(10)).is_ok());
        breaker.note(at(10), Some(&TRAP));
        assert_eq!(
            breaker.admit(at(20)),
            Err(Failure::BreakerOpen {
                failures: 2,
                retry_ms: 40
            })
        );
        assert!(breaker.admit(at(60)).is_ok(), "the trial");
        assert!(breaker.admit(at(60)).is_err(), "one at a time");
        breaker.note(at(61), None);
        assert!(breaker.admit(at(62)).is_ok());
        breaker.note(at(62), Some(&TRAP));
        assert!(breaker.admit(at(63)).is_ok(), "old failures are forgotten");
    }

    #[test]
    fn trial_that_fails_opens_it_again_and_one_that_never_ran_is_tried_again() {
        let mut breaker = breaker();
        breaker.note(at(0), Some(&TRAP));
        breaker.note(at(0), Some(&TRAP));
        assert!(breaker.admit(at(50)).is_ok());
        breaker.note(at(50), Some(&TRAP));
        assert!(breaker.admit(at(99)).is_err());
        assert!(breaker.admit(at(100)).is_ok());
        breaker.note(at(100), Some(&Failure::Overloaded { waiting: 1 }));
        assert!(breaker.admit(at(100)).is_ok());
    }

    #[test]
    fn trial_that_never_comes_back_is_followed_by_another() {
        let mut breaker = breaker();
        breaker.note(at(0), Some(&TRAP));
        breaker.note(at(0), Some(&TRAP));
        assert!(breaker.admit(at(50)).is_ok());
        assert!(breaker.admit(at(99)).is_err());
        assert!(breaker.admit(at(100)).is_ok());
        assert!(breaker.admit(at(100)).is_err());
    }

    #[test]
    fn failures_further_apart_than_the_window_do_not_add_up() {
        let mut breaker = breaker();
        for ms in [0, 100, 200, 300] {
            breaker.note(at(ms), Some(&TRAP));
            assert!(!breaker.is_open(), "{ms}");
        }
    }
}
