//! Batches of usage on their way through a billing policy, and the lines that came of them.
//!
//! ```text
//!  records ─ seal ─► held ─ settle ─► done: lines, totals, spending, verdict on the budget
//!                     │  ▲
//!                     └► dead: tried in vain too often, put back by an operator
//! ```
//!
//! Invariant: what a batch comes to is written once, with its mark `done`, in one job; which records are in it follows from its
//! row. Sequences are dense.

use std::collections::BTreeMap;

use brood_meter::{Dimension, Origin, PricedLine};
use brood_units::Timestamp;
use rusqlite::{OptionalExtension, Row};

use crate::month::SealedRow;
use crate::row::{get, json, maybe_time, time, word};
use crate::{Read, StoreError, Write};

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BatchState {
    /// It waits to be rated.
    Held,
    /// It is rated.
    Done,
    /// It was tried in vain too often, and waits for an operator.
    Dead,
}

impl BatchState {
    pub(crate) const ALL: [Self; 3] = [Self::Held, Self::Done, Self::Dead];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

/// By currency: spent in the period, and left of what was paid in advance, 1e-9 units.
pub type Balances = BTreeMap<String, (i64, i64)>;

/// A batch to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// Who pays.
    pub tenant: String,
    /// Begin of the month, milliseconds since the epoch.
    pub period_ms: i64,
    /// Its records are behind this one.
    pub from_seq: i64,
    /// The last of its records.
    pub to_seq: i64,
    /// The batch whose samples are corrected.
    pub origin: Option<i64>,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRow {
    /// Its number.
    pub sequence: i64,
    /// What is in it.
    pub batch: NewBatch,
    /// Where it is.
    pub state: BatchState,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it is tried next.
    pub due: Timestamp,
    /// Why it was tried in vain the last time.
    pub trouble: String,
    /// Which component and settings rated it.
    pub revision: String,
    /// What the policy was told.
    pub balances: Balances,
    /// When it was rated.
    pub done: Option<Timestamp>,
    /// Its place among those that are rated, in the order in which they were.
    pub place: Option<i64>,
}

/// A line that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRow {
    /// The batch that brought it.
    pub batch: i64,
    /// Its place in the batch.
    pub line: i64,
    /// What it says.
    pub priced: PricedLine,
    /// The batch in which its sample was rated first.
    pub rated: i64,
    /// The batch whose line it takes back.
    pub reverses: Option<i64>,
}

fn batch(row: &Row<'_>) -> Result<BatchRow, StoreError> {
    Ok(BatchRow {
        sequence: get(row, "sequence")?,
        batch: NewBatch {
            tenant: get(row, "tenant")?,
            period_ms: get(row, "period_ms")?,
            from_seq: get(row, "from_seq")?,
            to_seq: get(row, "to_seq")?,
            origin: get(row, "origin")?,
        },
        state: word(row, "state", &BatchState::ALL, BatchState::as_str)?,
        attempts: crate::row::number(row, "attempts")?,
        due: time(row, "due_ms")?,
        trouble: get(row, "trouble")?,
        revision: get(row, "revision")?,
        balances: json(row, "balances")?,
        done: maybe_time(row, "done_ms")?,
        place: get(row, "place")?,
    })
}

fn line(row: &Row<'_>) -> Result<LineRow, StoreError> {
    let meter: Option<i64> = get(row, "meter")?;
    let dimension: Option<i64> = get(row, "dimension")?;
    let dimension = dimension.map(dimension_of).transpose()?;
    Ok(LineRow {
        batch: get(row, "batch")?,
        line: get(row, "line")?,
        priced: PricedLine {
            origin: meter
                .zip(dimension)
                .map(|(meter, dimension)| Origin { meter, dimension }),
            sku: brood_meter::Sku {
                name: get(row, "name")?,
                currency: get(row, "currency")?,
                unit: get(row, "unit")?,
                per: get::<i64>(row, "per")?.cast_unsigned(),
            },
            quantity: get(row, "quantity")?,
            unit_price_nanos: get(row, "unit_price_nanos")?,
            amount_nanos: get(row, "amount_nanos")?,
        },
        rated: get(row, "rated")?,
        reverses: get(row, "reverses")?,
    })
}

