//! What each machine used in a month, and what each thing that is sold comes to in it: sums, beside what they are the sums of.
//!
//! ```text
//!  record, correction ─► months      line ─► charges      in the commit of the one that is added
//! ```
//!
//! Invariant: a sum changes with the record or line that it is of and with nothing else, so that a month is looked at in as
//! many rows as it has machines and things that are sold, however many records and lines those had. What records that are no
//! longer kept came to stays in it.

use std::collections::BTreeMap;

use brood_meter::{Period, Quantities, Record, Sku, Subject, by_period};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::rating::BatchState;
use crate::row::get;
use crate::usage::subject;
use crate::{Read, SettleFailure, StoreError, Write};

/// What a machine used in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonthRow {
    /// Whose it is.
    pub subject: Subject,
    /// What was measured, corrections in the place of what they correct.
    pub quantities: Quantities,
    /// Records that have a part in the month, corrections too.
    pub records: i64,
}

/// What one thing that is sold comes to for a machine in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeRow {
    /// Who pays.
    pub tenant: String,
    /// Whose it is; none for fees and credits.
    pub subject: Option<Subject>,
    /// What is sold.
    pub sku: Sku,
    /// Base units.
    pub quantity: i64,
    /// 1e-9 currency units.
    pub amount_nanos: i64,
    /// Lines that it is the sum of.
    pub lines: i64,
}

/// Records of a tenant in a month that were put into batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    /// Whose.
    pub tenant: String,
    /// In which month.
    pub period: Period,
    /// How many.
    pub records: i64,
}

/// What stood in the place of a window before a correction.
pub(crate) struct Stood {
    pub(crate) window: Record,
    pub(crate) stood: Record,
}

/// By machine and by what is sold: quantity, amount and number of lines.
pub(crate) type Charges = BTreeMap<(i64, i64), (i64, i64, i64)>;

const MONTHS: &str = "SELECT quantities, records, meters.* FROM months JOIN meters USING (meter) WHERE period_ms = ?1";
const CHARGES: &str = "SELECT charges.*, skus.*, meters.* FROM charges JOIN skus USING (sku) LEFT JOIN meters USING (meter)
    WHERE period_ms = ?1";
const AND: &str = " AND (?2 IS NULL OR tenant = ?2) GROUP BY state";
const OPEN: &str = "SELECT state, count(*) FROM batches INDEXED BY batches_open WHERE state <> 'done' AND period_ms = ?1";

fn month(row: &Row<'_>) -> Result<MonthRow, StoreError> {
    Ok(MonthRow {
        subject: subject(row)?,
        quantities: Quantities::from_bytes(get(row, "quantities")?),
        records: get(row, "records")?,
    })
}

fn charge(row: &Row<'_>) -> Result<ChargeRow, StoreError> {
    let meter: i64 = get(row, "meter")?;
    Ok(ChargeRow {
        tenant: get(row, "tenant")?,
        subject: (meter != 0).then(|| subject(row)).transpose()?,
        sku: Sku {
            name: get(row, "name")?,
            currency: get(row, "currency")?,
            unit: get(row, "unit")?,
            per: get::<i64>(row, "per")?.cast_unsigned(),
        },
        quantity: get(row, "quantity")?,
        amount_nanos: get(row, "amount_nanos")?,
        lines: get(row, "lines")?,
    })
}

impl Read<'_> {
    /// Hands over what each machine used in a month, of one tenant or of all, one after the other.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn each_month(
        &self,
        tenant: Option<&str>,
        period: Period,
        mut each: impl FnMut(MonthRow),
    ) -> Result<(), StoreError> {
        self.each_of(MONTHS, "months", (tenant, period), |row| {
            each(month(row)?);
            Ok(())
        })
    }

    /// Hands over what each thing that is sold comes to in a month, machine by machine, of one tenant or of all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn each_charge(
        &self,
        tenant: Option<&str>,
        period: Period,
        mut each: impl FnMut(ChargeRow),
    ) -> Result<(), StoreError> {
        self.each_of(CHARGES, "charges", (tenant, period), |row| {
            each(charge(row)?);
            Ok(())
        })
    }

    /// How many batches of a month wait, and how many wait for an operator, of one tenant or of all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn open_in(
        &self,
        tenant: Option<&str>,
        period: Period,
    ) -> Result<BTreeMap<BatchState, i64>, StoreError> {
        let mut found = BTreeMap::new();
        let sql = format!("{OPEN}{AND}");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query((period.start_ms(), tenant))?;
        while let Some(row) = rows.next()? {
            let state = crate::row::word(row, "state", &BatchState::ALL, BatchState::as_str)?;
            found.insert(state, row.get(1)?);
        }
        Ok(found)
    }

    /// How many records of a month are in batches, of one tenant or of all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sealed_in(&self, tenant: Option<&str>, period: Period) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(sum(records), 0) FROM sealed WHERE period_ms = ?1 AND (?2 IS NULL OR tenant = ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row((period.start_ms(), tenant), |row| row.get(0))?)
    }

    /// Rows of a month, found by the key that begins with it and with the tenant.
    fn each_of(
        &self,
        sql: &str,
        table: &str,
        (tenant, period): (Option<&str>, Period),
        mut each: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let start = period.start_ms();
        let sql = of(sql, table, tenant);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = match tenant {
            Some(tenant) => statement.query((start, tenant))?,
            None => statement.query([start])?,
        };
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok(())
    }

    /// What stood in the place of a record before a correction of it; none where the record is no longer kept.
    fn stood(&self, corrects: i64, seq: i64) -> Result<Option<Stood>, StoreError> {
        let found = self.usage_between(corrects - 1, corrects, 1)?;
        let Some(row) = found.into_iter().next() else {
            return Ok(None);
        };
        let mut earlier = self.corrections(corrects)?;
        earlier.retain(|(number, _)| *number < seq);
        Ok(Some(Stood {
            window: row.record,
            stood: earlier.pop().map_or(row.record, |(_, record)| record),
        }))
    }
}

