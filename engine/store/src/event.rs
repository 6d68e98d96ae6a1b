//! What happened, for those who look on.
//!
//! Invariant: an event commits with the change it reports, numbers grow and are never used twice, and what was trimmed is
//! said to be missing.

use brood_units::{MachineId, Timestamp};
use rusqlite::Row;

use crate::row::{bytes, get, time};
use crate::{Read, StoreError, Write};

/// An event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Who may see it.
    pub tenant: String,
    /// What happened.
    pub kind: String,
    /// To which machine, checkpoint or template.
    pub subject: MachineId,
    /// When.
    pub at: Timestamp,
    /// More about it, JSON.
    pub data: String,
}

/// An event that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its number.
    pub seq: i64,
    /// What happened.
    pub event: NewEvent,
}

/// Events behind a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// Set if events behind the number asked for are gone: the last of them.
    pub gap: Option<i64>,
    /// The events.
    pub events: Vec<EventRow>,
}

fn event(row: &Row<'_>) -> Result<EventRow, StoreError> {
    Ok(EventRow {
        seq: get(row, "seq")?,
        event: NewEvent {
            tenant: get(row, "tenant")?,
            kind: get(row, "kind")?,
            subject: MachineId::from_bytes(bytes(row, "subject")?),
            at: time(row, "at_ms")?,
            data: get(row, "data")?,
        },
    })
}

impl Read<'_> {
    /// A tenant's events behind `after`, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn events(&self, tenant: &str, after: i64, limit: u32) -> Result<EventPage, StoreError> {
        let trimmed: i64 = self
            .connection
            .query_row("SELECT trimmed FROM outbox", [], |row| row.get(0))?;
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM events WHERE tenant = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = statement.query((tenant, after, limit))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            events.push(event(row)?);
        }
        Ok(EventPage {
            gap: (after < trimmed).then_some(trimmed),
            events,
        })
    }
}

impl Write<'_> {
    /// Reports something; its number.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn report(&mut self, event: &NewEvent) -> Result<i64, StoreError> {
        self.execute(
            "INSERT INTO events (tenant, kind, subject, at_ms, data) VALUES (?1, ?2, ?3, ?4, ?5)",
            (
                &event.tenant,
                &event.kind,
                event.subject.as_bytes(),
                event.at.as_millis(),
                &event.data,
            ),
        )?;
        let seq = self.connection.last_insert_rowid();
        *self.last_event = seq;
        Ok(seq)
    }

    /// Trims the outbox to its last `keep` numbers; how many events went.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn trim_events(&mut self, keep: u32) -> Result<usize, StoreError> {
        let upto = self.last_event.saturating_sub(keep.into()).max(0);
        self.execute("UPDATE outbox SET trimmed = max(trimmed, ?1)", [upto])?;
        self.execute("DELETE FROM events WHERE seq <= ?1", [upto])
    }
}
