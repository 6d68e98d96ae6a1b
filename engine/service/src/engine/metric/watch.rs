//! The steps of a fork, timed as they are taken.
//!
//! Invariant: each step lasts from the end of the one before, so that they add up to the whole.

use std::time::{Duration, Instant};

use super::{Engine, of};
use crate::engine::ForkAnswer;

/// One step of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Step {
    /// Policies and limits admit it.
    Admission,
    /// It stands in line, until there is room.
    Line,
    /// Its daughters have a place.
    Placement,
    /// There is a plan, and a stamp for each.
    Mutation,
    /// It is written down, before it is done.
    Intent,
    /// The mother is in her seat.
    Queue,
    /// They are born.
    Fork,
    /// They are stamped and confirmed.
    Stamp,
    /// They are written down.
    Commit,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Line => "line",
            Self::Placement => "placement",
            Self::Mutation => "mutation",
            Self::Intent => "intent",
            Self::Queue => "queue",
            Self::Fork => "fork",
            Self::Stamp => "stamp",
            Self::Commit => "commit",
        }
    }
}

/// The stopwatch of one fork.
pub(in crate::engine) struct Laps {
    engine: Engine,
    source: &'static str,
    begun: Instant,
    last: Instant,
}

impl Laps {
    /// Begins now.
    pub(in crate::engine) fn begin(engine: &Engine, source: &'static str) -> Self {
        let now = Instant::now();
        Self {
            engine: engine.clone(),
            source,
            begun: now,
            last: now,
        }
    }

    /// A step ends now.
    pub(in crate::engine) fn done(&mut self, step: Step) {
        self.done_at(step, Instant::now());
    }

    /// Daughters are born, and stamped since `stamping` where there is somebody to stamp.
    pub(in crate::engine) fn born(&mut self, stamping: Option<Instant>) {
        match stamping {
            Some(stamping) => {
                self.done_at(Step::Fork, stamping);
                self.done(Step::Stamp);
            }
            None => self.done(Step::Fork),
        }
    }

    /// A step ended then.
    fn done_at(&mut self, step: Step, end: Instant) {
        let took = end.saturating_duration_since(self.last);
        self.last = self.last.max(end);
        let labels = [("source", self.source), ("step", step.as_str())];
        let steps = &self.engine.metrics().steps;
        steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// All of it is committed.
    pub(in crate::engine) fn committed(&self, answer: &ForkAnswer) {
        let (metrics, labels) = (self.engine.metrics(), of(self.source));
        let count = |many: usize| u64::try_from(many).unwrap_or(u64::MAX);
        let whole = self.begun.elapsed().as_secs_f64();
        metrics.fork.get_or_create(&labels).observe(whole);
        let born = metrics.daughters.get_or_create(&labels);
        born.inc_by(count(answer.daughters.len()));
        drop(born);
        let missing = metrics.missing.get_or_create(&labels);
        missing.inc_by(count(answer.missing.len()));
        drop(missing);
        if let Some(pause) = answer.mother_pause_us {
            let pauses = metrics.mother_pause.get_or_create(&labels);
            pauses.observe(seconds(pause));
        }
        let each = answer.daughters.iter();
        let first = each.clone().filter_map(|one| one.first_instruction_us);
        for us in first {
            let times = metrics.first_instruction.get_or_create(&labels);
            times.observe(seconds(us));
        }
        for us in each.filter_map(|one| one.confirmed_us) {
            let times = metrics.confirmed.get_or_create(&labels);
            times.observe(seconds(us));
        }
    }
}

fn seconds(micros: f64) -> f64 {
    // What no clock can have measured is nothing.
    let whole = Duration::try_from_secs_f64(micros / 1e6);
    whole.unwrap_or_default().as_secs_f64()
}
