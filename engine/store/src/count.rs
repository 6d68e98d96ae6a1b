//! Counting: windows closed by readings, and records put right.
//!
//! ```text
//!  count(machine, reading) ─► window since the reading before ─► record, hash of all before it ─► the reading is the last one
//! ```
//!
//! Invariant: the window, its place in the chain and the reading that the next one begins with are one write, so that no time
//! is counted twice or not at all, whoever counts. A record is never changed; one that is wrong is corrected by another.

use brood_meter::{Cause, Last, Period, Reading, Record, Subject};
use brood_units::{Instant, MachineId, Timestamp};

use crate::row::to_json;
use crate::usage::{KINDS, MOTIONS};
use crate::{StoreError, Write};

/// What replaces a record; what is none stays as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Correction {
    /// Its length, microseconds.
    pub span_us: Option<u64>,
    /// CPU time in it, nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Pages that were her own alone, KiB.
    pub private_kib: Option<u64>,
}

/// Why a record is not corrected.
#[derive(Debug, thiserror::Error)]
pub enum CorrectError {
    /// There is none with this number, or it is no longer kept.
    #[error("there is no usage record {0}: list those that are kept")]
    Unknown(i64),
    /// It is a correction itself.
    #[error("usage record {seq} is a correction: correct record {corrects}, which it replaces")]
    OfCorrection {
        /// Which.
        seq: i64,
        /// What it replaces.
        corrects: i64,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The largest number of a column.
const MOST: u64 = i64::MAX.cast_unsigned();

fn what(record: &Record) -> i64 {
    let doubt = i64::from(record.doubt.cpu) + 2 * i64::from(record.doubt.memory);
    record.cause as i64 + KINDS * (record.motion as i64 + MOTIONS * doubt)
}

/// The most that a column holds; what the kernel counts is far below it, and corrections are held to it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether it began in a month before the one that it ended in.
fn is_over(record: &Record) -> bool {
    let (start_ms, _) = record.start_and_born_ms();
    Period::of(start_ms.cast_signed()) != Period::of(record.end.as_millis())
}

impl Write<'_> {
    /// Begins to count.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn open_meter(&mut self, subject: &Subject, last: &Last) -> Result<(), StoreError> {
        let sql = "INSERT INTO meters (machine, is_checkpoint, tenant, project, lineage, template, vcpu_milli, memory_mib,
                disk_mib, labels, born_ms, born_ns, last_ms, last_ns, cpu_ns, private_kib, motion, is_ended)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, 0)";
        self.execute(
            sql,
            rusqlite::params![
                subject.machine.as_bytes(),
                subject.is_checkpoint,
                subject.tenant,
                subject.project,
                subject.lineage.as_bytes(),
                subject.template.as_bytes(),
                subject.vcpu_milli,
                subject.memory_mib,
                subject.disk_mib,
                to_json(&subject.labels)?,
                subject.born.as_millis(),
                signed(last.born.as_nanos()),
                last.at.as_millis(),
                signed(last.instant.as_nanos()),
                signed(last.cpu_ns),
                signed(last.private_kib),
                last.motion as i64,
            ],
        )?;
        Ok(())
    }

    /// Closes the window of a machine with a reading; the number of its record, if there was one to close. After her end, and
    /// while she is hibernated, there is none.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn count(
        &mut self,
        machine: MachineId,
        reading: &Reading,
        cause: Cause,
    ) -> Result<Option<i64>, StoreError> {
        let Some(row) = self.meter(machine)?.filter(|row| !row.is_ended) else {
            return Ok(None);
        };
        let Some((record, last)) = row.last.window(reading, cause) else {
            // Nothing is known since, but what she does from now on may be another thing.
            let motion = cause.then(row.last.motion) as i64;
            self.execute(
                "UPDATE meters SET motion = ?2 WHERE meter = ?1",
                (row.meter, motion),
            )?;
            return Ok(None);
        };
        let seq = self.append(row.meter, &row.subject, &record)?;
        let sql = "UPDATE meters SET last_ms = ?2, last_ns = ?3, cpu_ns = ?4, private_kib = ?5, motion = ?6, is_ended = ?7
             WHERE meter = ?1";
        self.execute(
            sql,
            (
                row.meter,
                last.at.as_millis(),
                signed(last.instant.as_nanos()),
                signed(last.cpu_ns),
                signed(last.private_kib),
                last.motion as i64,
                cause.is_last(),
            ),
        )?;
        Ok(Some(seq))
    }

    /// Counts on with a machine that wakes, in a new process.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn wake_meter(
        &mut self,
        machine: MachineId,
        at: Timestamp,
        instant: Instant,
    ) -> Result<(), StoreError> {
        let Some(row) = self.meter(machine)?.filter(|row| row.is_ended) else {
            return Ok(());
        };
        let last = row.last.woken(at, instant);
        let sql = "UPDATE meters SET born_ns = ?2, last_ms = ?3, last_ns = ?4, cpu_ns = 0, private_kib = 0, motion = ?5,
                is_ended = 0
             WHERE meter = ?1";
        self.execute(
            sql,
            (
                row.meter,
                signed(last.born.as_nanos()),
                last.at.as_millis(),
                signed(last.instant.as_nanos()),
                last.motion as i64,
            ),
        )?;
        Ok(())
    }

    /// Puts a record right by another one, which is rated in its place; its number.
    ///
    /// # Errors
    /// There is no such record, or the database cannot be written.
    pub fn correct(&mut self, seq: i64, correction: Correction) -> Result<i64, CorrectError> {
        let found = self.usage_between(seq - 1, seq, 1)?;
        let row = found.into_iter().next().ok_or(CorrectError::Unknown(seq))?;
        if let Some(corrects) = row.record.corrects {
            return Err(CorrectError::OfCorrection { seq, corrects });
        }
        let right = |put: Option<u64>, stands| put.map_or(stands, |put| put.min(MOST));
        let last = self.corrections(seq)?.pop();
        let stands = last.map_or(row.record, |(_, record)| record);
        let span_us = right(correction.span_us, stands.span_us);
        let record = Record {
            cause: Cause::Correction,
            span_us,
            // Her age at its begin stays as it was, and with it whether it is her first.
            age_us: (stands.age_us - stands.span_us)
                .saturating_add(span_us)
                .min(MOST),
            cpu_ns: right(correction.cpu_ns, stands.cpu_ns),
            private_kib: right(correction.private_kib, stands.private_kib),
            corrects: Some(seq),
            ..stands
        };
        Ok(self.append(row.meter, &row.subject, &record)?)
    }

    fn append(
        &mut self,
        meter: i64,
        subject: &Subject,
        record: &Record,
    ) -> Result<i64, StoreError> {
        let end = self.chain_end()?;
        let seq = end.seq + 1;
        let hash = end.hash.then(seq, subject, record);
        let sql = "INSERT INTO usage (seq, meter, what, end_ms, age_us, span_us, cpu_ns, cpu_total_ns, private_kib, corrects, hash,
                is_over)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        self.execute(
            sql,
            rusqlite::params![
                seq,
                meter,
                what(record),
                record.end.as_millis(),
                signed(record.age_us),
                signed(record.span_us),
                signed(record.cpu_ns),
                signed(record.cpu_total_ns),
                signed(record.private_kib),
                record.corrects,
                hash.0,
                is_over(record),
            ],
        )?;
        Ok(seq)
    }

    /// Lets go of all records up to a number, and keeps the hash of the last as an anchor; how many went.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn trim_usage(&mut self, upto: i64, now: Timestamp) -> Result<usize, StoreError> {
        let keep =
            "INSERT OR IGNORE INTO usage_anchors SELECT seq, hash, ?2 FROM usage WHERE seq = ?1";
        if self.execute(keep, (upto, now.as_millis()))? == 0 {
            return Ok(0);
        }
        self.execute("DELETE FROM usage WHERE seq <= ?1", [upto])
    }
}
