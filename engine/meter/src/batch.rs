//! Records gathered into what is rated in one call: one tenant, one period.
//!
//! ```text
//!  records of a stretch of the chain ─► by tenant and period ─► by machine: consecutive windows are one sample
//!  a correction ─► the sample that its record was in, once as it was and once as it is now
//! ```
//!
//! Invariant: which record is in which batch follows from the numbers of both and from nothing else, so that a batch that is
//! made again is the same batch.

use std::collections::{BTreeMap, BTreeSet};

use brood_hooks::billing::{Account, Balance, Batch, Sample, Total};
use brood_hooks::{Id128, Labels};
use brood_units::MachineId;
use sha2::{Digest, Sha256};

use crate::quantity::cut;
use crate::{Dimension, Period, Quantities, Record, Subject};

/// A record with what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its number.
    pub seq: i64,
    /// The number of its subject.
    pub meter: i64,
    /// Whose it is.
    pub subject: &'a Subject,
    /// The window.
    pub record: Record,
    /// What stands in its place: the last correction, or itself.
    pub stands: Record,
}

/// Where a sample comes from, so that its lines can be found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The number of its subject.
    pub meter: i64,
    /// What was measured.
    pub dimension: Dimension,
}

/// A machine's consecutive windows of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sampled {
    machine: MachineId,
    group: Labels,
    first_seq: i64,
    start_ms: u64,
    end_ms: u64,
    born_ms: u64,
    quantities: Quantities,
    /// The number of the correction, and what the sample was before.
    replaces: Option<(i64, Quantities)>,
}

/// What is rated in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Who pays.
    pub tenant: String,
    /// In which month.
    pub period: Period,
    samples: BTreeMap<i64, Sampled>,
}

/// What was committed in the period before a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// As measured, by dimension; empty only where nothing was ever rated in the period.
    pub totals: BTreeMap<Dimension, i64>,
    /// By currency: what was spent in the period, and what is left of what was paid in advance.
    pub balances: BTreeMap<String, (i64, i64)>,
}

/// A batch cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// More than a sample can carry.
    #[error("{} of machine {machine} in {period} exceeds 64 bits: correct its usage records", dimension.as_str())]
    Quantity {
        /// Whose.
        machine: MachineId,
        /// When.
        period: Period,
        /// Of what.
        dimension: Dimension,
    },
}

/// Windows by tenant and month. Corrections are not in them: what was rated stays so until a correction is rated.
pub fn drafts<'a>(items: impl IntoIterator<Item = Item<'a>>) -> Vec<Draft> {
    let mut found: BTreeMap<(&str, Period), Draft> = BTreeMap::new();
    for item in items {
        if item.record.corrects.is_some() {
            continue;
        }
        for part in cut(&item.record, &item.stands) {
            let key = (item.subject.tenant.as_str(), part.period);
            let draft = found.entry(key).or_insert_with(|| Draft {
                tenant: item.subject.tenant.clone(),
                period: part.period,
                samples: BTreeMap::new(),
            });
            let quantities = Quantities::of(item.subject, &part.record);
            let age_ms = (part.record.age_us - part.record.span_us).div_ceil(1000);
            let sampled = draft.samples.entry(item.meter).or_insert_with(|| Sampled {
                machine: item.subject.machine,
                group: group(item.subject),
                first_seq: item.seq,
                start_ms: part.start_ms,
                end_ms: part.end_ms,
                born_ms: part.start_ms.saturating_sub(age_ms),
                quantities: Quantities::default(),
                replaces: None,
            });
            sampled.quantities = sampled.quantities.plus(quantities);
            // A clock that jumped back must not make it end before it begins.
            sampled.end_ms = sampled.end_ms.max(part.end_ms);
        }
    }
    found.into_values().collect()
}

impl Draft {
    /// A batch without samples, for a verdict on what is left.
    pub fn empty(tenant: String, period: Period) -> Self {
        Self {
            tenant,
            period,
            samples: BTreeMap::new(),
        }
    }

    /// The corrected samples of a batch that was rated: `self` as it was, `now` as it is, `by` the last correction. Samples
    /// that are the same are left out.
    pub fn corrected(&self, now: &Self, by: i64) -> Self {
        let changed = now.samples.iter().filter_map(|(meter, sampled)| {
            let before = self.samples.get(meter)?.quantities;
            let sampled = Sampled {
                replaces: Some((by, before)),
                ..sampled.clone()
            };
            (before != sampled.quantities).then_some((*meter, sampled))
        });
        Self {
            samples: changed.collect(),
            ..Self::empty(self.tenant.clone(), self.period)
        }
    }

    /// Samples whose lines are to be reversed: those of which something is replaced.
    pub fn reversed(&self) -> BTreeSet<(i64, Dimension)> {
        let all = self.samples.iter().flat_map(|(meter, sampled)| {
            Dimension::ALL.into_iter().filter_map(move |dimension| {
                let (_, before) = sampled.replaces.as_ref()?;
                let changes = before.amount(dimension) != sampled.quantities.amount(dimension);
                changes.then_some((*meter, dimension))
            })
        });
        all.collect()
    }

