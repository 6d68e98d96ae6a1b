//! Usage as it is looked at: records, lines, and what they come to.
//!
//! Invariant: a tenant sees its own alone, an operator who says so that of another or of all. A summary's amounts are sums of
//! committed lines and of nothing else.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use brood_meter::{Break, Dimension, Period, Quantities, Record, Subject, quantities_in};
use brood_store::{BatchRow, BatchState, LineRow, StoreError, UsageRow};
use brood_units::{MachineId, Timestamp};

use super::super::{Caller, Engine, EngineError, Scope};

/// Rows looked at in one go.
const STRETCH: u32 = 1000;

/// Whose usage is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// The caller's own.
    #[default]
    Own,
    /// A tenant's; an operator asks.
    Tenant(String),
    /// Everybody's; an operator asks.
    All,
}

/// Which usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Of whom.
    pub whose: Whose,
    /// Of this part of the tenant.
    pub project: Option<String>,
    /// Of this lineage.
    pub lineage: Option<MachineId>,
    /// Of machines of this template.
    pub template: Option<MachineId>,
    /// Of this machine.
    pub machine: Option<MachineId>,
    /// Of machines with this label.
    pub label: Option<(String, String)>,
}

/// What is summed up apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Nothing.
    #[default]
    All,
    /// Tenants.
    Tenant,
    /// Parts of tenants.
    Project,
    /// Lineages.
    Lineage,
    /// Templates.
    Template,
    /// Machines.
    Machine,
    /// Values of a label.
    Label(String),
}

/// Part of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsAnswer {
    /// Those that were found.
    pub items: Vec<UsageRow>,
    /// Behind which number to go on; none after the last.
    pub next: Option<i64>,
}

/// A committed line with whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineAnswer {
    /// Who pays.
    pub tenant: String,
    /// Whose it is; none for a fee or a credit.
    pub subject: Option<Subject>,
    /// The line.
    pub line: LineRow,
}

/// Part of the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinesAnswer {
    /// Those that were found.
    pub items: Vec<LineAnswer>,
    /// Behind which batch to go on; none after the last.
    pub next: Option<i64>,
}

/// What one thing that is sold comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Base units.
    pub quantity: i128,
    /// 1e-9 currency units.
    pub amount_nanos: i128,
    /// Lines that it is the sum of.
    pub lines: u64,
}

/// One line of a summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SummaryGroup {
    /// What was measured, rated or not.
    pub measured: Quantities,
    /// What is charged, by name, currency, unit, and how many of those a price is for.
    pub charges: BTreeMap<(String, String, String, u64), Charge>,
}

/// What usage of a period comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryAnswer {
    /// The month.
    pub period: Period,
    /// By what it is grouped by.
    pub groups: BTreeMap<String, SummaryGroup>,
    /// Records that are in no batch yet.
    pub unsealed: u64,
    /// Batches of the period that wait.
    pub held: u64,
    /// Batches of the period that wait for an operator.
    pub dead: u64,
}

/// What a look through the whole chain has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyAnswer {
    /// Records that are kept, and were looked at.
    pub records: u64,
    /// The last of those that are no longer kept, 0 if all are.
    pub anchor: i64,
    /// The hash of the last record, for who keeps it elsewhere.
    pub hash: brood_meter::Hash,
    /// Every break.
    pub breaks: Vec<Break>,
}

impl UsageFilter {
    /// The tenant whose usage a caller may look at; none for everybody's.
    fn tenant<'a>(&'a self, caller: &'a Caller) -> Result<Option<&'a str>, EngineError> {
        caller.may(Scope::Read)?;
        match &self.whose {
            Whose::Own => Ok(Some(caller.tenant())),
            Whose::Tenant(tenant) if tenant == caller.tenant() => Ok(Some(tenant)),
            Whose::Tenant(tenant) => caller.may(Scope::Operator).map(|()| Some(tenant.as_str())),
            Whose::All => caller.may(Scope::Operator).map(|()| None),
        }
    }

