//! Checked answers, and the flaws an answer can have.
//!
//! Invariant: a [`Checked`] comes out of [`check`] and nowhere else, so what is combined has kept to its ask.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Hook, Permits};

/// An answer that has kept to its ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<A>(A);

impl<A> Checked<A> {
    /// The answer.
    pub const fn answer(&self) -> &A {
        &self.0
    }
}

/// Checks an answer against its ask.
pub fn check<H: Hook>(
    ask: &H::Ask,
    permits: &Permits,
    answer: H::Answer,
) -> Result<Checked<H::Answer>, Malformed> {
    H::keeps_to(ask, permits, &answer)?;
    Ok(Checked(answer))
}

/// A flaw and the place in the answer that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{at}: {flaw}")]
pub struct Malformed {
    /// The place, as `verdicts[3].grant.count`.
    pub at: String,
    /// What is wrong there.
    pub flaw: Flaw,
}

impl Malformed {
    /// The same flaw, one step further out.
    pub(crate) fn within(mut self, outer: impl fmt::Display) -> Self {
        self.at = if self.at.is_empty() {
            outer.to_string()
        } else {
            format!("{outer}.{}", self.at)
        };
        self
    }
}

/// What can be wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Flaw {
    /// A positional list of another length than what it answers.
    #[error("{found} elements answer {expected}")]
    Length {
        /// Elements asked about.
        expected: u64,
        /// Elements answered.
        found: u64,
    },
    /// More elements or bytes than are allowed.
    #[error("{found} are more than {limit}")]
    TooMany {
        /// Most that are allowed.
        limit: u64,
        /// How many there are.
        found: u64,
    },
    /// A number outside its range.
    #[error("{found} is not in {min} ..= {max}")]
    Range {
        /// Least.
        min: i128,
        /// Greatest.
        max: i128,
        /// What was answered.
        found: i128,
    },
    /// An answer wider than its ask.
    #[error("{found} is wider than the {asked} that was asked")]
    Wider {
        /// What was asked.
        asked: i128,
        /// What was answered.
        found: i128,
    },
    /// A live fork inherits this, and it cannot be changed.
    #[error("{found} is not the {asked} that daughters of a live fork inherit")]
    Inherited {
        /// What is inherited.
        asked: i128,
        /// What was answered.
        found: i128,
    },
    /// A name that was not asked about.
    #[error("'{name}' was not asked")]
    NotAsked {
        /// The name.
        name: String,
    },
    /// A span that leaves the request.
    #[error(
        "{first} .. {first}+{count} is not within {outer_first} .. {outer_first}+{outer_count}, or is empty"
    )]
    Span {
        /// First daughter.
        first: u32,
        /// How many.
        count: u32,
        /// First daughter of the request.
        outer_first: u32,
        /// How many there are.
        outer_count: u32,
    },
    /// A string in a form it must not have.
    #[error("'{text}' is not {expected}")]
    Form {
        /// What it should be.
        expected: String,
        /// What it is, cut.
        text: String,
    },
    /// Twice the same where once is allowed.
    #[error("'{name}' is there twice")]
    Duplicate {
        /// What.
        name: String,
    },
    /// The operator does not permit it.
    #[error("the binding does not permit {what} '{name}'")]
    NotPermitted {
        /// Secret, network profile, file.
        what: String,
        /// Which.
        name: String,
    },
    /// A template that some daughter cannot fill in.
    #[error("no {what} is known for daughter {daughter}")]
    Unfilled {
        /// The placeholder.
        what: String,
        /// The daughter.
        daughter: u32,
    },
    /// An amount that is not the rounded product.
    #[error("{found} is not {expected}, quantity × unit price ÷ per rounded half to even")]
    Amount {
        /// The rounded product.
        expected: i128,
        /// What was answered.
        found: i64,
    },
    /// A sum or product that leaves 64 bits.
    #[error("overflows 64 bits")]
    Overflow,
    /// A sample that is neither charged nor waived, or both.
    #[error("sample {sample} is {fate}")]
    Unaccounted {
        /// Its index.
        sample: u32,
        /// `neither charged nor waived`, `both charged and waived`.
        fate: String,
    },
}

impl Flaw {
    /// The flaw at a place.
    pub(crate) fn at(self, place: impl fmt::Display) -> Malformed {
        Malformed {
            at: place.to_string(),
            flaw: self,
        }
    }
}

/// At most `limit` elements.
pub(crate) fn at_most(place: &str, limit: usize, found: usize) -> Result<(), Malformed> {
    if found <= limit {
        return Ok(());
    }
    let (limit, found) = (limit as u64, found as u64);
    Err(Flaw::TooMany { limit, found }.at(place))
}

/// A number within a range.
pub(crate) fn in_range(
    place: &str,
    range: std::ops::RangeInclusive<i128>,
    found: i128,
) -> Result<(), Malformed> {
    if range.contains(&found) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    Err(Flaw::Range { min, max, found }.at(place))
}

/// Not more than was asked.
pub(crate) fn not_wider(place: &str, asked: i128, found: i128) -> Result<(), Malformed> {
    if found <= asked {
        return Ok(());
    }
    Err(Flaw::Wider { asked, found }.at(place))
}
