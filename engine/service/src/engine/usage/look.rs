//! Usage as it is looked at: records, lines, and what they come to.
//!
//! Invariant: a tenant sees its own alone, an operator who says so that of another or of all. A summary's amounts are sums of
//! committed lines and of nothing else, kept beside them: it reads as many rows as there are machines and things that are sold.

use std::collections::{BTreeMap, HashMap};

use brood_meter::{Period, Quantities, Subject};
use brood_store::{BatchState, ChargeRow, LineRow, StoreError, UsageRow};
use brood_units::{MachineId, Timestamp};

use super::super::{Caller, Engine, EngineError, Scope};
use super::walk::STRETCH;

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
    /// Records of the period that are in no batch yet, whatever the filter takes of them.
    pub unsealed: u64,
    /// Batches of the period that wait, of whichever machines.
    pub held: u64,
    /// Batches of the period that wait for an operator.
    pub dead: u64,
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
        let mut answer = SummaryAnswer {
            period,
            groups: BTreeMap::new(),
            unsealed: 0,
            held: 0,
            dead: 0,
        };
        // One look, so that sums and what is open are of the same commit.
        self.store().read(|read| -> Result<(), StoreError> {
            let mut records = 0;
            read.each_month(tenant, period, |row| {
                records += row.records;
                if filter.takes(&row.subject) && row.quantities != Quantities::default() {
                    let key = by.of(&row.subject.tenant, Some(&row.subject));
                    let group = answer.groups.entry(key).or_default();
                    group.measured = group.measured.plus(row.quantities);
                }
            })?;
            read.each_charge(tenant, period, |row| {
                let subject = row.subject.as_ref();
                if filter.takes_line(subject) {
                    let key = by.of(&row.tenant, subject);
                    charge(answer.groups.entry(key).or_default(), row);
                }
            })?;
            let open = read.open_in(tenant, period)?;
            let open = |state| open.get(&state).map_or(0, |count| count.unsigned_abs());
            answer.unsealed = (records - read.sealed_in(tenant, period)?).unsigned_abs();
            (answer.held, answer.dead) = (open(BatchState::Held), open(BatchState::Dead));
            Ok(())
        })?;
        Ok(answer)
    }
}

fn charge(group: &mut SummaryGroup, row: ChargeRow) {
    let key = (row.sku.name, row.sku.currency, row.sku.unit, row.sku.per);
    let charge = group.charges.entry(key).or_default();
    charge.quantity += i128::from(row.quantity);
    charge.amount_nanos += i128::from(row.amount_nanos);
    charge.lines += row.lines.unsigned_abs();
}
