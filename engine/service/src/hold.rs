//! Counters that admission claims: so many units at once, or none.
//!
//! Invariant: a claim fits as a whole or changes nothing, and what was claimed is given back exactly once: with each
//! daughter that ends, or when its time is over. A function of its arguments; who keeps it durable and behind which lock
//! is the caller's business.

use std::collections::BTreeMap;

use brood_hooks::Now;
use brood_hooks::admission::{HeldBy, Hold, WhenFull};

/// A counter: the plugin that owns it, and its key.
type Counter = (String, String);

/// All counters and all claims on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    sums: BTreeMap<Counter, i64>,
    claims: BTreeMap<u64, Claim>,
    /// By when a claim of time is over, milliseconds since the epoch.
    timed: BTreeMap<(u64, u64), Vec<(Counter, i64)>>,
    next: u64,
}

/// What lasts as long as the daughters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    daughters: u32,
    /// Counter, for the request, for each daughter.
    parts: Vec<(Counter, i64, i64)>,
}

/// Units that are held for the daughters of one request. Give them back with [`Holds::end`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "units stay held until they are given back"]
pub struct Held {
    claim: u64,
    daughters: u32,
}

impl Held {
    /// For how many daughters units are held.
    pub const fn daughters(&self) -> u32 {
        self.daughters
    }
}

/// A claim does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{counter} has {used} of {limit}, and {least} daughters need {needed} more")]
pub struct Full {
    /// The binding whose claim it is.
    pub binding: String,
    /// The counter.
    pub counter: String,
    /// What it holds.
    pub used: i64,
    /// What it may hold.
    pub limit: i64,
    /// The fewest daughters that the caller takes.
    pub least: u32,
    /// What they would add.
    pub needed: i64,
    /// What the policy says of it.
    pub when_full: WhenFull,
}

impl Holds {
    /// Claims for the largest count of `least ..= most` daughters that fits every hold, in one step.
    ///
    /// # Errors
    /// [`Full`] if not even `least` fit; nothing is claimed then.
    pub fn claim(
        &mut self,
        now: Now,
        holds: &[HeldBy],
        least: u32,
        most: u32,
    ) -> Result<Held, Box<Full>> {
        self.expire(now);
        let mut count = most;
        for held in holds {
            count = count.min(self.fitting(held, least)?);
        }
        let daughters = count;
        let mut parts = Vec::new();
        for held in holds {
            let counter = counter(held);
            let Hold {
                per_request,
                per_daughter,
                lasts_ms,
                ..
            } = held.hold;
            let amount = amount(&held.hold, daughters);
            let sum = self.sums.entry(counter.clone()).or_default();
            *sum = sum.saturating_add(amount);
            match lasts_ms {
                None => parts.push((counter, per_request, per_daughter)),
                Some(lasts) => {
                    let until = now.as_unix_millis().saturating_add(lasts);
                    let over = self.timed.entry((until, self.next)).or_default();
                    over.push((counter, amount));
                }
            }
        }
        let claim = self.next;
        self.next += 1;
        if daughters > 0 {
            self.claims.insert(claim, Claim { daughters, parts });
        }
        Ok(Held { claim, daughters })
    }

    /// The most daughters that one hold has room for.
    fn fitting(&self, held: &HeldBy, least: u32) -> Result<u32, Box<Full>> {
        let hold = &held.hold;
        let used = self.used(&held.plugin, &hold.key);
        let needed = amount(hold, least);
        let room = hold.limit.saturating_sub(used);
        if needed > room {
            return Err(Box::new(Full {
                binding: held.binding.clone(),
                counter: hold.key.clone(),
                used,
                limit: hold.limit,
                least,
                needed,
                when_full: held.when_full.clone(),
            }));
        }
        let each = room
            .saturating_sub(hold.per_request)
            .checked_div(hold.per_daughter);
        Ok(each.map_or(u32::MAX, |each| u32::try_from(each).unwrap_or(u32::MAX)))
    }

    /// Gives back the units of daughters that ended, or were never born. Those of more than are held end with the last.
    #[must_use = "what is left is still held"]
    pub fn end(&mut self, held: Held, ended: u32) -> Option<Held> {
        let claim = self.claims.get_mut(&held.claim)?;
        let ended = ended.min(claim.daughters);
        claim.daughters -= ended;
        let over = claim.daughters == 0;
        for (counter, per_request, per_daughter) in &claim.parts {
            let once = if over { *per_request } else { 0 };
            let given = per_daughter
                .saturating_mul(ended.into())
                .saturating_add(once);
            take_off(&mut self.sums, counter, given);
        }
        let daughters = claim.daughters;
        if over {
            self.claims.remove(&held.claim);
            return None;
        }
        Some(Held { daughters, ..held })
    }

