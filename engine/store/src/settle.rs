//! What a batch comes to, committed.
//!
//! ```text
//!  lines of before, taken back ─► new lines, their sums ─► totals ─► spending ─► verdict ─► done        one job, once
//! ```
//!
//! Invariant: a batch that is done changes nothing when it is settled again, and a sum that cannot be kept keeps nothing.

use std::collections::BTreeMap;

use brood_meter::{Dimension, Origin, PricedLine, Settlement};
use brood_units::Timestamp;
use rusqlite::OptionalExtension;

use crate::month::{Charges, joined};
use crate::rating::{Balances, BatchState, LineRow};
use crate::row::to_json;
use crate::{StoreError, Write};

/// What is committed with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub sequence: i64,
    /// What came of it.
    pub settlement: Settlement,
    /// Samples whose lines are taken back.
    pub reversed: Vec<Origin>,
    /// What is taken off the totals, as measured.
    pub replaced: BTreeMap<Dimension, i64>,
    /// Who rated it.
    pub revision: String,
    /// What the policy was told.
    pub balances: Balances,
}

/// Why a batch is not settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleFailure {
    /// It comes to more than can be kept.
    #[error("the sum of {0} of the period exceeds 64 bits")]
    Overflow(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Write<'_> {
    /// Commits what a batch comes to; whether it was not done before. One that was changes nothing.
    ///
    /// # Errors
    /// A sum of the period cannot be kept, or the database cannot be written.
    pub fn settle(&mut self, settled: &Settled, now: Timestamp) -> Result<bool, SettleFailure> {
        let Some(row) = self.batch(settled.sequence)? else {
            return Ok(false);
        };
        if row.state == BatchState::Done {
            return Ok(false);
        }
        let rated = row.batch.origin.unwrap_or(row.sequence);
        let mut lines = Vec::new();
        let mut spent = settled.settlement.spent.clone();
        for origin in &settled.reversed {
            for stands in self.standing(rated, *origin)? {
                let back = PricedLine {
                    quantity: negated(stands.priced.quantity, "quantities")?,
                    amount_nanos: negated(stands.priced.amount_nanos, "amounts")?,
                    ..stands.priced.clone()
                };
                let sum = spent.entry(back.sku.currency.clone()).or_insert(0);
                *sum = added(*sum, back.amount_nanos, "amounts")?;
                lines.push((back, Some(stands.batch)));
            }
        }
        let new = settled.settlement.lines.iter().cloned();
        lines.extend(new.map(|line| (line, None)));
        let (tenant, period_ms) = (row.batch.tenant.as_str(), row.batch.period_ms);
        let mut charges = Charges::new();
        for (line, (priced, reverses)) in (1..).zip(lines) {
            let new = LineRow {
                batch: row.sequence,
                line,
                priced,
                rated,
                reverses,
            };
            let sku = self.add_line(&new)?;
            // Meters are numbered from 1.
            let meter = new.priced.origin.map_or(0, |origin| origin.meter);
            let sum = charges.entry((meter, sku)).or_default();
            *sum = joined(*sum, (new.priced.quantity, new.priced.amount_nanos, 1))?;
        }
        self.add_charges(tenant, period_ms, charges)?;
        self.total(tenant, period_ms, settled)?;
        for (currency, nanos) in spent {
            self.spend(tenant, &currency, period_ms, nanos)?;
        }
        if let Some((left, action, message)) = &settled.settlement.budget {
            let sql = "INSERT OR REPLACE INTO budgets VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let action = brood_meter::action_word(action);
            self.execute(
                sql,
                (tenant, left, action, message, row.sequence, now.as_millis()),
            )?;
        }
        let done = "UPDATE batches SET state = 'done', trouble = '', rated_by = ?2, balances = ?3, done_ms = ?4,
                place = (SELECT coalesce(max(place), 0) + 1 FROM batches WHERE place IS NOT NULL)
             WHERE sequence = ?1";
        let rated_by = self.revision(&settled.revision)?;
        let balances = to_json(&settled.balances)?;
        self.execute(done, (row.sequence, rated_by, balances, now.as_millis()))?;
        Ok(true)
    }

    /// Adds what was measured to the totals of the period, and takes off what is replaced.
    fn total(
        &mut self,
        tenant: &str,
        period_ms: i64,
        settled: &Settled,
    ) -> Result<(), SettleFailure> {
        let before = self.totals(tenant, period_ms)?;
        let mut totals = before.clone();
        for (dimension, quantity) in &settled.settlement.totals {
            let total = totals.entry(*dimension).or_insert(0);
            *total = added(*total, *quantity, dimension.as_str())?;
        }
        for (dimension, quantity) in &settled.replaced {
            let total = totals.entry(*dimension).or_insert(0);
            *total = added(
                *total,
                negated(*quantity, dimension.as_str())?,
                dimension.as_str(),
            )?;
        }
        for (dimension, quantity) in totals {
            if before.get(&dimension) != Some(&quantity) {
                let sql = "INSERT OR REPLACE INTO totals VALUES (?1, ?2, ?3, ?4)";
                self.execute(sql, (tenant, period_ms, dimension as i64, quantity))?;
            }
        }
        Ok(())
    }

    fn spend(
        &mut self,
        tenant: &str,
        currency: &str,
        period_ms: i64,
        nanos: i64,
    ) -> Result<(), SettleFailure> {
        let sql =
            "SELECT nanos FROM spending WHERE tenant = ?1 AND currency = ?2 AND period_ms = ?3";
        let before: Option<i64> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let found = statement.query_row((tenant, currency, period_ms), |row| row.get(0));
                found.optional()
            })
            .map_err(StoreError::from)?;
        let nanos = added(before.unwrap_or(0), nanos, "amounts")?;
        let sql = "INSERT OR REPLACE INTO spending VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, (tenant, currency, period_ms, nanos))?;
        Ok(())
    }

    /// Writes a line down; the number of what it sells.
    fn add_line(&mut self, line: &LineRow) -> Result<i64, StoreError> {
        let sql = "INSERT INTO lines VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let priced = &line.priced;
        let sku = self.sku(&priced.sku)?;
        self.execute(
            sql,
            rusqlite::params![
                line.batch,
                line.line,
                priced.origin.map(|origin| origin.meter),
                priced.origin.map(|origin| origin.dimension as i64),
                sku,
                priced.quantity,
                priced.unit_price_nanos,
                priced.amount_nanos,
                line.rated,
                line.reverses,
            ],
        )?;
        Ok(sku)
    }

    fn revision(&mut self, words: &str) -> Result<i64, StoreError> {
        let sql = "SELECT number FROM revisions WHERE words = ?1";
        let found = {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row([words], |row| row.get(0)).optional()?
        };
        if let Some(found) = found {
            return Ok(found);
        }
        self.execute("INSERT INTO revisions (words) VALUES (?1)", [words])?;
        Ok(self.connection.last_insert_rowid())
    }

    fn sku(&mut self, sku: &brood_meter::Sku) -> Result<i64, StoreError> {
        let values = (&sku.name, &sku.currency, &sku.unit, sku.per.cast_signed());
        let sql =
            "SELECT sku FROM skus WHERE name = ?1 AND currency = ?2 AND unit = ?3 AND per = ?4";
        let found = {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row(values, |row| row.get(0)).optional()?
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let insert = "INSERT INTO skus (name, currency, unit, per) VALUES (?1, ?2, ?3, ?4)";
        self.execute(insert, values)?;
        Ok(self.connection.last_insert_rowid())
    }
}

fn added(sum: i64, more: i64, what: &str) -> Result<i64, SettleFailure> {
    sum.checked_add(more)
        .ok_or_else(|| SettleFailure::Overflow(what.to_owned()))
}

fn negated(number: i64, what: &str) -> Result<i64, SettleFailure> {
    number
        .checked_neg()
        .ok_or_else(|| SettleFailure::Overflow(what.to_owned()))
}