fn of(sql: &str, table: &str, tenant: Option<&str>) -> String {
    match tenant {
        Some(_) => format!("{sql} AND {table}.tenant = ?2"),
        None => sql.to_owned(),
    }
}

impl Write<'_> {
    /// Adds a record to the sums of its months, or puts a correction in the place of what stood there.
    pub(crate) fn add_to_months(
        &mut self,
        meter: i64,
        subject: &Subject,
        record: &Record,
        replaces: Option<&Stood>,
    ) -> Result<(), StoreError> {
        if let Some(Stood { window, stood }) = replaces {
            let was = by_period(subject, window, stood);
            for ((period, is), (_, was)) in by_period(subject, window, record).zip(was) {
                let place = (subject.tenant.as_str(), meter, period);
                self.change_month(place, 0, |sum| sum.minus(was).plus(is))?;
            }
        }
        for (period, quantities) in by_period(subject, record, record) {
            let place = (subject.tenant.as_str(), meter, period);
            let is_new = record.corrects.is_none();
            self.change_month(place, 1, |sum| match is_new {
                true => sum.plus(quantities),
                false => sum,
            })?;
        }
        Ok(())
    }

    fn change_month(
        &mut self,
        (tenant, meter, period): (&str, i64, Period),
        records: i64,
        change: impl FnOnce(Quantities) -> Quantities,
    ) -> Result<(), StoreError> {
        let key = (period.start_ms(), tenant, meter);
        let sql =
            "SELECT quantities FROM months WHERE period_ms = ?1 AND tenant = ?2 AND meter = ?3";
        let found: Option<[u8; Quantities::BYTES]> = {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row(key, |row| row.get(0)).optional()?
        };
        let sum = change(found.map(Quantities::from_bytes).unwrap_or_default());
        let sql = "INSERT INTO months VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET quantities = excluded.quantities, records = records + excluded.records";
        let (start, tenant, meter) = key;
        self.execute(sql, (start, tenant, meter, sum.to_bytes(), records))?;
        Ok(())
    }

    /// Counts records that are in batches from now on.
    pub(crate) fn add_sealed(&mut self, sealed: &SealedRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO sealed VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET records = records + excluded.records";
        let start = sealed.period.start_ms();
        self.execute(sql, (start, &sealed.tenant, sealed.records))?;
        Ok(())
    }

    /// Adds what new lines come to to the sums of their month.
    pub(crate) fn add_charges(
        &mut self,
        tenant: &str,
        period_ms: i64,
        charges: Charges,
    ) -> Result<(), SettleFailure> {
        let sql = "SELECT quantity, amount_nanos, lines FROM charges
             WHERE period_ms = ?1 AND tenant = ?2 AND meter = ?3 AND sku = ?4";
        for ((meter, sku), more) in charges {
            let found: Option<(i64, i64, i64)> = {
                let connection = self.connection;
                let found = connection.prepare_cached(sql).and_then(|mut statement| {
                    let key = (period_ms, tenant, meter, sku);
                    statement
                        .query_row(key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                        .optional()
                });
                found.map_err(StoreError::from)?
            };
            let sum = joined(found.unwrap_or_default(), more)?;
            let put = "INSERT OR REPLACE INTO charges VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            self.execute(put, (period_ms, tenant, meter, sku, sum.0, sum.1, sum.2))?;
        }
        Ok(())
    }
}

/// Two sums of lines in one.
pub(crate) fn joined(
    one: (i64, i64, i64),
    other: (i64, i64, i64),
) -> Result<(i64, i64, i64), SettleFailure> {
    let add = |one: i64, other: i64, what: &str| {
        one.checked_add(other)
            .ok_or_else(|| SettleFailure::Overflow(what.to_owned()))
    };
    Ok((
        add(one.0, other.0, "quantities")?,
        add(one.1, other.1, "amounts")?,
        add(one.2, other.2, "lines")?,
    ))
}

/// Sums up the records of a database that has no sums yet.
pub(crate) fn fill(connection: &Connection) -> Result<(), StoreError> {
    let mut no_event = 0;
    let mut write = Write {
        read: Read { connection },
        last_event: &mut no_event,
    };
    let (sealed, _) = write.sealed()?;
    let mut after = write.anchor()?.seq;
    loop {
        let rows = write.usage(after, 1000)?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.seq;
        for row in &rows {
            let replaces = match row.record.corrects {
                Some(corrects) => write.stood(corrects, row.seq)?,
                None => None,
            };
            write.add_to_months(row.meter, &row.subject, &row.record, replaces.as_ref())?;
            if row.seq <= sealed {
                for (period, _) in by_period(&row.subject, &row.record, &row.record) {
                    write.add_sealed(&SealedRow {
                        tenant: row.subject.tenant.clone(),
                        period,
                        records: 1,
                    })?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
