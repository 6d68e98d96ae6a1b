//! Meters and the records of their windows, as they are looked at.
//!
//! Invariant: a record comes with whom it is about and with its place in the chain, so that whoever looks can check both.

use std::collections::HashMap;
use std::sync::Arc;

use brood_meter::{Cause, Chain, Doubt, Hash, Last, Motion, Record, Subject};
use brood_units::{Instant, MachineId};
use rusqlite::{OptionalExtension, Params, Row};

use crate::row::{bytes, get, json, number, time};
use crate::{Read, StoreError};

/// Whose usage is counted, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterRow {
    /// Its number.
    pub meter: i64,
    /// Whose.
    pub subject: Subject,
    /// The last reading.
    pub last: Last,
    /// Whether she has ended, and her last window with her.
    pub is_ended: bool,
}

/// A record that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Its number; there is none between two that follow each other.
    pub seq: i64,
    /// The number of its subject.
    pub meter: i64,
    /// Whose.
    pub subject: Arc<Subject>,
    /// The window.
    pub record: Record,
    /// The hash of this record and all before it.
    pub hash: Hash,
}

/// `what` is cause + `KINDS` * (motion + `MOTIONS` * doubt).
pub(crate) const KINDS: i64 = 8;
pub(crate) const MOTIONS: i64 = 4;

fn unsigned(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    get::<i64>(row, column).map(i64::cast_unsigned)
}

fn one_of<T: Copy>(all: &[T], index: i64, column: &'static str) -> Result<T, StoreError> {
    let found = usize::try_from(index).ok().and_then(|index| all.get(index));
    found.copied().ok_or_else(|| StoreError::Unknown {
        column,
        found: index.to_string(),
    })
}

pub(crate) fn subject(row: &Row<'_>) -> Result<Subject, StoreError> {
    Ok(Subject {
        machine: MachineId::from_bytes(bytes(row, "machine")?),
        is_checkpoint: get(row, "is_checkpoint")?,
        tenant: get(row, "tenant")?,
        project: get(row, "project")?,
        lineage: MachineId::from_bytes(bytes(row, "lineage")?),
        template: MachineId::from_bytes(bytes(row, "template")?),
        vcpu_milli: number(row, "vcpu_milli")?,
        memory_mib: number(row, "memory_mib")?,
        disk_mib: number(row, "disk_mib")?,
        labels: json(row, "labels")?,
        born: time(row, "born_ms")?,
    })
}

fn meter(row: &Row<'_>) -> Result<MeterRow, StoreError> {
    Ok(MeterRow {
        meter: get(row, "meter")?,
        subject: subject(row)?,
        last: Last {
            born: Instant::from_nanos(unsigned(row, "born_ns")?),
            at: time(row, "last_ms")?,
            instant: Instant::from_nanos(unsigned(row, "last_ns")?),
            cpu_ns: unsigned(row, "cpu_ns")?,
            private_kib: unsigned(row, "private_kib")?,
            motion: one_of(&Motion::ALL, get(row, "motion")?, "motion")?,
        },
        is_ended: get(row, "is_ended")?,
    })
}

fn record(row: &Row<'_>) -> Result<Record, StoreError> {
    let what: i64 = get(row, "what")?;
    let doubt = what / (KINDS * MOTIONS);
    Ok(Record {
        cause: one_of(&Cause::ALL, what % KINDS, "what")?,
        motion: one_of(&Motion::ALL, what / KINDS % MOTIONS, "what")?,
        doubt: Doubt {
            cpu: doubt & 1 != 0,
            memory: doubt & 2 != 0,
        },
        end: time(row, "end_ms")?,
        age_us: unsigned(row, "age_us")?,
        span_us: unsigned(row, "span_us")?,
        cpu_ns: unsigned(row, "cpu_ns")?,
        cpu_total_ns: unsigned(row, "cpu_total_ns")?,
        private_kib: unsigned(row, "private_kib")?,
        corrects: get(row, "corrects")?,
    })
}

fn hash(row: &Row<'_>) -> Result<Hash, StoreError> {
    Ok(Hash(get(row, "hash")?))
}

