//! How far usage has come, for who watches the engine.
//!
//! Invariant: whatever is looked at here is found by an index or is one row, so that looking is as quick with a year of records as
//! with none.

use std::collections::BTreeMap;

use brood_units::Timestamp;
use rusqlite::OptionalExtension;

use crate::rating::BatchState;
use crate::{Read, StoreError};

/// How far usage has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageState {
    /// Windows that were ever written.
    pub written: i64,
    /// Those that are kept.
    pub kept: i64,
    /// Those that are in no batch.
    pub unsealed: i64,
    /// Batches that wait to be rated.
    pub held: i64,
    /// Batches that wait for an operator.
    pub dead: i64,
    /// Batches that are rated.
    pub done: i64,
    /// The end of the oldest window that is not rated; none where all are.
    pub oldest_unrated: Option<Timestamp>,
    /// Credits that were posted.
    pub credits: i64,
    /// Tenants by the last verdict on what they have left.
    pub verdicts: BTreeMap<String, i64>,
}

impl Read<'_> {
    /// How far usage has come.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usage_state(&self) -> Result<UsageState, StoreError> {
        let (end, anchor) = (self.chain_end()?.seq, self.anchor()?.seq);
        let (sealed, _) = self.sealed()?;
        let open = |state: BatchState| {
            let sql = "SELECT count(*) FROM batches WHERE state = ?1 AND state <> 'done'";
            self.number(sql, [state.as_str()])
        };
        let verdicts = "SELECT action, count(*) FROM budgets GROUP BY action";
        let verdicts = self.all(verdicts, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(UsageState {
            written: end,
            kept: end - anchor,
            unsealed: end - sealed.min(end),
            held: open(BatchState::Held)?,
            dead: open(BatchState::Dead)?,
            done: self.number(
                "SELECT coalesce(max(place), 0) FROM batches WHERE place IS NOT NULL",
                (),
            )?,
            oldest_unrated: self.oldest_unrated(sealed)?,
            credits: self.number("SELECT coalesce(max(seq), 0) FROM credits", ())?,
            verdicts: verdicts.into_iter().collect(),
        })
    }

    fn number(&self, sql: &str, values: impl rusqlite::Params) -> Result<i64, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(values, |row| row.get(0))?)
    }

    /// Stretches are in the order of the chain, so the first record of the first open batch is older than those of others.
    fn oldest_unrated(&self, sealed: i64) -> Result<Option<Timestamp>, StoreError> {
        let of_batch = "SELECT usage.end_ms FROM batches JOIN usage ON seq > from_seq AND seq <= to_seq
                 JOIN meters ON meters.meter = usage.meter AND meters.tenant = batches.tenant
             WHERE sequence = (SELECT sequence FROM batches WHERE state <> 'done' AND from_seq < to_seq ORDER BY sequence LIMIT 1)
             ORDER BY seq LIMIT 1";
        let unsealed = "SELECT end_ms FROM usage WHERE seq > ?1 ORDER BY seq LIMIT 1";
        let mut statement = self.connection.prepare_cached(of_batch)?;
        let mut oldest: Option<i64> = statement.query_row((), |row| row.get(0)).optional()?;
        if oldest.is_none() {
            let mut statement = self.connection.prepare_cached(unsealed)?;
            oldest = statement.query_row([sealed], |row| row.get(0)).optional()?;
        }
        Ok(oldest.map(Timestamp::from_millis))
    }
}