fn dimension_of(index: i64) -> Result<Dimension, StoreError> {
    let found = usize::try_from(index).ok();
    let found = found.and_then(|index| Dimension::ALL.get(index).copied());
    found.ok_or_else(|| StoreError::Unknown {
        column: "dimension",
        found: index.to_string(),
    })
}

const BATCHES: &str = "SELECT batches.*, coalesce(revisions.words, '') AS revision
    FROM batches LEFT JOIN revisions ON number = rated_by";
const LINES: &str = "SELECT lines.*, skus.name, skus.currency, skus.unit, skus.per FROM lines JOIN skus USING (sku)";

impl Read<'_> {
    /// Up to which record all are in batches, and which settings were in force then.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sealed(&self) -> Result<(i64, String), StoreError> {
        let sql = "SELECT sealed, revision FROM rating";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// Batches that are not done, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn open_batches(&self, state: BatchState, limit: u32) -> Result<Vec<BatchRow>, StoreError> {
        let sql =
            format!("{BATCHES} WHERE state = ?1 AND state <> 'done' ORDER BY sequence LIMIT ?2");
        self.all(&sql, (state.as_str(), limit), batch)
    }

    /// A batch.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn batch(&self, sequence: i64) -> Result<Option<BatchRow>, StoreError> {
        let sql = format!("{BATCHES} WHERE sequence = ?1");
        let found = self.all(&sql, [sequence], batch)?;
        Ok(found.into_iter().next())
    }

    /// Batches of a period behind a sequence, of one tenant or of all, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn batches_of(
        &self,
        tenant: Option<&str>,
        period_ms: i64,
        after: i64,
        limit: u32,
    ) -> Result<Vec<BatchRow>, StoreError> {
        match tenant {
            Some(tenant) => {
                let sql = format!(
                    "{BATCHES} WHERE tenant = ?1 AND period_ms = ?2 AND sequence > ?3 ORDER BY sequence LIMIT ?4"
                );
                self.all(&sql, (tenant, period_ms, after, limit), batch)
            }
            None => {
                let sql = format!(
                    "{BATCHES} WHERE period_ms = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
                );
                self.all(&sql, (period_ms, after, limit), batch)
            }
        }
    }

    /// The batches that a tenant's record was first rated in: more than one if it was cut at the end of a period.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn batches_with(&self, tenant: &str, seq: i64) -> Result<Vec<BatchRow>, StoreError> {
        // Stretches do not overlap, so the first that ends at or behind the record has it or nobody has.
        let sql = format!(
            "{BATCHES} WHERE origin IS NULL AND tenant = ?1 AND from_seq < ?2
                 AND to_seq = (SELECT min(to_seq) FROM batches WHERE to_seq >= ?2)
             ORDER BY sequence"
        );
        self.all(&sql, (tenant, seq), batch)
    }

    /// Up to which record all have ended by an instant and are rated, with whatever they are corrected by.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn trimmable(&self, before: Timestamp) -> Result<i64, StoreError> {
        let late = "SELECT seq FROM usage WHERE end_ms > ?1 ORDER BY seq LIMIT 1";
        let mut statement = self.connection.prepare_cached(late)?;
        let late: Option<i64> = statement
            .query_row([before.as_millis()], |row| row.get(0))
            .optional()?;
        let open = "SELECT min(min(one.from_seq, coalesce(first.from_seq, one.from_seq)))
             FROM batches AS one LEFT JOIN batches AS first ON one.origin = first.sequence WHERE one.state <> 'done'";
        let mut statement = self.connection.prepare_cached(open)?;
        let open: Option<i64> = statement.query_row([], |row| row.get(0))?;
        let (sealed, _) = self.sealed()?;
        let all = [late.map(|seq| seq - 1), open, Some(sealed)];
        Ok(all.into_iter().flatten().min().unwrap_or(0))
    }

    /// Lines of a batch behind a place, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn lines(&self, batch: i64, after: i64, limit: u32) -> Result<Vec<LineRow>, StoreError> {
        let sql = format!("{LINES} WHERE batch = ?1 AND line > ?2 ORDER BY batch, line LIMIT ?3");
        self.all(&sql, (batch, after, limit), line)
    }

    /// The lines of a sample that stand: of the last batch that rated it.
    pub(crate) fn standing(&self, rated: i64, of: Origin) -> Result<Vec<LineRow>, StoreError> {
        let last = "SELECT max(batch) FROM lines WHERE rated = ?1 AND rated <> batch AND meter = ?2 AND dimension = ?3";
        let values = (rated, of.meter, of.dimension as i64);
        let mut statement = self.connection.prepare_cached(last)?;
        let last: Option<i64> = statement.query_row(values, |row| row.get(0))?;
        let sql = format!(
            "{LINES} WHERE batch = ?1 AND rated = ?2 AND meter = ?3 AND dimension = ?4 AND reverses IS NULL ORDER BY line"
        );
        let values = (last.unwrap_or(rated), rated, of.meter, of.dimension as i64);
        self.all(&sql, values, line)
    }

    /// What was measured of a tenant in a period and is rated, by dimension.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn totals(
        &self,
        tenant: &str,
        period_ms: i64,
    ) -> Result<BTreeMap<Dimension, i64>, StoreError> {
        let sql = "SELECT dimension, quantity FROM totals WHERE tenant = ?1 AND period_ms = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((tenant, period_ms))?;
        let mut found = BTreeMap::new();
        while let Some(row) = rows.next()? {
            found.insert(dimension_of(get(row, "dimension")?)?, get(row, "quantity")?);
        }
        Ok(found)
    }
}