impl Read<'_> {
    /// The meter of a machine or checkpoint.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn meter(&self, machine: MachineId) -> Result<Option<MeterRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM meters WHERE machine = ?1")?;
        let row = statement
            .query_row([machine.as_bytes()], |row| Ok(meter(row)))
            .optional()?;
        row.transpose()
    }

    /// Records behind a number, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usage(&self, after: i64, limit: u32) -> Result<Vec<UsageRow>, StoreError> {
        self.usage_between(after, i64::MAX, limit)
    }

    /// Records behind a number up to another, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usage_between(
        &self,
        after: i64,
        upto: i64,
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let sql = "SELECT * FROM usage WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
        self.usage_by(sql, (after, upto, limit))
    }

    fn usage_by(&self, sql: &str, values: impl Params) -> Result<Vec<UsageRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut subjects = HashMap::new();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let meter = get(row, "meter")?;
            found.push(UsageRow {
                seq: get(row, "seq")?,
                meter,
                subject: self.subject(meter, &mut subjects)?,
                record: record(row)?,
                hash: hash(row)?,
            });
        }
        Ok(found)
    }

    /// Records of one tenant, or of all, behind a number up to another, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usage_of(
        &self,
        tenant: Option<&str>,
        (after, upto): (i64, i64),
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let Some(tenant) = tenant else {
            return self.usage_between(after, upto, limit);
        };
        let sql = "SELECT usage.* FROM usage JOIN meters USING (meter)
             WHERE seq > ?1 AND seq <= ?2 AND tenant = ?4 ORDER BY seq LIMIT ?3";
        self.usage_by(sql, (after, upto, limit, tenant))
    }

    /// Corrections of the records behind a number up to another: what each corrects, its number, and it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn corrections_between(
        &self,
        (after, upto): (i64, i64),
    ) -> Result<Vec<(i64, i64, Record)>, StoreError> {
        let sql =
            "SELECT * FROM usage WHERE corrects > ?1 AND corrects <= ?2 ORDER BY corrects, seq";
        self.all(sql, (after, upto), |row| {
            Ok((get(row, "corrects")?, get(row, "seq")?, record(row)?))
        })
    }

    /// Whose a meter is.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn subject_of(&self, meter: i64) -> Result<Subject, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM meters WHERE meter = ?1")?;
        statement.query_row([meter], |row| Ok(subject(row)))?
    }

    fn subject(
        &self,
        meter: i64,
        known: &mut HashMap<i64, Arc<Subject>>,
    ) -> Result<Arc<Subject>, StoreError> {
        if let Some(subject) = known.get(&meter) {
            return Ok(Arc::clone(subject));
        }
        let found = Arc::new(self.subject_of(meter)?);
        known.insert(meter, Arc::clone(&found));
        Ok(found)
    }

    /// The corrections of a record, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn corrections(&self, seq: i64) -> Result<Vec<(i64, Record)>, StoreError> {
        let sql = "SELECT * FROM usage WHERE corrects = ?1 ORDER BY seq";
        self.all(sql, [seq], |row| Ok((get(row, "seq")?, record(row)?)))
    }

    /// Where the records that are kept begin: behind the last anchor, or at the very beginning.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn anchor(&self) -> Result<Chain, StoreError> {
        self.place("SELECT seq, hash FROM usage_anchors ORDER BY seq DESC LIMIT 1")
    }

    /// The end of the chain.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn chain_end(&self) -> Result<Chain, StoreError> {
        let end = self.place("SELECT seq, hash FROM usage ORDER BY seq DESC LIMIT 1")?;
        if end.seq > 0 { Ok(end) } else { self.anchor() }
    }

    fn place(&self, sql: &str) -> Result<Chain, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement
            .query_row([], |row| Ok((row.get("seq")?, hash(row))))
            .optional()?;
        match found {
            Some((seq, hash)) => Ok(Chain { seq, hash: hash? }),
            None => Ok(Chain {
                seq: 0,
                hash: Hash::default(),
            }),
        }
    }
}
