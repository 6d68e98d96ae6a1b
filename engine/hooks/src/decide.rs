//! A decider, and the four hooks it can stand behind.
//!
//! Invariant: a decider answers from `now`, its ask and what it was made from. Whether it is Rust of the engine or a
//! component cannot be told from outside.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::check::Malformed;
use crate::{Failure, Heard, Permits, Said, admission, billing, mutation, placement};

/// The instant of a decision, nanoseconds since the Unix epoch. One for a whole call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Now(u64);

impl Now {
    /// The instant `nanos` nanoseconds after the epoch.
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_unix_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn as_unix_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// A decision point by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookName {
    /// May it happen, now, in this shape?
    Admission,
    /// Where do the daughters go?
    Placement,
    /// What differs between them?
    Mutation,
    /// What does it cost?
    Billing,
}

impl HookName {
    /// All hooks, in the order they happen.
    pub const ALL: [Self; 4] = [
        Self::Admission,
        Self::Placement,
        Self::Mutation,
        Self::Billing,
    ];

    /// The name, as in `wit/hooks.wit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Placement => "placement",
            Self::Mutation => "mutation",
            Self::Billing => "billing",
        }
    }
}

impl fmt::Display for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no hook.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a hook: expected admission, placement, mutation or billing")]
pub struct ParseHookNameError {
    /// What was given.
    pub text: String,
}

impl FromStr for HookName {
    type Err = ParseHookNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|hook| hook.as_str() == text);
        found.ok_or_else(|| ParseHookNameError {
            text: text.to_owned(),
        })
    }
}

/// One decision point: its ask, its answer, and what makes an answer right.
pub trait Hook: Send + Sync + 'static {
    /// Its name.
    const NAME: HookName;
    /// What is asked, for a whole fork or batch at once.
    type Ask: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What may be answered.
    type Answer: Clone
        + fmt::Debug
        + PartialEq
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static;

    /// The tenants that are asked about: one, but for batches.
    fn tenants(ask: &Self::Ask) -> Vec<&str>;

    /// Whether the answer keeps to its ask and to what the operator permits.
    fn keeps_to(ask: &Self::Ask, permits: &Permits, answer: &Self::Answer)
    -> Result<(), Malformed>;

    /// Whether the answer refuses something, so that its record is worth keeping.
    fn refuses(answer: &Self::Answer) -> bool;

    /// Whether the outcome of all that was said would be the same if `shadow` counted as well.
    fn agrees(ask: &Self::Ask, said: &[Said<Self>], shadow: &Said<Self>) -> bool
    where
        Self: Sized;
}

fn with<H: Hook>(said: &[Said<H>], shadow: &Said<H>) -> Vec<Said<H>> {
    said.iter().chain([shadow]).cloned().collect()
}

/// Answers one hook.
pub trait Decide<H: Hook>: Send + Sync {
    /// The answer, unchecked, or why there is none.
    fn decide(&self, now: Now, ask: &H::Ask) -> Result<H::Answer, Failure>;
}

/// May a fork happen?
#[derive(Clone, Copy, Debug)]
pub struct Admission;

impl Hook for Admission {
    const NAME: HookName = HookName::Admission;
    type Ask = Vec<admission::Item>;
    type Answer = Vec<admission::Verdict>;

    fn tenants(ask: &Self::Ask) -> Vec<&str> {
        let each = ask.iter().map(|item| item.request.who.tenant.as_str());
        each.collect()
    }

    fn keeps_to(ask: &Self::Ask, _: &Permits, answer: &Self::Answer) -> Result<(), Malformed> {
        admission::keep_to(ask, answer)
    }

    fn refuses(answer: &Self::Answer) -> bool {
        answer
            .iter()
            .any(|verdict| matches!(verdict, admission::Verdict::Deny(_)))
    }

    fn agrees(ask: &Self::Ask, said: &[Said<Self>], shadow: &Said<Self>) -> bool {
        let without = admission::decide(ask, said);
        let with = admission::decide(ask, &with(said, shadow));
        let mut pairs = without.iter().zip(&with);
        pairs.all(|(one, other)| admission::same(one, other))
    }
}

/// Where do daughters go?
#[derive(Clone, Copy, Debug)]
pub struct Placement;

impl Hook for Placement {
    const NAME: HookName = HookName::Placement;
    type Ask = placement::Question;
    type Answer = placement::Answer;

    fn tenants(ask: &Self::Ask) -> Vec<&str> {
        vec![&ask.request.who.tenant]
    }

    fn keeps_to(ask: &Self::Ask, _: &Permits, answer: &Self::Answer) -> Result<(), Malformed> {
        placement::keeps_to(ask, answer)
    }

    fn refuses(answer: &Self::Answer) -> bool {
        let rejected = |ranking: &_| matches!(ranking, placement::Ranking::Reject(_));
        !answer.rankings.is_empty() && answer.rankings.iter().all(rejected)
    }

    fn agrees(ask: &Self::Ask, said: &[Said<Self>], shadow: &Said<Self>) -> bool {
        let without = placement::rank(ask, said);
        match (without, placement::rank(ask, &with(said, shadow))) {
            (Ok(one), Ok(other)) => placement::same(&one, &other),
            (one, other) => one.is_err() == other.is_err(),
        }
    }
}

/// What differs between daughters?
#[derive(Clone, Copy, Debug)]
pub struct Mutation;

impl Hook for Mutation {
    const NAME: HookName = HookName::Mutation;
    type Ask = mutation::Brief;
    type Answer = mutation::Outcome;

    fn tenants(ask: &Self::Ask) -> Vec<&str> {
        vec![&ask.request.who.tenant]
    }

    fn keeps_to(
        ask: &Self::Ask,
        permits: &Permits,
        answer: &Self::Answer,
    ) -> Result<(), Malformed> {
        mutation::keeps_to(ask, permits, answer)
    }

    fn refuses(answer: &Self::Answer) -> bool {
        matches!(answer, mutation::Outcome::Refuse(_))
    }

    fn agrees(ask: &Self::Ask, said: &[Said<Self>], shadow: &Said<Self>) -> bool {
        let without = mutation::combine(ask, said);
        match (without, mutation::combine(ask, &with(said, shadow))) {
            (Ok(one), Ok(other)) => one.is_like(&other),
            (one, other) => one.is_err() == other.is_err(),
        }
    }
}

/// What does usage cost?
#[derive(Clone, Copy, Debug)]
pub struct Billing;

impl Hook for Billing {
    const NAME: HookName = HookName::Billing;
    type Ask = billing::Batch;
    type Answer = billing::Rated;

    fn tenants(ask: &Self::Ask) -> Vec<&str> {
        let each = ask.accounts.iter().map(|account| account.tenant.as_str());
        each.collect()
    }

    fn keeps_to(ask: &Self::Ask, _: &Permits, answer: &Self::Answer) -> Result<(), Malformed> {
        billing::keeps_to(ask, answer)
    }

    fn refuses(answer: &Self::Answer) -> bool {
        let stops = |budget: &billing::Budget| budget.action.is_harsh();
        answer.budgets.iter().any(stops)
    }

    /// Two answers are never joined here: a shadow agrees if it would bill what is billed.
    fn agrees(_: &Self::Ask, said: &[Said<Self>], shadow: &Said<Self>) -> bool {
        let bills = |one: &Said<Self>| match &one.heard {
            Heard::Enforced(answer) => Some(answer.answer().clone()),
            Heard::Warned(_) | Heard::Ignored(_) | Heard::Failed(_) => None,
        };
        said.iter().find_map(bills).unwrap_or_default() == bills(shadow).unwrap_or_default()
    }
}
