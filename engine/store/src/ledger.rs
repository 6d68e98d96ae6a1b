//! What tenants have paid in advance, what they have spent, and the last verdict on what is left.
//!
//! Invariant: a credit is one entry, whoever posts it how often: the same key with another amount is refused.

use std::collections::BTreeMap;

use brood_meter::credit_left;
use brood_units::Timestamp;
use rusqlite::{OptionalExtension, Row};

use crate::rating::Balances;
use crate::row::{get, time};
use crate::{Read, StoreError, Write};

/// A credit to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCredit {
    /// Who gets it.
    pub tenant: String,
    /// The poster's own key for it.
    pub key: String,
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// How much, 1e-9 units.
    pub nanos: i64,
    /// What it is for.
    pub note: String,
    /// Begin of the month it counts from, milliseconds since the epoch.
    pub period_ms: i64,
}

/// A credit that was posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditRow {
    /// Its place in the ledger.
    pub seq: i64,
    /// What it says.
    pub credit: NewCredit,
    /// When it was posted.
    pub at: Timestamp,
}

/// The last verdict on what a tenant has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRow {
    /// Left, 1e-9 units.
    pub left_nanos: i64,
    /// What follows: `none`, `warn`, `refuse-forks`, `pause` or `stop`.
    pub action: String,
    /// In the policy's words.
    pub message: String,
    /// The batch with which it was said.
    pub batch: i64,
    /// When.
    pub at: Timestamp,
}

/// What became of a credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is a new entry.
    New(CreditRow),
    /// It was posted before.
    Known(CreditRow),
    /// Another credit was posted under its key.
    Mismatch(CreditRow),
}

fn credit(row: &Row<'_>) -> Result<CreditRow, StoreError> {
    Ok(CreditRow {
        seq: get(row, "seq")?,
        credit: NewCredit {
            tenant: get(row, "tenant")?,
            key: get(row, "key")?,
            currency: get(row, "currency")?,
            nanos: get(row, "nanos")?,
            note: get(row, "note")?,
            period_ms: get(row, "period_ms")?,
        },
        at: time(row, "at_ms")?,
    })
}

impl Read<'_> {
    /// A tenant's credits behind a place, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn credits(
        &self,
        tenant: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<CreditRow>, StoreError> {
        let sql = "SELECT * FROM credits WHERE tenant = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
        self.all(sql, (tenant, after, limit), credit)
    }

    /// By currency: what a tenant has spent in a period, and what is left of what it has paid in advance until then.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn balances(&self, tenant: &str, period_ms: i64) -> Result<Balances, StoreError> {
        // The period itself is there also where nothing happened in it, so that its spending is its own.
        let sql = "SELECT currency, period_ms, sum(credit) AS credit, sum(spent) AS spent FROM (
                SELECT currency, period_ms, nanos AS credit, 0 AS spent FROM credits
                    WHERE tenant = ?1 AND period_ms <= ?2
                UNION ALL SELECT currency, period_ms, 0, nanos FROM spending WHERE tenant = ?1 AND period_ms <= ?2
                UNION ALL SELECT DISTINCT currency, ?2, 0, 0 FROM credits WHERE tenant = ?1
            ) GROUP BY currency, period_ms ORDER BY currency, period_ms";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((tenant, period_ms))?;
        let mut by_currency: BTreeMap<String, Vec<(i64, i64, i64)>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let entry = (
                get(row, "period_ms")?,
                get(row, "credit")?,
                get(row, "spent")?,
            );
            by_currency
                .entry(get(row, "currency")?)
                .or_default()
                .push(entry);
        }
        let balance = |(currency, periods): (String, Vec<(i64, i64, i64)>)| {
            let spent = periods.last().filter(|(period, ..)| *period == period_ms);
            let spent = spent.map_or(0, |(_, _, spent)| *spent);
            let left = credit_left(periods.iter().map(|(_, credit, spent)| (*credit, *spent)));
            (currency, (spent, left))
        };
        Ok(by_currency.into_iter().map(balance).collect())
    }

    /// The last verdict on what a tenant has left; none where no budget is kept.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn budget(&self, tenant: &str) -> Result<Option<BudgetRow>, StoreError> {
        let sql = "SELECT * FROM budgets WHERE tenant = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement.query_row([tenant], |row| {
            Ok(BudgetRow {
                left_nanos: row.get("left_nanos")?,
                action: row.get("action")?,
                message: row.get("message")?,
                batch: row.get("batch")?,
                at: Timestamp::from_millis(row.get("at_ms")?),
            })
        });
        Ok(found.optional()?)
    }
}

impl Write<'_> {
    /// Posts a credit.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn post_credit(&mut self, new: &NewCredit, now: Timestamp) -> Result<Posted, StoreError> {
        let sql = "SELECT * FROM credits WHERE tenant = ?1 AND key = ?2";
        let known = {
            let mut statement = self.connection.prepare_cached(sql)?;
            let found = statement.query_row((&new.tenant, &new.key), |row| Ok(credit(row)));
            found.optional()?.transpose()?
        };
        if let Some(known) = known {
            let same = NewCredit {
                period_ms: known.credit.period_ms,
                ..new.clone()
            };
            return Ok(match same == known.credit {
                true => Posted::Known(known),
                false => Posted::Mismatch(known),
            });
        }
        let sql = "INSERT INTO credits (tenant, key, currency, nanos, note, period_ms, at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.execute(
            sql,
            (
                &new.tenant,
                &new.key,
                &new.currency,
                new.nanos,
                &new.note,
                new.period_ms,
                now.as_millis(),
            ),
        )?;
        Ok(Posted::New(CreditRow {
            seq: self.connection.last_insert_rowid(),
            credit: new.clone(),
            at: now,
        }))
    }
}