    /// What is replaced, as it was measured, by dimension.
    pub fn replaced(&self) -> BTreeMap<Dimension, i64> {
        let mut replaced = BTreeMap::new();
        for sampled in self.samples.values() {
            let Some((_, before)) = &sampled.replaces else {
                continue;
            };
            for dimension in Dimension::ALL {
                if before.amount(dimension) != sampled.quantities.amount(dimension) {
                    let sum = replaced.entry(dimension).or_insert(0_i64);
                    *sum = sum.saturating_add(before.sampled(dimension).unwrap_or(i64::MAX));
                }
            }
        }
        replaced
    }

    /// The batch as it goes to a policy, and where each of its samples comes from.
    ///
    /// # Errors
    /// A quantity that no sample can carry.
    pub fn batch(
        &self,
        sequence: u64,
        before: &Before,
    ) -> Result<(Batch, Vec<Origin>), BatchError> {
        let mut batch = Batch {
            sequence,
            accounts: vec![Account {
                tenant: self.tenant.clone(),
                ..Account::default()
            }],
            dimensions: Dimension::ALL.map(|one| one.as_str().to_owned()).to_vec(),
            ..Batch::default()
        };
        let mut origins = Vec::new();
        for (meter, sampled) in &self.samples {
            for (index, dimension) in (0_u32..).zip(Dimension::ALL) {
                let before = sampled
                    .replaces
                    .as_ref()
                    .map(|(_, before)| before.amount(dimension));
                let amount = sampled.quantities.amount(dimension);
                if amount == 0 || before == Some(amount) {
                    continue;
                }
                let exceeds = || BatchError::Quantity {
                    machine: sampled.machine,
                    period: self.period,
                    dimension,
                };
                let quantity = sampled.quantities.sampled(dimension).ok_or_else(exceeds)?;
                batch.samples.push(Sample {
                    id: sampled.id(self.period, dimension, sampled.replaces.map(|(by, _)| by)),
                    corrects: sampled
                        .replaces
                        .map(|_| sampled.id(self.period, dimension, None)),
                    daughter: sampled.machine.into(),
                    account: 0,
                    dimension: index,
                    quantity,
                    start_ms: sampled.start_ms,
                    end_ms: sampled.end_ms,
                    born_ms: sampled.born_ms,
                    group: index_of(&mut batch.groups, &sampled.group),
                });
                origins.push(Origin {
                    meter: *meter,
                    dimension,
                });
            }
        }
        batch.totals = self.totals(before);
        batch.balances = before
            .balances
            .iter()
            .map(|(currency, (spent_nanos, credit_nanos))| Balance {
                account: 0,
                currency: currency.clone(),
                spent_nanos: *spent_nanos,
                credit_nanos: *credit_nanos,
            })
            .collect();
        Ok((batch, origins))
    }

    /// What was committed before, without what is replaced now.
    fn totals(&self, before: &Before) -> Vec<Total> {
        let mut totals = before.totals.clone();
        for (dimension, quantity) in self.replaced() {
            let total = totals.entry(dimension).or_insert(0);
            *total = total.saturating_sub(quantity);
        }
        let start = self.period.start_ms().unsigned_abs();
        let total = |(dimension, quantity): (Dimension, i64)| Total {
            account: 0,
            dimension: dimension as u32,
            period_start_ms: start,
            quantity,
        };
        totals.into_iter().map(total).collect()
    }
}

impl Sampled {
    /// The same machine, first record, month and dimension are the same sample, for ever.
    fn id(&self, period: Period, dimension: Dimension, by: Option<i64>) -> Id128 {
        let mut hash = Sha256::new();
        hash.update(b"brood.sample/1");
        hash.update(self.machine.as_bytes());
        for number in [
            self.first_seq,
            period.start_ms(),
            dimension as i64,
            by.unwrap_or(0),
        ] {
            hash.update(number.to_le_bytes());
        }
        let bytes: [u8; 32] = hash.finalize().into();
        let halves = bytes.as_chunks().0.iter().copied();
        let mut halves = halves.map(u64::from_be_bytes);
        let mut next = || halves.next().unwrap_or(0);
        Id128::from_halves(next(), next())
    }
}

/// What prices may depend on. The engine's own labels come first, as those of machines have no `brood.`.
fn group(subject: &Subject) -> Labels {
    let kind = if subject.is_checkpoint {
        "checkpoint"
    } else {
        "machine"
    };
    let own = [
        ("brood.kind", kind.to_owned()),
        ("brood.project", subject.project.clone()),
        ("brood.template", subject.template.to_string()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
    own.chain(subject.labels.clone()).collect()
}

fn index_of(known: &mut Vec<Labels>, one: &Labels) -> u32 {
    // Machines of one fork have the same labels and come one after the other.
    let at = known.iter().rposition(|known| known == one);
    let at = at.unwrap_or_else(|| {
        known.push(one.clone());
        known.len() - 1
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
