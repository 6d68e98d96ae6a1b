//! Counters that admission claims: so many units at once, or none.
//!
//! Invariant: a claim fits as a whole or changes nothing, and what was claimed is given back exactly once: with each
//! daughter that ends, or when its time is over. A function of its arguments; who keeps it durable and behind which lock
//! is the caller's business.
//!
//! ```text
//!  claim ─► Held (of a request) ─┬─ end ────► given back: nobody was born
//!                                └─ settle ─► one share for each living machine ─ machine_ended ─► given back
//!  units_of ─► written down ─ restart ─ recall ─► as settled
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use brood_hooks::Now;
use brood_hooks::admission::{HeldBy, WhenFull};
use brood_store::HoldRow;
use brood_units::MachineId;

/// A counter: the plugin that owns it, and its key.
type Counter = (String, String);

/// All counters and all claims on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    sums: BTreeMap<Counter, i64>,
    claims: BTreeMap<u64, Claim>,
    /// Whose end gives back a share of which claim.
    machines: BTreeMap<MachineId, u64>,
    /// By when a claim of time is over, milliseconds since the epoch.
    timed: BTreeMap<(u64, u64), Vec<(Counter, i64)>>,
    next: u64,
}

/// What lasts as long as the daughters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    daughters: u32,
    units: Vec<Units>,
}

/// Units of one counter that a claim took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// The plugin that owns the counter.
    pub plugin: String,
    /// The counter.
    pub key: String,
    /// Until the last daughter ends.
    pub per_request: i64,
    /// Until each daughter ends.
    pub per_daughter: i64,
    /// Until then instead, milliseconds since the epoch, whatever becomes of the daughters.
    pub until_ms: Option<u64>,
}

