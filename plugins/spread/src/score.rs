//! The score of a candidate: the mean of its parts, each 0 to 10000, by weight.

use brood_plugin::placement::{Candidate, Column, Question};

use crate::settings::{Fact, Policy};

/// The whole of a part.
pub(crate) const WHOLE: u32 = 10_000;

/// What a part is measured against: the extremes over all usable candidates.
pub(crate) struct Scale {
    free_memory: Whole,
    tenant_live: Whole,
    wanted: Whole,
    mother_mib: Whole,
    permille: Whole,
    /// Least value of each column, and how far the most is above it.
    facts: Vec<(i64, u64)>,
    /// All weights, preferences included.
    weights: u64,
}

/// A quantity that others are parts of, ready to divide by: a division takes ten times as long as the rest.
struct Whole {
    amount: u32,
    /// `2^32 * WHOLE / amount`, rounded up.
    inverse: u64,
}

impl Whole {
    fn new(amount: u32) -> Self {
        let inverse = (u64::from(WHOLE) << 32).div_ceil(u64::from(amount.max(1)));
        Self { amount, inverse }
    }

    /// How much of it an amount is, in 1/10000, at most all; of nothing, none. Above 2^18 the last digit may be one more.
    fn part(&self, amount: u32) -> u32 {
        if amount >= self.amount {
            return if self.amount == 0 { 0 } else { WHOLE };
        }
        // amount < self.amount < 2^32 and inverse <= 2^32 * WHOLE / self.amount + 1: the product is below 2^32 * (WHOLE + 1).
        // A checked product of 64 bits would take as long as all the rest.
        let part = u64::from(amount).wrapping_mul(self.inverse) >> 32;
        u32::try_from(part).unwrap_or(WHOLE).min(WHOLE)
    }
}

impl Scale {
    pub(crate) fn new<'a>(
        policy: &Policy,
        question: &Question,
        facts: &[(&Fact, &Column)],
        usable: impl Iterator<Item = (usize, &'a Candidate)> + Clone,
    ) -> Self {
        let (mut free_memory, mut tenant_live) = (0, 0);
        for (_, candidate) in usable.clone() {
            free_memory = free_memory.max(candidate.free.memory_mib);
            tenant_live = tenant_live.max(candidate.tenant_live);
        }
        let extremes = facts.iter().map(|(_, column)| {
            let values = usable
                .clone()
                .filter_map(|(index, _)| column.values.get(index));
            let extremes = values.fold(None, |extremes: Option<(i64, i64)>, value| {
                let (least, most) = extremes.unwrap_or((*value, *value));
                Some((least.min(*value), most.max(*value)))
            });
            let (least, most) = extremes.unwrap_or((0, 0));
            (least, most.abs_diff(least))
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
        let weights = own.iter().chain(preferred).chain(facts_weigh);
        let weights: u64 = weights.map(|weight| u64::from(*weight)).sum();
        Self {
            free_memory: Whole::new(free_memory),
            tenant_live: Whole::new(tenant_live),
            wanted: Whole::new(question.wanted.count),
            mother_mib: Whole::new(question.request.mother.memory_mib),
            permille: Whole::new(1000),
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
        (preferred, room): (u64, u32),
    ) -> u16 {
        let free = self.free_memory.part(candidate.free.memory_mib);
        let tenant = self.tenant_live.part(candidate.tenant_live);
        let (room_part, tenant_part) = if policy.spreads {
            (free, WHOLE - tenant)
        } else {
            (WHOLE - free, tenant)
        };
        let idle = WHOLE - self.permille.part(candidate.cpu_load.into());
        let calm = WHOLE - self.permille.part(candidate.memory_pressure.into());
        // A weight times a part is below 2^16 * 10000: it fits 32 bits.
        let weighed = |weight: u16, part: u32| u64::from(u32::from(weight) * part);
        let mut sum = weighed(policy.room, room_part)
            + weighed(policy.warm, self.wanted.part(candidate.warm_shells.into()))
            + weighed(
                policy.resident,
                self.mother_mib.part(candidate.parent_resident_mib),
            )
            + weighed(policy.tenant, tenant_part)
            + weighed(policy.load, idle)
            + weighed(policy.pressure, calm)
            + preferred;
        if policy.together > 0 {
            sum += weighed(policy.together, self.wanted.part(room));
        }
        for ((fact, column), (least, range)) in facts.iter().zip(&self.facts) {
            let value = column.values.get(index).copied().unwrap_or(*least);
            // Differences of two 64-bit values, in 64 bits without sign.
            let part = wide_part(value.abs_diff(*least), *range);
            sum += weighed(fact.weight, if fact.more { part } else { WHOLE - part });
        }
        u16::try_from(sum / self.weights)
            .unwrap_or(10_000)
            .min(10_000)
    }
}

/// As [`Whole::part`], for amounts of 64 bits.
fn wide_part(amount: u64, whole: u64) -> u32 {
    if amount >= whole {
        return if whole == 0 { 0 } else { WHOLE };
    }
    let part = match amount.checked_mul(WHOLE.into()) {
        Some(product) => product / whole,
        // Both are large: what is lost is below 1/10000.
        None => amount / (whole / u64::from(WHOLE)),
    };
    u32::try_from(part).unwrap_or(WHOLE).min(WHOLE)
}

#[cfg(test)]
mod tests {
    use super::Whole;

    #[test]
    fn part_is_the_rounded_down_quotient_of_ordinary_amounts() {
        for whole in [1, 3, 7, 512, 1000, 65_537, 1 << 18] {
            for step in 0..1000 {
                let amount = u32::try_from(u64::from(whole) * step / 999).unwrap();
                let exact = u64::from(amount) * 10_000 / u64::from(whole);
                assert_eq!(
                    u64::from(Whole::new(whole).part(amount)),
                    exact,
                    "{amount} of {whole}"
                );
            }
        }
        assert_eq!(Whole::new(0).part(5), 0);
    }

    #[test]
    fn part_of_the_largest_amounts_is_never_more_than_the_whole() {
        for whole in [u32::MAX, u32::MAX - 1, 1 << 31, (1 << 31) + 1] {
            for amount in [whole - 1, whole - 2, whole / 2, whole, u32::MAX] {
                let exact = (u64::from(amount) * 10_000 / u64::from(whole)).min(10_000);
                let part = u64::from(Whole::new(whole).part(amount));
                assert!(
                    part == exact || part == (exact + 1).min(10_000),
                    "{amount} of {whole}: {part}"
                );
            }
        }
    }
}
