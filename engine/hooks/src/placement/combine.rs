//! One ranking out of several, and daughters onto candidates.
//!
//! Invariant: scores add by weight, the smallest `at-most` holds, and a candidate that one enforced policy rejects is
//! out. Ties go to the candidate that comes first.

use super::{HIGHEST_SCORE, Question, Ranking};
use crate::{Heard, Placement, Said, Span};

/// A candidate that all policies accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Its index in the question.
    pub candidate: usize,
    /// Weighted sum of all scores.
    pub score: u64,
    /// Most daughters of this request to put there.
    pub at_most: u32,
}

/// All policies' opinion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranks {
    /// Usable candidates, the best first.
    pub usable: Vec<Ranked>,
    /// Why others are not: index of the candidate, and who says what.
    pub rejected: Vec<(usize, String)>,
    /// Of bindings that only warn, or failed open.
    pub warnings: Vec<String>,
}

/// A run of daughters on one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The daughters.
    pub daughters: Span,
    /// Index of the candidate.
    pub candidate: usize,
}

/// No placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A binding that is required failed.
    #[error("{binding} is required and failed: {failure}")]
    Required {
        /// The binding.
        binding: String,
        /// Why.
        failure: crate::Failure,
    },
    /// Not all daughters found a place.
    #[error("{unplaced} of {wanted} daughters found no place")]
    NoRoom {
        /// How many did not.
        unplaced: u32,
        /// How many there were.
        wanted: u32,
    },
}

/// Ranks the candidates by everything that was said.
pub fn rank(question: &Question, said: &[Said<Placement>]) -> Result<Ranks, PlacementError> {
    let mut ranks = Ranks::default();
    let mut enforced = Vec::new();
    for one in said {
        let binding = &one.binding;
        ranks.warnings.extend(one.warning());
        match &one.heard {
            Heard::Failed(failure) => {
                let (binding, failure) = (binding.clone(), failure.clone());
                return Err(PlacementError::Required { binding, failure });
            }
            Heard::Ignored(_) => {}
            Heard::Warned(answer) => {
                let rejected = |ranking: &&Ranking| matches!(ranking, Ranking::Reject(_));
                let count = answer.answer().rankings.iter().filter(rejected).count();
                if count > 0 {
                    ranks
                        .warnings
                        .push(format!("{binding} would reject {count} candidates"));
                }
            }
            Heard::Enforced(answer) => enforced.push((one, answer.answer())),
        }
    }
    for candidate in 0..question.candidates.len() {
        let mut sum = Ranked {
            candidate,
            score: 0,
            at_most: question.wanted.count,
        };
        let mut refusal = None;
        for (one, answer) in &enforced {
            match answer.rankings.get(candidate) {
                Some(Ranking::Bid(bid)) => {
                    let score = u64::from(bid.score.min(HIGHEST_SCORE)) * u64::from(one.weight);
                    sum.score = sum.score.saturating_add(score);
                    sum.at_most = sum.at_most.min(bid.at_most);
                }
                Some(Ranking::Reject(reason)) => {
                    let reason = answer.reasons.get(usize::from(*reason));
                    let reason = reason.map_or("no reason given", String::as_str);
                    refusal.get_or_insert_with(|| format!("{}: {reason}", one.binding));
                }
                None => {}
            }
        }
        match refusal {
            Some(refusal) => ranks.rejected.push((candidate, refusal)),
            None => ranks.usable.push(sum),
        }
    }
    ranks
        .usable
        .sort_by_key(|ranked| (std::cmp::Reverse(ranked.score), ranked.candidate));
    Ok(ranks)
}

/// Whether two rankings place alike: the same candidates in the same order, with the same bounds.
pub(crate) fn same(one: &Ranks, other: &Ranks) -> bool {
    let places = |ranks: &Ranks| -> Vec<(usize, u32)> {
        let each = ranks.usable.iter();
        each.map(|ranked| (ranked.candidate, ranked.at_most))
            .collect()
    };
    places(one) == places(other)
}

/// Puts the wanted daughters onto candidates, the best first, each up to `at-most` and to its room. Room is in daughters
/// and in the order of the question's candidates: how much fits where is the engine's business.
pub fn fill(question: &Question, ranks: &Ranks, room: &[u32]) -> Result<Vec<Run>, PlacementError> {
    let wanted = question.wanted;
    let mut runs = Vec::new();
    let (mut first, mut left) = (wanted.first, wanted.count);
    for ranked in &ranks.usable {
        let room = room.get(ranked.candidate).copied().unwrap_or(0);
        let count = left.min(ranked.at_most).min(room);
        if count > 0 {
            let daughters = Span { first, count };
            runs.push(Run {
                daughters,
                candidate: ranked.candidate,
            });
            first = first.saturating_add(count);
            left -= count;
        }
    }
    if left > 0 {
        return Err(PlacementError::NoRoom {
            unplaced: left,
            wanted: wanted.count,
        });
    }
    Ok(runs)
}
