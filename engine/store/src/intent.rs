//! What the engine has set out to do.
//!
//! Invariant: an intent is written before anything is done for it, and closed with what came of it. The units that
//! admission held for it are a column of it; sums of them are never stored.

use brood_units::{IntentId, MachineId, Timestamp};
use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use crate::row::{bytes, get, json, maybe_time, number, time, to_json};
use crate::{Read, StoreError, Write};

/// Units of one counter that are held for the daughters of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRow {
    /// The plugin that owns the counter.
    pub plugin: String,
    /// The counter.
    pub key: String,
    /// Until the last daughter ends.
    pub per_request: i64,
    /// Until each daughter ends.
    pub per_daughter: i64,
    /// Until then instead, whatever becomes of them.
    pub until: Option<Timestamp>,
}

/// An intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentRow {
    /// Its id.
    pub id: IntentId,
    /// For whom.
    pub tenant: String,
    /// What.
    pub operation: String,
    /// With which machine or template.
    pub subject: MachineId,
    /// All of it, as its operation writes it down.
    pub body: String,
    /// What is held for it.
    pub holds: Vec<HoldRow>,
    /// For how many daughters.
    pub units: u32,
    /// When it was written.
    pub created: Timestamp,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// What came of it.
    pub outcome: Option<String>,
}

fn intent(row: &Row<'_>) -> Result<IntentRow, StoreError> {
    Ok(IntentRow {
        id: IntentId::from_bytes(bytes(row, "id")?),
        tenant: get(row, "tenant")?,
        operation: get(row, "operation")?,
        subject: MachineId::from_bytes(bytes(row, "subject")?),
        body: get(row, "body")?,
        holds: json(row, "holds")?,
        units: number(row, "units")?,
        created: time(row, "created_ms")?,
        closed: maybe_time(row, "closed_ms")?,
        outcome: get(row, "outcome")?,
    })
}

impl Read<'_> {
    /// One intent.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn intent(&self, id: IntentId) -> Result<Option<IntentRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM intents WHERE id = ?1")?;
        let row = statement
            .query_row([id.as_bytes()], |row| Ok(intent(row)))
            .optional()?;
        row.transpose()
    }

    /// Those that nobody has closed, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn open_intents(&self) -> Result<Vec<IntentRow>, StoreError> {
        self.intents("SELECT * FROM intents WHERE closed_ms IS NULL ORDER BY created_ms, id")
    }

    /// Those whose units are still held: they are open, have machines alive, or hold something for a time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn holding_intents(&self, now: Timestamp) -> Result<Vec<IntentRow>, StoreError> {
        let holding = self.intents(
            "SELECT * FROM intents WHERE holds <> '[]' AND (closed_ms IS NULL
               OR EXISTS (SELECT 1 FROM machines WHERE intent = intents.id AND ended_ms IS NULL
                          AND state <> 'hibernated')
               OR holds LIKE '%\"until\":_%')
             ORDER BY created_ms, id",
        )?;
        let lasts = |hold: &HoldRow| hold.until.is_some_and(|until| until > now);
        let mut kept = Vec::new();
        for row in holding {
            let alive = row.closed.is_none() || self.alive_of(row.id)? > 0;
            if alive || row.holds.iter().any(lasts) {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// How many machines of an intent are alive and in memory: who is hibernated holds nothing.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn alive_of(&self, id: IntentId) -> Result<u32, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) AS alive FROM machines INDEXED BY machines_alive
             WHERE ended_ms IS NULL AND intent = ?1 AND state <> 'hibernated'",
        )?;
        statement.query_row([id.as_bytes()], |row| Ok(number(row, "alive")))?
    }

    fn intents(&self, sql: &str) -> Result<Vec<IntentRow>, StoreError> {
        self.all(sql, [], intent)
    }
}

impl Write<'_> {
    /// A new intent.
    ///
    /// # Errors
    /// [`StoreError::Exists`], or the database cannot be written.
    pub fn add_intent(&mut self, row: &IntentRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO intents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            (
                row.id.as_bytes(),
                &row.tenant,
                &row.operation,
                row.subject.as_bytes(),
                &row.body,
                to_json(&row.holds)?,
                row.units,
                row.created.as_millis(),
                row.closed.map(Timestamp::as_millis),
                &row.outcome,
            ),
        )?;
        Ok(())
    }

    /// Closes an intent; whether it was open.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn close_intent(
        &mut self,
        id: IntentId,
        outcome: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let close =
            "UPDATE intents SET closed_ms = ?2, outcome = ?3 WHERE id = ?1 AND closed_ms IS NULL";
        let changed = self.execute(close, (id.as_bytes(), now.as_millis(), outcome))?;
        Ok(changed > 0)
    }
}