    /// Lets claims go whose time is over.
    pub fn expire(&mut self, now: Now) {
        let later = self
            .timed
            .split_off(&(now.as_unix_millis().saturating_add(1), 0));
        let over = std::mem::replace(&mut self.timed, later);
        for (counter, amount) in over.into_values().flatten() {
            take_off(&mut self.sums, &counter, amount);
        }
    }

    /// What a counter holds.
    pub fn used(&self, plugin: &str, key: &str) -> i64 {
        let counter = (plugin.to_owned(), key.to_owned());
        self.sums.get(&counter).copied().unwrap_or(0)
    }
}

fn take_off(sums: &mut BTreeMap<Counter, i64>, counter: &Counter, amount: i64) {
    if let Some(sum) = sums.get_mut(counter) {
        *sum = sum.saturating_sub(amount);
        if *sum == 0 {
            sums.remove(counter);
        }
    }
}

fn counter(held: &HeldBy) -> Counter {
    (held.plugin.clone(), held.hold.key.clone())
}

fn amount(hold: &Hold, daughters: u32) -> i64 {
    let each = hold.per_daughter.saturating_mul(daughters.into());
    each.saturating_add(hold.per_request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brood_hooks::Denial;

    fn hold(key: &str, per_daughter: i64, limit: i64, lasts_ms: Option<u64>) -> HeldBy {
        HeldBy {
            plugin: "quota".to_owned(),
            binding: "admission/quota".to_owned(),
            hold: Hold {
                key: key.to_owned(),
                per_request: 0,
                per_daughter,
                limit,
                lasts_ms,
            },
            when_full: WhenFull::Deny(Denial::default()),
        }
    }

    fn at(ms: u64) -> Now {
        Now::from_unix_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_thousand_requests_at_a_cap_of_fifty_get_exactly_fifty() {
        let mut holds = Holds::default();
        let claims = (0..1000).map(|_| holds.claim(at(0), &[hold("live", 1, 50, None)], 1, 1));
        let admitted = claims.filter(Result::is_ok).count();
        assert_eq!((admitted, holds.used("quota", "live")), (50, 50));
    }

    #[test]
    fn the_narrowest_hold_lowers_the_count_and_a_claim_that_does_not_fit_changes_nothing() {
        let mut holds = Holds::default();
        let both = [hold("live", 1, 10, None), hold("memory", 256, 1024, None)];
        let held = holds.claim(at(0), &both, 2, 8).expect("four fit");
        assert_eq!(held.daughters(), 4);
        let before = holds.clone();
        let full = holds
            .claim(at(0), &both, 1, 8)
            .expect_err("no memory is left");
        assert_eq!((full.counter.as_str(), full.used), ("memory", 1024));
        assert_eq!(holds, before);
    }

    #[test]
    fn units_come_back_with_each_daughter_and_never_twice() {
        let mut holds = Holds::default();
        let mut live = hold("live", 1, 10, None);
        live.hold.per_request = 2;
        let held = holds.claim(at(0), &[live], 3, 3).expect("fits");
        assert_eq!(holds.used("quota", "live"), 5);
        let held = holds.end(held, 1).expect("two live on");
        assert_eq!(holds.used("quota", "live"), 4);
        assert_eq!(holds.end(held, 100), None);
        assert_eq!(
            holds,
            Holds {
                next: holds.next,
                ..Holds::default()
            }
        );
    }

    #[test]
    fn a_rate_ends_with_its_time_and_not_with_its_daughters() {
        let mut holds = Holds::default();
        let rate = [hold("rate", 1, 2, Some(1000))];
        let held = holds.claim(at(0), &rate, 1, 2).expect("fits");
        assert_eq!(holds.end(held, 2), None);
        assert!(holds.claim(at(999), &rate, 1, 1).is_err());
        assert!(holds.claim(at(1000), &rate, 1, 1).is_ok());
    }

    #[test]
    fn counters_of_two_plugins_are_two_under_one_key() {
        let mut holds = Holds::default();
        let mut other = hold("live", 1, 1, None);
        other.plugin = "other".to_owned();
        let one = holds.claim(at(0), &[hold("live", 1, 1, None)], 1, 1);
        let two = holds.claim(at(0), &[other], 1, 1);
        assert!(one.is_ok() && two.is_ok());
    }
}
