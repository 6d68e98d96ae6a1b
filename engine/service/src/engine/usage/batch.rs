//! A batch made of the records that are in it: the same, however often it is made.
//!
//! Invariant: what is in a batch follows from its row and the records, which do not change; what was committed before it is
//! read beside it.

use std::collections::BTreeMap;

use brood_meter::{BatchError, Before, Draft, Item, Period, Record, drafts};
use brood_store::{BatchRow, BatchState, StoreError, UsageRow};

use super::super::Engine;
use super::walk::STRETCH;

/// Why a batch cannot be made now.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    /// Its records are not kept any more.
    #[error("records up to {anchor} are no longer kept, and the batch is of those behind {from}")]
    Trimmed {
        /// The last that is not kept.
        anchor: i64,
        /// Where the batch begins.
        from: i64,
    },
    /// What it corrects was not rated yet.
    #[error("batch {0}, which it corrects, is not rated yet")]
    Before(i64),
    /// A quantity that no sample can carry.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// What is in a batch.
    pub(super) fn draft(&self, row: &BatchRow) -> Result<Draft, MakeError> {
        let Some(origin) = row.batch.origin else {
            let range = (row.batch.from_seq, row.batch.to_seq);
            return self.draft_of(row, range, None);
        };
        let first = self.store().read(|read| read.batch(origin))?;
        let first = first.filter(|first| first.state == BatchState::Done);
        let first = first.ok_or(MakeError::Before(origin))?;
        let range = (first.batch.from_seq, first.batch.to_seq);
        let was = self.draft_of(row, range, Some(row.batch.from_seq))?;
        let is = self.draft_of(row, range, Some(row.batch.to_seq))?;
        Ok(was.corrected(&is, row.batch.to_seq))
    }

    /// Records of a range, with the corrections up to a number in their place.
    fn draft_of(
        &self,
        row: &BatchRow,
        (from, to): (i64, i64),
        corrected: Option<i64>,
    ) -> Result<Draft, MakeError> {
        let anchor = self.store().read(|read| read.anchor())?.seq;
        if from < anchor && from < to {
            return Err(MakeError::Trimmed { anchor, from });
        }
        let mut stands: BTreeMap<i64, Record> = BTreeMap::new();
        if let Some(upto) = corrected {
            let found = self
                .store()
                .read(|read| read.corrections_between((from, to)))?;
            let known = found.into_iter().filter(|(_, by, _)| *by <= upto);
            // In their order, so that the last one stays.
            stands.extend(known.map(|(corrects, _, record)| (corrects, record)));
        }
        let rows = self.rows(&row.batch.tenant, (from, to))?;
        let items = rows.iter().map(|one| Item {
            seq: one.seq,
            meter: one.meter,
            subject: &one.subject,
            record: one.record,
            stands: *stands.get(&one.seq).unwrap_or(&one.record),
        });
        let period = Period::of(row.batch.period_ms);
        let found = drafts(items)
            .into_iter()
            .find(|draft| draft.period == period);
        Ok(found.unwrap_or_else(|| Draft::empty(row.batch.tenant.clone(), period)))
    }

    fn rows(&self, tenant: &str, (from, to): (i64, i64)) -> Result<Vec<UsageRow>, StoreError> {
        let mut all = Vec::new();
        self.walk(
            from,
            |read, after| read.usage_of(Some(tenant), (after, to), STRETCH),
            |row| row.seq,
            |row| {
                all.push(row);
                Ok(())
            },
        )?;
        Ok(all)
    }

    /// What was committed in the period before a batch.
    pub(super) fn before(&self, row: &BatchRow) -> Result<Before, StoreError> {
        let (tenant, period) = (row.batch.tenant.as_str(), row.batch.period_ms);
        self.store().read(|read| {
            Ok(Before {
                totals: read.totals(tenant, period)?,
                balances: read.balances(tenant, period)?,
            })
        })
    }
}