/// Units that are held for the daughters of one request, until they are given back with [`Holds::end`] or belong to the
/// machines that came of it with [`Holds::settle`].
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
    /// Its plugin.
    pub plugin: String,
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
    /// Claims for the largest count of `least ..= most` daughters that fits every hold, in one step. Holds on one counter
    /// add up, and the sum keeps to the limit of each.
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
        let units: Vec<Units> = holds.iter().map(|held| Units::of(held, now)).collect();
        let daughters = self.most(holds, &units, least)?.min(most);
        Ok(self.take(units, daughters))
    }

    /// Whether a claim for so many daughters would fit.
    pub fn fit(&self, now: Now, holds: &[HeldBy], least: u32) -> bool {
        let units: Vec<Units> = holds.iter().map(|held| Units::of(held, now)).collect();
        self.most(holds, &units, least).is_ok()
    }

    /// When the next claim that lasts for a time is over, milliseconds since the epoch.
    pub fn next_over(&self) -> Option<u64> {
        self.timed.keys().next().map(|(until, _)| *until)
    }

    fn most(&self, holds: &[HeldBy], units: &[Units], least: u32) -> Result<u32, Box<Full>> {
        holds.iter().try_fold(u32::MAX, |most, held| {
            Ok(most.min(self.fitting(held, units, least)?))
        })
    }

    /// The most daughters that the limit of one hold has room for.
    fn fitting(&self, held: &HeldBy, units: &[Units], least: u32) -> Result<u32, Box<Full>> {
        let hold = &held.hold;
        let used = self.used(&held.plugin, &hold.key);
        let same = |own: &&Units| own.plugin == held.plugin && own.key == hold.key;
        let (once, each) = units
            .iter()
            .filter(same)
            .fold((0_i64, 0_i64), |(once, each), own| {
                let each = each.saturating_add(own.per_daughter);
                (once.saturating_add(own.per_request), each)
            });
        let needed = each.saturating_mul(least.into()).saturating_add(once);
        let room = hold.limit.saturating_sub(used);
        if needed > room {
            return Err(Box::new(Full {
                binding: held.binding.clone(),
                plugin: held.plugin.clone(),
                counter: hold.key.clone(),
                used,
                limit: hold.limit,
                least,
                needed,
                when_full: held.when_full.clone(),
            }));
        }
        let most = room.saturating_sub(once).checked_div(each);
        Ok(most.map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX)))
    }

    fn take(&mut self, units: Vec<Units>, daughters: u32) -> Held {
        let claim = self.next;
        if daughters > 0 {
            self.next += 1;
            for own in &units {
                let amount = own.amount(daughters);
                let sum = self.sums.entry(own.counter()).or_default();
                *sum = sum.saturating_add(amount);
                if let Some(until) = own.until_ms {
                    let over = self.timed.entry((until, claim)).or_default();
                    over.push((own.counter(), amount));
                }
            }
            self.claims.insert(claim, Claim { daughters, units });
        }
        Held { claim, daughters }
    }

    /// What is held, to be written down where it outlives this process.
    pub fn units_of(&self, held: &Held) -> &[Units] {
        self.claims
            .get(&held.claim)
            .map_or(&[], |claim| &claim.units)
    }

    /// Gives back the units of daughters that ended, or were never born. Those of more than are held end with the last.
    #[must_use = "what is left is still held"]
    pub fn end(&mut self, held: Held, ended: u32) -> Option<Held> {
        let daughters = self.give_back(held.claim, ended);
        (daughters > 0).then_some(Held { daughters, ..held })
    }

    /// From now on each machine that lives holds her share, until [`Holds::machine_ended`]. The shares of those who are
    /// missing are given back at once.
    pub fn settle(&mut self, held: Held, alive: impl IntoIterator<Item = MachineId>) {
        let mut missing = held.daughters;
        for machine in alive {
            if missing == 0 {
                break;
            }
            if let Entry::Vacant(free) = self.machines.entry(machine) {
                free.insert(held.claim);
                missing -= 1;
            }
        }
        self.give_back(held.claim, missing);
    }

    /// Gives back what a machine held. Says whether she held anything: a second time she does not.
    pub fn machine_ended(&mut self, machine: MachineId) -> bool {
        let Some(claim) = self.machines.remove(&machine) else {
            return false;
        };
        self.give_back(claim, 1);
        true
    }

    /// Holds again, whether it fits or not, what was written down of a claim for so many daughters: what has a time until
    /// then, the rest for those who are alive.
    pub fn recall(
        &mut self,
        now: Now,
        units: Vec<Units>,
        daughters: u32,
        alive: impl IntoIterator<Item = MachineId>,
    ) {
        let held = self.take(units, daughters);
        self.settle(held, alive);
        self.expire(now);
    }

    /// How many daughters a claim still holds for afterwards.
    fn give_back(&mut self, claim: u64, ended: u32) -> u32 {
        let Entry::Occupied(mut entry) = self.claims.entry(claim) else {
            return 0;
        };
        let of = entry.get_mut();
        let ended = ended.min(of.daughters);
        of.daughters -= ended;
        let left = of.daughters;
        for own in of.units.iter().filter(|own| own.until_ms.is_none()) {
            let once = if left == 0 { own.per_request } else { 0 };
            let given = own.per_daughter.saturating_mul(ended.into());
            take_off(&mut self.sums, &own.counter(), given.saturating_add(once));
        }
        if left == 0 {
            entry.remove();
        }
        left
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

impl From<&HoldRow> for Units {
    fn from(row: &HoldRow) -> Self {
        let until = row.until.map(|until| until.as_millis());
        Self {
            plugin: row.plugin.clone(),
            key: row.key.clone(),
            per_request: row.per_request,
            per_daughter: row.per_daughter,
            until_ms: until.map(|until| u64::try_from(until).unwrap_or(0)),
        }
    }
}

impl Units {
    fn of(held: &HeldBy, now: Now) -> Self {
        let hold = &held.hold;
        let until = |lasts| now.as_unix_millis().saturating_add(lasts);
        Self {
            plugin: held.plugin.clone(),
            key: hold.key.clone(),
            per_request: hold.per_request,
            per_daughter: hold.per_daughter,
            until_ms: hold.lasts_ms.map(until),
        }
    }

    fn counter(&self) -> Counter {
        (self.plugin.clone(), self.key.clone())
    }

    fn amount(&self, daughters: u32) -> i64 {
        let each = self.per_daughter.saturating_mul(daughters.into());
        each.saturating_add(self.per_request)
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

#[cfg(test)]
mod tests;