    fn takes(&self, subject: &Subject) -> bool {
        self.project
            .as_ref()
            .is_none_or(|project| *project == subject.project)
            && self
                .lineage
                .is_none_or(|lineage| lineage == subject.lineage)
            && self
                .template
                .is_none_or(|template| template == subject.template)
            && self
                .machine
                .is_none_or(|machine| machine == subject.machine)
            && self
                .label
                .as_ref()
                .is_none_or(|(key, value)| subject.labels.get(key) == Some(value))
    }

    /// A line of a machine's usage, or a fee, which is no machine's.
    fn takes_line(&self, subject: Option<&Subject>) -> bool {
        subject.map_or_else(|| self.takes_fees(), |subject| self.takes(subject))
    }

    fn takes_fees(&self) -> bool {
        *self
            == Self {
                whose: self.whose.clone(),
                ..Self::default()
            }
    }
}

impl GroupBy {
    fn of(&self, tenant: &str, subject: Option<&Subject>) -> String {
        let word = |word: fn(&Subject) -> String| subject.map(word).unwrap_or_default();
        match self {
            Self::All => String::new(),
            Self::Tenant => tenant.to_owned(),
            Self::Project => word(|subject| subject.project.clone()),
            Self::Lineage => word(|subject| subject.lineage.to_string()),
            Self::Template => word(|subject| subject.template.to_string()),
            Self::Machine => word(|subject| subject.machine.to_string()),
            Self::Label(key) => subject
                .and_then(|subject| subject.labels.get(key).cloned())
                .unwrap_or_default(),
        }
    }
}

