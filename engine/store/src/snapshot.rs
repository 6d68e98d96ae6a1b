//! Snapshots: states and memories of machines that are on disk.
//!
//! Invariant: a row says that everything of it is on disk. It is written after that and removed before that goes.

use brood_units::{IntentId, MachineId, Timestamp};
use rusqlite::{OptionalExtension, Row};

use crate::machine::ShapeRow;
use crate::machine_list::Page;
use crate::row::{Labels, bytes, get, json, number, time, to_json};
use crate::{Read, StoreError, Write};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Its place in lists.
    pub seq: i64,
    /// Its id.
    pub id: MachineId,
    /// Whose it is.
    pub tenant: String,
    /// Its name, one of its kind in the tenant.
    pub name: Option<String>,
    /// Whom it was taken of.
    pub machine: MachineId,
    /// The machine that is hibernated in it, and goes on from it.
    pub sleeper: Option<MachineId>,
    /// The template at the root of that machine's lineage.
    pub template: MachineId,
    /// The first machine of that lineage.
    pub lineage: MachineId,
    /// Forks between that one and the machine.
    pub generation: u32,
    /// What runs in it.
    pub guest: String,
    /// What the machine may use.
    pub shape: ShapeRow,
    /// Its labels.
    pub labels: Labels,
    /// What an engine needs to go on with it, as JSON that only engines read.
    pub carried: String,
    /// What it takes on disk by itself, bytes.
    pub bytes: u64,
    /// When it was taken.
    pub created: Timestamp,
}

/// Snapshots of one tenant, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotCensus {
    /// Whose they are.
    pub tenant: String,
    /// How many.
    pub count: i64,
    /// What each takes by itself, together, bytes.
    pub bytes: i64,
}

fn snapshot(row: &Row<'_>) -> Result<SnapshotRow, StoreError> {
    let sleeper: Option<[u8; 16]> = get(row, "sleeper")?;
    let bytes_taken: i64 = get(row, "bytes")?;
    Ok(SnapshotRow {
        seq: get(row, "seq")?,
        id: MachineId::from_bytes(bytes(row, "id")?),
        tenant: get(row, "tenant")?,
        name: get(row, "name")?,
        machine: MachineId::from_bytes(bytes(row, "machine")?),
        sleeper: sleeper.map(MachineId::from_bytes),
        template: MachineId::from_bytes(bytes(row, "template")?),
        lineage: MachineId::from_bytes(bytes(row, "lineage")?),
        generation: number(row, "generation")?,
        guest: get(row, "guest")?,
        shape: ShapeRow {
            vcpu_milli: number(row, "vcpu_milli")?,
            memory_mib: number(row, "memory_mib")?,
            disk_mib: number(row, "disk_mib")?,
        },
        labels: json(row, "labels")?,
        carried: get(row, "carried")?,
        bytes: bytes_taken.unsigned_abs(),
        created: time(row, "created_ms")?,
    })
}

impl Read<'_> {
    /// A snapshot of a tenant.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn snapshot(&self, tenant: &str, id: MachineId) -> Result<Option<SnapshotRow>, StoreError> {
        self.one_snapshot(
            "SELECT * FROM snapshots WHERE tenant = ?1 AND id = ?2",
            (tenant, id.as_bytes()),
        )
    }

    /// The same by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn snapshot_by_name(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Option<SnapshotRow>, StoreError> {
        self.one_snapshot(
            "SELECT * FROM snapshots WHERE tenant = ?1 AND name = ?2",
            (tenant, name),
        )
    }

    /// The one that a machine is hibernated in.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn snapshot_of_sleeper(
        &self,
        sleeper: MachineId,
    ) -> Result<Option<SnapshotRow>, StoreError> {
        self.one_snapshot(
            "SELECT * FROM snapshots WHERE sleeper = ?1",
            [sleeper.as_bytes()],
        )
    }

    /// A tenant's snapshots, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn snapshots(&self, tenant: &str, page: Page) -> Result<Vec<SnapshotRow>, StoreError> {
        self.all(
            "SELECT * FROM snapshots WHERE tenant = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            (tenant, page.after, page.limit),
            snapshot,
        )
    }

    /// Whose all snapshots are, and their ids, for the engine's start.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn snapshot_keys(&self) -> Result<Vec<(String, MachineId)>, StoreError> {
        self.all("SELECT tenant, id FROM snapshots ORDER BY seq", [], |row| {
            let id = MachineId::from_bytes(bytes(row, "id")?);
            Ok((get(row, "tenant")?, id))
        })
    }

    /// All snapshots, counted.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn snapshot_census(&self) -> Result<Vec<SnapshotCensus>, StoreError> {
        self.all(
            "SELECT tenant, count(*) AS count, sum(bytes) AS bytes FROM snapshots GROUP BY tenant",
            [],
            |row| {
                Ok(SnapshotCensus {
                    tenant: get(row, "tenant")?,
                    count: get(row, "count")?,
                    bytes: get(row, "bytes")?,
                })
            },
        )
    }

    fn one_snapshot(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<Option<SnapshotRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = statement
            .query_row(values, |row| Ok(snapshot(row)))
            .optional()?;
        row.transpose()
    }
}

impl Write<'_> {
    /// A new snapshot; its place in lists is given by the database.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the tenant has one of that name, or the database cannot be written.
    pub fn add_snapshot(&mut self, row: &SnapshotRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO snapshots (id, tenant, name, machine, sleeper, template, lineage, generation, guest,
                vcpu_milli, memory_mib, disk_mib, labels, carried, bytes, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            rusqlite::params![
                row.id.as_bytes(),
                row.tenant,
                row.name,
                row.machine.as_bytes(),
                row.sleeper.as_ref().map(MachineId::as_bytes),
                row.template.as_bytes(),
                row.lineage.as_bytes(),
                row.generation,
                row.guest,
                row.shape.vcpu_milli,
                row.shape.memory_mib,
                row.shape.disk_mib,
                to_json(&row.labels)?,
                row.carried,
                i64::try_from(row.bytes).unwrap_or(i64::MAX),
                row.created.as_millis(),
            ],
        )?;
        Ok(())
    }

    /// Removes a snapshot, with what is known of secrets in it; whether there was one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_snapshot(&mut self, id: MachineId) -> Result<bool, StoreError> {
        let given = "DELETE FROM machine_secrets WHERE machine = ?1";
        let removed = self.execute("DELETE FROM snapshots WHERE id = ?1", [id.as_bytes()])? > 0;
        if removed {
            self.execute(given, [id.as_bytes()])?;
        }
        Ok(removed)
    }

    /// A living machine sleeps from now on: no cell holds her; whether there is one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn hibernate_machine(&mut self, id: MachineId) -> Result<bool, StoreError> {
        let sleep = "UPDATE machines SET state = 'hibernated', carried = '{}'
             WHERE id = ?1 AND ended_ms IS NULL AND state <> 'hibernated'";
        Ok(self.execute(sleep, [id.as_bytes()])? > 0)
    }

    /// A hibernated machine runs again, with what `intent` holds for her; whether there is one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn wake_machine(
        &mut self,
        id: MachineId,
        intent: IntentId,
        carried: &str,
    ) -> Result<bool, StoreError> {
        let wake = "UPDATE machines SET state = 'running', intent = ?2, carried = ?3
             WHERE id = ?1 AND ended_ms IS NULL AND state = 'hibernated'";
        let changed = self.execute(wake, (id.as_bytes(), intent.as_bytes(), carried))?;
        Ok(changed > 0)
    }
}
