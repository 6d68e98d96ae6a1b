//! What the host answered during a call, so that the call can be replayed.
//!
//! Invariant: only what may differ between two calls with the same ask, instant and settings is written down, in the
//! order it was asked: the state. A replay that asks something else, or in another order, is a difference, and is told.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::state::StateRefusal;

/// One answer of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAnswer {
    /// What was asked.
    pub(crate) asked: HostAsk,
    /// What was answered.
    pub(crate) told: HostTold,
}

impl HostAnswer {
    /// Bytes that it is counted as.
    pub(crate) fn size(&self) -> usize {
        let asked: usize = match &self.asked {
            HostAsk::Get(keys) => keys.iter().map(String::len).sum(),
            HostAsk::Set(entries, _) => {
                let each = entries.iter();
                each.map(|(key, bytes)| key.len() + bytes.as_ref().map_or(0, Vec::len))
                    .sum()
            }
            HostAsk::Add(deltas) => deltas.iter().map(|(key, _)| key.len() + 16).sum(),
        };
        let told = match &self.told {
            HostTold::Got(got) => got.iter().flatten().map(Vec::len).sum(),
            HostTold::Set(_) | HostTold::Added(_) => 0,
        };
        size_of::<Self>() + asked + told
    }
}

/// What a component asks of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HostAsk {
    Get(Vec<String>),
    Set(Vec<(String, Option<Vec<u8>>)>, Option<u64>),
    Add(Vec<(String, i64)>),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HostTold {
    Got(Vec<Option<Vec<u8>>>),
    Set(Result<(), StateRefusal>),
    Added(Result<Vec<i64>, StateRefusal>),
}

/// Records answers, or gives recorded ones.
#[derive(Debug)]
pub(crate) enum Journal {
    Recording(Vec<HostAnswer>),
    Replaying(VecDeque<HostAnswer>),
}

impl Journal {
    pub(crate) const fn recording() -> Self {
        Self::Recording(Vec::new())
    }

    pub(crate) fn replaying(answers: Vec<HostAnswer>) -> Self {
        Self::Replaying(answers.into())
    }

    /// The recorded answer to this, in a replay. An error is a difference.
    pub(super) fn recorded(&mut self, asked: &HostAsk) -> Option<Result<HostTold, Differs>> {
        let Self::Replaying(answers) = self else {
            return None;
        };
        Some(match answers.pop_front() {
            Some(answer) if answer.asked == *asked => Ok(answer.told),
            Some(_) => Err(Differs("another question of its state")),
            None => Err(Differs("one more question of its state")),
        })
    }

    pub(super) fn record(&mut self, asked: HostAsk, told: HostTold) {
        if let Self::Recording(answers) = self {
            answers.push(HostAnswer { asked, told });
        }
    }

    /// What was recorded, or what a replay has not asked for.
    pub(crate) fn into_answers(self) -> Vec<HostAnswer> {
        match self {
            Self::Recording(answers) => answers,
            Self::Replaying(answers) => answers.into(),
        }
    }
}

/// A replay left the recorded path.
#[derive(Debug, thiserror::Error)]
#[error("the replay asks {0}")]
pub(crate) struct Differs(pub(super) &'static str);