impl Engine {
    /// Records behind a number whose windows ended in a span of time, some of them at a time: as long as there is a `next`
    /// there may be others.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn usage_records(
        &self,
        caller: &Caller,
        filter: &UsageFilter,
        (from, to): (Timestamp, Timestamp),
        after: i64,
    ) -> Result<RecordsAnswer, EngineError> {
        let tenant = filter.tenant(caller)?;
        let upto = (after, i64::MAX);
        let mut items = self
            .store()
            .read(|read| read.usage_of(tenant, upto, STRETCH))?;
        let is_full = items.len() >= STRETCH as usize;
        let next = items.last().filter(|_| is_full).map(|row| row.seq);
        items.retain(|row| {
            let end = row.record.end;
            end > from && end <= to && filter.takes(&row.subject)
        });
        Ok(RecordsAnswer { items, next })
    }

    /// Lines of a period, those of the batches behind a sequence, some of them at a time.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn usage_lines(
        &self,
        caller: &Caller,
        filter: &UsageFilter,
        period: Period,
        after: i64,
    ) -> Result<LinesAnswer, EngineError> {
        let tenant = filter.tenant(caller)?;
        let start = period.start_ms();
        let found = self
            .store()
            .read(|read| read.batches_of(tenant, start, after, 1))?;
        let mut items = Vec::new();
        let mut known = HashMap::new();
        for batch in &found {
            self.each_line(batch, &mut known, |subject, line| {
                if filter.takes_line(subject) {
                    items.push(LineAnswer {
                        tenant: batch.batch.tenant.clone(),
                        subject: subject.cloned(),
                        line,
                    });
                }
            })?;
        }
        let next = found.last().map(|batch| batch.sequence);
        Ok(LinesAnswer { items, next })
    }

    /// What usage of a period comes to.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn usage_summary(
        &self,
        caller: &Caller,
        filter: &UsageFilter,
        by: &GroupBy,
        period: Period,
    ) -> Result<SummaryAnswer, EngineError> {
        let tenant = filter.tenant(caller)?;
        let (sealed, _) = self.store().read(|read| read.sealed())?;
        let mut answer = SummaryAnswer {
            period,
            groups: BTreeMap::new(),
            unsealed: 0,
            held: 0,
            dead: 0,
        };
        let corrections = self.store().read(|read| read.all_corrections())?;
        self.each_record(tenant, |row| {
            if !filter.takes(&row.subject) {
                return;
            }
            answer.unsealed += u64::from(row.seq > sealed);
            let stands = corrections.get(&row.seq).unwrap_or(&row.record);
            // A correction is in the place of the record that it corrects.
            let counts = row.record.corrects.is_none();
            let Some(measured) =
                quantities_in(&row.subject, &row.record, stands, period).filter(|_| counts)
            else {
                return;
            };
            let key = by.of(&row.subject.tenant, Some(&row.subject));
            let group = answer.groups.entry(key).or_default();
            group.measured = group.measured.plus(measured);
        })?;
        let mut after = 0;
        let mut known = HashMap::new();
        loop {
            let start = period.start_ms();
            let found = self
                .store()
                .read(|read| read.batches_of(tenant, start, after, STRETCH))?;
            let Some(last) = found.last() else {
                return Ok(answer);
            };
            after = last.sequence;
            for batch in &found {
                answer.held += u64::from(batch.state == BatchState::Held);
                answer.dead += u64::from(batch.state == BatchState::Dead);
                self.each_line(batch, &mut known, |subject, line| {
                    if filter.takes_line(subject) {
                        let key = by.of(&batch.batch.tenant, subject);
                        charge(answer.groups.entry(key).or_default(), &line);
                    }
                })?;
            }
        }
    }

    /// Looks through all records that are kept, and finds each place where the chain breaks.
    ///
    /// # Errors
    /// The caller is no operator, or the store cannot be read.
    pub fn verify_usage(&self, caller: &Caller) -> Result<VerifyAnswer, EngineError> {
        caller.may(Scope::Operator)?;
        let mut chain = self.store().read(|read| read.anchor())?;
        let anchor = chain.seq;
        let (mut records, mut breaks) = (0, Vec::new());
        self.each_record(None, |row| {
            records += 1;
            breaks.extend(
                chain
                    .take(row.seq, &row.subject, &row.record, row.hash)
                    .err(),
            );
        })?;
        Ok(VerifyAnswer {
            records,
            anchor,
            hash: chain.hash,
            breaks,
        })
    }

    fn each_record(
        &self,
        tenant: Option<&str>,
        mut each: impl FnMut(&UsageRow),
    ) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let upto = (after, i64::MAX);
            let rows = self
                .store()
                .read(|read| read.usage_of(tenant, upto, STRETCH))?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.seq;
            rows.iter().for_each(&mut each);
        }
    }

    fn each_line(
        &self,
        batch: &BatchRow,
        known: &mut HashMap<i64, Subject>,
        mut each: impl FnMut(Option<&Subject>, LineRow),
    ) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let lines = self
                .store()
                .read(|read| read.lines(batch.sequence, after, STRETCH))?;
            let Some(last) = lines.last() else {
                return Ok(());
            };
            after = last.line;
            for line in lines {
                let Some(origin) = line.priced.origin else {
                    each(None, line);
                    continue;
                };
                let subject = match known.entry(origin.meter) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(vacant) => {
                        let meter = origin.meter;
                        vacant.insert(self.store().read(|read| read.subject_of(meter))?)
                    }
                };
                each(Some(subject), line);
            }
        }
    }
}

fn charge(group: &mut SummaryGroup, line: &LineRow) {
    let sku = &line.priced.sku;
    let key = (
        sku.name.clone(),
        sku.currency.clone(),
        sku.unit.clone(),
        sku.per,
    );
    let charge = group.charges.entry(key).or_default();
    charge.quantity += i128::from(line.priced.quantity);
    charge.amount_nanos += i128::from(line.priced.amount_nanos);
    charge.lines += 1;
}

/// By their words, in the order in which they are shown.
pub fn measured(quantities: &Quantities) -> impl Iterator<Item = (&'static str, u128)> {
    let all = Dimension::ALL.into_iter();
    all.map(|dimension| (dimension.as_str(), quantities.amount(dimension)))
}

/// A window's quantities.
pub fn quantities(subject: &Subject, record: &Record) -> Quantities {
    Quantities::of(subject, record)
}
