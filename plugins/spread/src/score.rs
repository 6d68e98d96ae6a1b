//! The score of a candidate: parts of 0 to 1000, weighted.

use brood_plugin::placement::{Candidate, Column, Question};

use crate::settings::{Fact, Policy};

/// The whole of a part.
const WHOLE: u64 = 1000;

/// What a part is measured against: the extremes over all usable candidates.
pub(crate) struct Scale {
    free_memory: u64,
    tenant_live: u64,
    wanted: u64,
    mother_mib: u64,
    /// Least and most value of each column that counts.
    facts: Vec<(i64, i64)>,
    /// All weights, preferences included.
    weights: u64,
}

impl Scale {
    pub(crate) fn new<'a>(
        policy: &Policy,
        question: &Question,
        facts: &[(&Fact, &Column)],
        usable: impl Iterator<Item = (usize, &'a Candidate)> + Clone,
    ) -> Self {
        let extremes = facts.iter().map(|(_, column)| {
            let values = usable
                .clone()
                .filter_map(|(index, _)| column.values.get(index));
            let extremes = values.fold(None, |extremes: Option<(i64, i64)>, value| {
                let (least, most) = extremes.unwrap_or((*value, *value));
                Some((least.min(*value), most.max(*value)))
            });
            extremes.unwrap_or((0, 0))
        });
        let own = [
            policy.room,
            policy.warm,
            policy.resident,
            policy.tenant,
            policy.load,
            policy.pressure,
            policy.together,
        ];
        let preferred = policy.prefer.iter().map(|(_, _, weight)| weight);
        let facts_weigh = facts.iter().map(|(fact, _)| &fact.weight);
        let weights: u64 = own
            .iter()
            .chain(preferred)
            .chain(facts_weigh)
            .map(|w| u64::from(*w))
            .sum();
        Self {
            free_memory: usable
                .clone()
                .map(|(_, one)| one.free.memory_mib.into())
                .max()
                .unwrap_or(0),
            tenant_live: usable
                .clone()
                .map(|(_, one)| one.tenant_live.into())
                .max()
                .unwrap_or(0),
            wanted: question.wanted.count.into(),
            mother_mib: question.request.mother.memory_mib.into(),
            facts: extremes.collect(),
            weights: weights.max(1),
        }
    }

    /// 0 to 10000.
    pub(crate) fn score(
        &self,
        policy: &Policy,
        facts: &[(&Fact, &Column)],
        (index, candidate): (usize, &Candidate),
        (preferred, room): (u32, u32),
    ) -> u16 {
        let free = part(candidate.free.memory_mib.into(), self.free_memory);
        let tenant = part(candidate.tenant_live.into(), self.tenant_live);
        let (room_part, tenant_part) = if policy.spreads {
            (free, WHOLE - tenant)
        } else {
            (WHOLE - free, tenant)
        };
        let parts = [
            (policy.room, room_part),
            (policy.warm, part(candidate.warm_shells.into(), self.wanted)),
            (
                policy.resident,
                part(candidate.parent_resident_mib.into(), self.mother_mib),
            ),
            (policy.tenant, tenant_part),
            (policy.load, WHOLE - part(candidate.cpu_load.into(), WHOLE)),
            (
                policy.pressure,
                WHOLE - part(candidate.memory_pressure.into(), WHOLE),
            ),
            (policy.together, part(room.into(), self.wanted)),
        ];
        let mut sum: u64 = parts
            .iter()
            .map(|(weight, part)| u64::from(*weight) * part)
            .sum();
        sum += u64::from(preferred) * WHOLE;
        for ((fact, column), (least, most)) in facts.iter().zip(&self.facts) {
            let value = column.values.get(index).copied().unwrap_or(*least);
            // Differences of two 64-bit values, in 64 bits without sign.
            let part = part(value.abs_diff(*least), most.abs_diff(*least));
            sum += u64::from(fact.weight) * if fact.more { part } else { WHOLE - part };
        }
        u16::try_from(sum * 10 / self.weights)
            .unwrap_or(10_000)
            .min(10_000)
    }
}

/// `amount` of `whole` in 1/1000, at most all of it; of nothing, none.
fn part(amount: u64, whole: u64) -> u64 {
    if amount >= whole {
        return if whole == 0 { 0 } else { WHOLE };
    }
    match amount.checked_mul(WHOLE) {
        Some(product) => product / whole,
        // Both are large: what is lost is below 1/1000.
        None => amount / (whole / WHOLE),
    }
}
