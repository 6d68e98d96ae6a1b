//! Programs in machines, and how they ended.
//!
//! Invariant: a row ends once, and stays as it ended, unless how was not known before. `running` means that no end is known here: the guest knows better as
//! long as it lives. A daughter is born with those of her mother's rows that were there before her fork was begun; an end
//! that came later than that is not hers.

use brood_units::{MachineId, Timestamp};
use rusqlite::{OptionalExtension, Row};

use crate::machine::Born;
use crate::row::{bytes, get, json, maybe_time, number, time, to_json, word};
use crate::{Read, StoreError, Write};

/// Whether and how a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// No end is known.
    Running,
    /// It exited with a code.
    Exited,
    /// A signal ended it.
    Signaled,
    /// It ran longer than it was allowed.
    TimedOut,
    /// The guest has forgotten it, or ended with it.
    Lost,
}

impl ExecState {
    const ALL: [Self; 5] = [
        Self::Running,
        Self::Exited,
        Self::Signaled,
        Self::TimedOut,
        Self::Lost,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
        }
    }
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRow {
    /// In which machine.
    pub machine: MachineId,
    /// Which of her programs.
    pub exec: u32,
    /// Whose.
    pub tenant: String,
    /// It and its arguments, cut to a readable length.
    pub argv: Vec<String>,
    /// Whether and how it ended.
    pub state: ExecState,
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it was started, or first seen.
    pub created: Timestamp,
    /// When its end was seen.
    pub ended: Option<Timestamp>,
}

fn exec(row: &Row<'_>) -> Result<ExecRow, StoreError> {
    Ok(ExecRow {
        machine: MachineId::from_bytes(bytes(row, "machine")?),
        exec: number(row, "exec")?,
        tenant: get(row, "tenant")?,
        argv: json(row, "argv")?,
        state: word(row, "state", &ExecState::ALL, ExecState::as_str)?,
        code: get(row, "code")?,
        signal: get(row, "signal")?,
        created: time(row, "created_ms")?,
        ended: maybe_time(row, "ended_ms")?,
    })
}

impl Read<'_> {
    /// A program of a tenant's.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn exec(
        &self,
        tenant: &str,
        machine: MachineId,
        id: u32,
    ) -> Result<Option<ExecRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM execs WHERE machine = ?2 AND exec = ?3 AND tenant = ?1",
        )?;
        let row = statement
            .query_row((tenant, machine.as_bytes(), id), |row| Ok(exec(row)))
            .optional()?;
        row.transpose()
    }

    /// The newest programs of a machine, at most `limit`, by id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn execs(
        &self,
        tenant: &str,
        machine: MachineId,
        limit: u32,
    ) -> Result<Vec<ExecRow>, StoreError> {
        self.all(
            "SELECT * FROM (SELECT * FROM execs WHERE machine = ?2 AND tenant = ?1
                            ORDER BY exec DESC LIMIT ?3) ORDER BY exec",
            (tenant, machine.as_bytes(), limit),
            exec,
        )
    }
}

impl Write<'_> {
    /// What is known of a program now; whether that is news. One that has ended stays as it is,
    /// unless it was lost and is found.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn put_exec(&mut self, row: &ExecRow) -> Result<bool, StoreError> {
        let changed = self.execute(
            "INSERT INTO execs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (machine, exec) DO UPDATE
             SET state = excluded.state, code = excluded.code, signal = excluded.signal, ended_ms = excluded.ended_ms
             WHERE (ended_ms IS NULL AND state <> excluded.state)
                OR (state = 'lost' AND excluded.state NOT IN ('running', 'lost'))",
            rusqlite::params![
                row.machine.as_bytes(),
                row.exec,
                row.tenant,
                to_json(&row.argv)?,
                row.state.as_str(),
                row.code,
                row.signal,
                row.created.as_millis(),
                row.ended.map(Timestamp::as_millis),
            ],
        )?;
        Ok(changed > 0)
    }

    /// A machine is born with her mother's programs.
    pub(crate) fn inherit_execs(&self, born: &Born) -> Result<(), StoreError> {
        let Some(mother) = born.mother else {
            return Ok(());
        };
        // An end that was seen after the fork was begun may have come after it, and a program that was started after
        // that may be the mother's alone.
        self.execute(
            "INSERT INTO execs
             SELECT ?1, exec, tenant, argv,
                    iif(ended_ms < begun.at, state, 'running'),
                    iif(ended_ms < begun.at, code, NULL),
                    iif(ended_ms < begun.at, signal, NULL),
                    execs.created_ms,
                    iif(ended_ms < begun.at, ended_ms, NULL)
             FROM execs JOIN (SELECT created_ms AS at FROM intents WHERE id = ?3) AS begun
             WHERE machine = ?2 AND execs.created_ms < begun.at",
            (
                born.id.as_bytes(),
                mother.as_bytes(),
                born.intent.as_bytes(),
            ),
        )?;
        Ok(())
    }
}
