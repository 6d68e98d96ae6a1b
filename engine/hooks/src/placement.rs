//! Placement: where do the daughters of one request go?
//!
//! Invariant: a policy bids on candidates that the engine has already found to fit; it can remove or rank, never add.

mod combine;

use serde::{Deserialize, Serialize};

use crate::check::{Flaw, Malformed, at_most, in_range};
use crate::{ForkRequest, Labels, Span, text};

pub(crate) use combine::same;
pub use combine::{PlacementError, Ranked, Ranks, Run, fill, rank};

/// Most candidates of one question.
pub const MOST_CANDIDATES: usize = 256;
/// Highest score of a bid.
pub const HIGHEST_SCORE: u16 = 10_000;
const MOST_REASONS: usize = 64;

/// What every machine uses of a domain; further kinds are columns, `brood.free.` and the kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// 1/1000 vCPU.
    pub vcpu_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Writable disk, MiB.
    pub disk_mib: u32,
}

/// One place daughters can land: a node and one of its NUMA domains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The node.
    pub node: u32,
    /// Its NUMA domain.
    pub numa: u16,
    /// Booted shells that wait for a fork.
    pub warm_shells: u16,
    /// What is free in the whole domain.
    pub free: Amounts,
    /// RAM of the mother that is already here, MiB.
    pub parent_resident_mib: u32,
    /// CPU in use, 1/1000.
    pub cpu_load: u16,
    /// Memory pressure, 1/1000, PSI `some` avg10.
    pub memory_pressure: u16,
    /// Daughters of the tenant that live here.
    pub tenant_live: u32,
    /// Index into the question's `labelsets`.
    pub labelset: u32,
}

/// A named quantity for every candidate, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The quantity.
    pub name: String,
    /// One value a candidate.
    pub values: Vec<i64>,
}

/// What is to be placed, and where it could go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The request.
    pub request: ForkRequest,
    /// Daughters still to place.
    pub wanted: Span,
    /// Where they fit.
    pub candidates: Vec<Candidate>,
    /// Further facts.
    pub columns: Vec<Column>,
    /// Labels of candidates, interned.
    pub labelsets: Vec<Labels>,
}

/// How much a policy wants a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// `0 ..= 10000`.
    pub score: u16,
    /// Most daughters of this request to put there.
    pub at_most: u32,
}

/// A policy's opinion of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ranking {
    /// It may be used.
    Bid(Bid),
    /// It may not; index into `reasons`.
    Reject(u16),
}

/// One policy's opinion of all candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// One a candidate.
    pub rankings: Vec<Ranking>,
    /// Why candidates were rejected.
    pub reasons: Vec<String>,
}

pub(crate) fn keeps_to(question: &Question, answer: &Answer) -> Result<(), Malformed> {
    let (expected, found) = (question.candidates.len(), answer.rankings.len());
    if expected != found {
        let (expected, found) = (expected as u64, found as u64);
        return Err(Flaw::Length { expected, found }.at("rankings"));
    }
    at_most("reasons", MOST_REASONS, answer.reasons.len())?;
    for (index, reason) in answer.reasons.iter().enumerate() {
        text::words(&format!("reasons[{index}]"), reason)?;
    }
    for (index, ranking) in answer.rankings.iter().enumerate() {
        let (greatest, found) = match ranking {
            Ranking::Bid(bid) => (i128::from(HIGHEST_SCORE), bid.score),
            Ranking::Reject(reason) => (answer.reasons.len() as i128 - 1, *reason),
        };
        in_range(&format!("rankings[{index}]"), 0..=greatest, found.into())?;
    }
    Ok(())
}
