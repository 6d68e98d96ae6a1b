//! Machines and checkpoints, alive and ended.
//!
//! Invariant: a row is born with its labels and ends once. Its name is free again when it has ended.

use brood_units::{IntentId, MachineId, Timestamp};
use rusqlite::{OptionalExtension, Row};

use crate::row::{Labels, bytes, get, json, maybe_time, millis, number, time, to_json, word};
use crate::{Read, StoreError, Write};

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineKind {
    /// A machine.
    Machine,
    /// A frozen point of one.
    Checkpoint,
}

impl MachineKind {
    const ALL: [Self; 2] = [Self::Machine, Self::Checkpoint];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// Its vCPUs run.
    Running,
    /// They stand still.
    Paused,
    /// It is a frozen point.
    Frozen,
    /// It is on disk alone, and goes on from there.
    Hibernated,
    /// It is gone.
    Ended,
}

impl MachineState {
    const ALL: [Self; 5] = [
        Self::Running,
        Self::Paused,
        Self::Frozen,
        Self::Hibernated,
        Self::Ended,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Frozen => "frozen",
            Self::Hibernated => "hibernated",
            Self::Ended => "ended",
        }
    }
}

/// What a machine may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapeRow {
    /// 1/1000 vCPU.
    pub vcpu_milli: u32,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// Disk, MiB.
    pub disk_mib: u32,
}

/// A machine that is to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Born {
    /// Its id.
    pub id: MachineId,
    /// Whose it is.
    pub tenant: String,
    /// A part of the tenant.
    pub project: String,
    /// Its name, one of its kind among the tenant's living.
    pub name: Option<String>,
    /// What it is.
    pub kind: MachineKind,
    /// Whom it was forked from; none for one that was made of a template.
    pub mother: Option<MachineId>,
    /// The first machine of its lineage.
    pub lineage: MachineId,
    /// The template at the root.
    pub template: MachineId,
    /// Forks between the first machine and this one.
    pub generation: u32,
    /// What it does.
    pub state: MachineState,
    /// What it may use.
    pub shape: ShapeRow,
    /// Its labels.
    pub labels: Labels,
    /// What it was made for.
    pub intent: IntentId,
    /// When it came to be.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// When it ends by itself at the latest, as it was admitted.
    pub granted: Option<Timestamp>,
    /// How long nobody may ask anything of it before it ends, milliseconds.
    pub idle_ms: Option<u64>,
    /// What an engine needs to take it over from another that has died, as JSON that only engines read.
    pub carried: String,
}

/// When and how a machine ended, if it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is there.
    Alive,
    /// It is not.
    Ended {
        /// When.
        at: Timestamp,
        /// How, in words.
        how: String,
    },
}

/// A machine that is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineRow {
    /// Its place in lists.
    pub seq: i64,
    /// What it was born as, with its present state and expiry.
    pub born: Born,
    /// Whether it is there.
    pub life: Life,
}

pub(crate) fn machine(row: &Row<'_>) -> Result<MachineRow, StoreError> {
    let mother: Option<[u8; 16]> = get(row, "mother")?;
    let life = match maybe_time(row, "ended_ms")? {
        None => Life::Alive,
        Some(at) => Life::Ended {
            at,
            how: get::<Option<String>>(row, "ending")?.unwrap_or_default(),
        },
    };
    Ok(MachineRow {
        seq: get(row, "seq")?,
        born: Born {
            id: MachineId::from_bytes(bytes(row, "id")?),
            tenant: get(row, "tenant")?,
            project: get(row, "project")?,
            name: get(row, "name")?,
            kind: word(row, "kind", &MachineKind::ALL, MachineKind::as_str)?,
            mother: mother.map(MachineId::from_bytes),
            lineage: MachineId::from_bytes(bytes(row, "lineage")?),
            template: MachineId::from_bytes(bytes(row, "template")?),
            generation: number(row, "generation")?,
            state: word(row, "state", &MachineState::ALL, MachineState::as_str)?,
            shape: ShapeRow {
                vcpu_milli: number(row, "vcpu_milli")?,
                memory_mib: number(row, "memory_mib")?,
                disk_mib: number(row, "disk_mib")?,
            },
            labels: json(row, "labels")?,
            intent: IntentId::from_bytes(bytes(row, "intent")?),
            created: time(row, "created_ms")?,
            expires: maybe_time(row, "expires_ms")?,
            granted: maybe_time(row, "granted_ms")?,
            idle_ms: get::<Option<i64>>(row, "idle_ms")?.map(i64::unsigned_abs),
            carried: get(row, "carried")?,
        },
        life,
    })
}

