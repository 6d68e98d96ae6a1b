//! Records and lines one after the other, some at a time, and the chain looked through.
//!
//! Invariant: whoever walks holds a stretch in memory, however much there is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use brood_meter::{Break, Period, Subject};
use brood_store::{BatchRow, LineRow, Read, StoreError};

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
        self.walk(
            0,
            |read, after| read.usage(after, STRETCH),
            |row| row.seq,
            |row| {
                records += 1;
                let taken = chain.take(row.seq, &row.subject, &row.record, row.hash);
                breaks.extend(taken.err());
                Ok(())
            },
        )?;
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

    /// Hands over rows one by one, read a stretch at a time: `read` is told behind which place, and `place` says where a row is.
    pub(super) fn walk<P: Copy, R>(
        &self,
        from: P,
        read: impl Fn(&Read<'_>, P) -> Result<Vec<R>, StoreError>,
        place: impl Fn(&R) -> P,
        mut each: impl FnMut(R) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut after = from;
        loop {
            let rows = self.store().read(|store| read(store, after))?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = place(last);
            rows.into_iter().try_for_each(&mut each)?;
        }
    }

    pub(super) fn each_batch(
        &self,
        tenant: Option<&str>,
        period: Period,
        each: impl FnMut(BatchRow) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let start = period.start_ms();
        self.walk(
            0,
            |read, after| read.batches_of(tenant, start, after, STRETCH),
            |batch| batch.sequence,
            each,
        )
    }

    /// The lines that a batch brought.
    pub(super) fn each_line_of(
        &self,
        sequence: i64,
        each: impl FnMut(LineRow) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.walk(
            0,
            |read, after| read.lines(sequence, after, STRETCH),
            |line| line.line,
            each,
        )
    }

    /// The same, each with whose it is; none is whose a fee is.
    pub(super) fn each_line(
        &self,
        batch: &BatchRow,
        known: &mut HashMap<i64, Subject>,
        mut each: impl FnMut(Option<&Subject>, LineRow),
    ) -> Result<(), StoreError> {
        self.each_line_of(batch.sequence, |line| {
            let Some(origin) = line.priced.origin else {
                each(None, line);
                return Ok(());
            };
            let subject = match known.entry(origin.meter) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => {
                    let meter = origin.meter;
                    vacant.insert(self.store().read(|read| read.subject_of(meter))?)
                }
            };
            each(Some(subject), line);
            Ok(())
        })
    }
}
