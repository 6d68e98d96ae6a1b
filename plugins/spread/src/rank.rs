//! Filter, then score: a function of policy and question.

use brood_plugin::placement::{Answer, Bid, Question, Ranking};
use brood_plugin::types::HookError;

use crate::filter::{Filter, Place};
use crate::level::level;
use crate::score::Scale;
use crate::settings::Policy;

/// Ranks every candidate.
///
/// # Errors
///
/// The question does not fit together, or lacks a column that the settings name.
pub fn rank(policy: &Policy, question: &Question) -> Result<Answer, HookError> {
    let mut filter = Filter::new(policy, question)?;
    let mut places: Vec<Place> = Vec::with_capacity(question.candidates.len());
    for (index, candidate) in question.candidates.iter().enumerate() {
        places.push(filter.candidate(index, candidate)?);
    }
    let wanted = question.wanted.count;
    let most = if policy.spreads {
        let rooms: Vec<u32> = places
            .iter()
            .filter_map(|place| Some(place.ok()?.1))
            .collect();
        level(&rooms, wanted)
    } else {
        wanted
    };
    let candidates = question.candidates.iter().enumerate();
    let usable = candidates
        .clone()
        .zip(&places)
        .filter(|(_, place)| place.is_ok());
    let usable = usable.map(|(candidate, _)| candidate);
    let scale = Scale::new(policy, question, filter.facts(), usable);
    let rankings = candidates
        .zip(&places)
        .map(|(candidate, place)| match place {
            Err(reason) => Ranking::Reject(*reason),
            Ok((preferred, room)) => Ranking::Bid(Bid {
                score: scale.score(policy, filter.facts(), candidate, (*preferred, *room)),
                at_most: most.min(*room),
            }),
        });
    Ok(Answer {
        rankings: rankings.collect(),
        reasons: filter.reasons.list,
    })
}