impl Read<'_> {
    /// A machine or checkpoint of a tenant, alive or ended.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn machine(&self, tenant: &str, id: MachineId) -> Result<Option<MachineRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM machines WHERE id = ?2 AND tenant = ?1")?;
        let row = statement
            .query_row((tenant, id.as_bytes()), |row| Ok(machine(row)))
            .optional()?;
        row.transpose()
    }

    /// The one that lives under a name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn machine_by_name(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Option<MachineRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM machines WHERE tenant = ?1 AND name = ?2 AND ended_ms IS NULL",
        )?;
        let row = statement
            .query_row((tenant, name), |row| Ok(machine(row)))
            .optional()?;
        row.transpose()
    }
}

impl Write<'_> {
    /// Writes a machine down, with the programs that it has of its mother.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if one of the tenant lives under its name, or the database cannot be written.
    pub fn add_machine(&mut self, born: &Born) -> Result<(), StoreError> {
        let sql = "INSERT INTO machines (id, tenant, project, name, kind, mother, lineage, template, generation,
                state, vcpu_milli, memory_mib, disk_mib, labels, intent, created_ms, expires_ms, granted_ms,
                idle_ms, carried)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
        self.execute(
            sql,
            rusqlite::params![
                born.id.as_bytes(),
                born.tenant,
                born.project,
                born.name,
                born.kind.as_str(),
                born.mother.as_ref().map(MachineId::as_bytes),
                born.lineage.as_bytes(),
                born.template.as_bytes(),
                born.generation,
                born.state.as_str(),
                born.shape.vcpu_milli,
                born.shape.memory_mib,
                born.shape.disk_mib,
                to_json(&born.labels)?,
                born.intent.as_bytes(),
                born.created.as_millis(),
                millis(born.expires),
                millis(born.granted),
                born.idle_ms
                    .map(|idle| i64::try_from(idle).unwrap_or(i64::MAX)),
                born.carried,
            ],
        )?;
        let seq = self.connection.last_insert_rowid();
        for (key, value) in &born.labels {
            let insert = "INSERT INTO machine_labels VALUES (?1, ?2, ?3, ?4)";
            self.execute(insert, (&born.tenant, key, value, seq))?;
        }
        self.inherit_execs(born)
    }

    /// What a living machine does now; whether there is one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn change_state(&mut self, id: MachineId, state: MachineState) -> Result<bool, StoreError> {
        let update = "UPDATE machines SET state = ?2 WHERE id = ?1 AND ended_ms IS NULL";
        Ok(self.execute(update, (id.as_bytes(), state.as_str()))? > 0)
    }

    /// When a living machine ends by itself; whether there is one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn change_expiry(
        &mut self,
        id: MachineId,
        expires: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let update = "UPDATE machines SET expires_ms = ?2 WHERE id = ?1 AND ended_ms IS NULL";
        Ok(self.execute(update, (id.as_bytes(), millis(expires)))? > 0)
    }

    /// A machine has ended; whether it was alive.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn end_machine(
        &mut self,
        id: MachineId,
        how: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let labels = "DELETE FROM machine_labels
             WHERE seq = (SELECT seq FROM machines WHERE id = ?1 AND ended_ms IS NULL)";
        self.execute(labels, [id.as_bytes()])?;
        let given = "DELETE FROM machine_secrets WHERE machine = ?1";
        self.execute(given, [id.as_bytes()])?;
        let end = "UPDATE machines SET state = 'ended', ended_ms = ?3, ending = ?2
             WHERE id = ?1 AND ended_ms IS NULL";
        let changed = self.execute(end, (id.as_bytes(), how, now.as_millis()))?;
        Ok(changed > 0)
    }
}
