//! Records and lines one after the other, some at a time, and the chain looked through.
//!
//! Invariant: whoever walks holds a stretch in memory, however much there is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use brood_meter::{Break, Period, Subject};
use brood_store::{BatchRow, EndedAt, LineRow, StoreError, UsageRow};
use brood_units::Timestamp;

use super::super::{Caller, Engine, EngineError, Scope};

/// Rows looked at in one go.
pub(super) const STRETCH: u32 = 1000;

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

impl Engine {
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
        // What was put into batches was there.
        let (sealed, _) = self.store().read(|read| read.sealed())?;
        if chain.seq < sealed {
            breaks.push(Break::Missing {
                from: chain.seq + 1,
                to: sealed,
            });
        }
        Ok(VerifyAnswer {
            records,
            anchor,
            hash: chain.hash,
            breaks,
        })
    }

    pub(super) fn each_record(
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

    /// Each record of which a part is in a period: those that ended in it, then those that ended later and began before its
    /// end, which whoever looks tells by what is in the period of them.
    pub(super) fn each_in(
        &self,
        tenant: Option<&str>,
        period: Period,
        mut each: impl FnMut(&UsageRow),
    ) -> Result<(), StoreError> {
        let end = Timestamp::from_millis(period.end_ms());
        let mut after = EndedAt::before(Timestamp::from_millis(period.start_ms()));
        loop {
            let rows = self
                .store()
                .read(|read| read.usage_ended(tenant, after, end, STRETCH))?;
            let Some(last) = rows.last() else {
                break;
            };
            after = last.into();
            rows.iter().for_each(&mut each);
        }
        let mut after = EndedAt {
            at: end,
            seq: i64::MAX,
        };
        loop {
            let rows = self
                .store()
                .read(|read| read.usage_over(tenant, after, STRETCH))?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.into();
            rows.iter().for_each(&mut each);
        }
    }

    pub(super) fn each_line(
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