impl Write<'_> {
    /// Puts the records up to `to_seq` into batches; those who rate have `revision`.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn seal(
        &mut self,
        batches: &[NewBatch],
        records: &[SealedRow],
        (to_seq, revision): (i64, &str),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for batch in batches {
            self.add_batch(batch, now)?;
        }
        for row in records {
            self.add_sealed(row)?;
        }
        let sql = "UPDATE rating SET sealed = max(sealed, ?1), revision = ?2";
        self.execute(sql, (to_seq, revision))?;
        Ok(())
    }

    /// Writes a batch down; its sequence.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn add_batch(&mut self, batch: &NewBatch, now: Timestamp) -> Result<i64, StoreError> {
        let sql = "INSERT INTO batches (sequence, tenant, period_ms, from_seq, to_seq, origin, state, attempts, due_ms,
                trouble, balances)
             VALUES ((SELECT coalesce(max(sequence), 0) + 1 FROM batches), ?1, ?2, ?3, ?4, ?5, 'held', 0, ?6, '', '{}')";
        self.execute(
            sql,
            (
                &batch.tenant,
                batch.period_ms,
                batch.from_seq,
                batch.to_seq,
                batch.origin,
                now.as_millis(),
            ),
        )?;
        Ok(self.connection.last_insert_rowid())
    }

    /// A batch was tried in vain: it is tried again when it is due, or waits for an operator.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn hold_batch(
        &mut self,
        sequence: i64,
        trouble: &str,
        due: Timestamp,
        state: BatchState,
    ) -> Result<(), StoreError> {
        let sql =
            "UPDATE batches SET attempts = attempts + 1, trouble = ?2, due_ms = ?3, state = ?4
             WHERE sequence = ?1 AND state <> 'done'";
        self.execute(sql, (sequence, trouble, due.as_millis(), state.as_str()))?;
        Ok(())
    }

    /// Puts dead batches back, one or all of them; how many.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn put_back(&mut self, sequence: Option<i64>, now: Timestamp) -> Result<usize, StoreError> {
        let sql = "UPDATE batches SET state = 'held', attempts = 0, due_ms = ?2
             WHERE state = 'dead' AND (?1 IS NULL OR sequence = ?1)";
        self.execute(sql, (sequence, now.as_millis()))
    }
}
