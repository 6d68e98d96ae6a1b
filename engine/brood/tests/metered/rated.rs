//! What tests of rating ask an engine: rate, sum up, list lines, replay.

use brood_meter::Period;
use brood_service::engine::usage::{
    GroupBy, LineAnswer, RateAnswer, SummaryAnswer, UsageFilter, Whose,
};

use super::Metered;

/// Everybody's.
pub(crate) const ALL: UsageFilter = UsageFilter {
    whose: Whose::All,
    project: None,
    lineage: None,
    template: None,
    machine: None,
    label: None,
};
/// What an hour of 1 vCPU and 1 GiB costs by the prices that ship, 1e-9 EUR.
pub(crate) const HOUR_COSTS: i128 = 25_000_000;
/// What a fork costs.
pub(crate) const FORK_COSTS: i128 = 100_000;

pub(crate) fn period(words: &str) -> Period {
    words.parse().expect("a month")
}

impl Metered {
    pub(crate) fn rate(&self) -> RateAnswer {
        self.run(self.engine.rate_due())
            .expect("the database is there")
    }

    pub(crate) fn summary(&self, words: &str, by: &GroupBy) -> SummaryAnswer {
        let summary = self
            .engine
            .usage_summary(&self.caller, &ALL, by, period(words));
        summary.expect("an operator looks")
    }

    pub(crate) fn lines(&self, words: &str) -> Vec<LineAnswer> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let found = self
                .engine
                .usage_lines(&self.caller, &ALL, period(words), after);
            let found = found.expect("an operator looks");
            all.extend(found.items);
            match found.next {
                Some(next) => after = next,
                None => return all,
            }
        }
    }

    /// Sum of all lines of a month, which is also what the summary says.
    pub(crate) fn amount(&self, words: &str) -> i128 {
        let lines = self.lines(words).into_iter();
        let of_lines: i128 = lines
            .map(|one| i128::from(one.line.priced.amount_nanos))
            .sum();
        let groups = self.summary(words, &GroupBy::Machine).groups.into_values();
        let of_summary: i128 = groups
            .flat_map(|group| group.charges.into_values())
            .map(|charge| charge.amount_nanos)
            .sum();
        assert_eq!(of_lines, of_summary, "a summary adds up to its lines");
        of_lines
    }

    pub(crate) fn replays(&self, words: &str) -> (u64, usize) {
        let replayed = self.run(self.engine.replay_usage(&self.caller, period(words)));
        let replayed = replayed.expect("somebody bills");
        println!("{replayed:?}");
        (replayed.identical, replayed.different.len())
    }
}

pub(crate) const NOVEMBER: &str = "2026-11";

pub(crate) fn november() -> i64 {
    period(NOVEMBER).start_ms()
}
