//! Lists of machines, a page at a time.
//!
//! Invariant: a page begins behind a number that never changes, so that nothing is shown twice or left out because
//! machines come and go between two pages.

use brood_units::MachineId;

use crate::machine::machine;
use crate::{MachineKind, MachineRow, Read, StoreError};

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The place behind which it begins; 0 for the first.
    pub after: i64,
    /// The most rows.
    pub limit: u32,
}

/// Which machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineQuery {
    /// Whose.
    pub tenant: String,
    /// Of which kind.
    pub kind: MachineKind,
    /// Those alive with this label; none for all.
    pub label: Option<(String, String)>,
    /// Those that have ended instead of those alive.
    pub ended: bool,
}

/// Those alive of one tenant, of one kind, that do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Whose they are.
    pub tenant: String,
    /// `machine` or `checkpoint`.
    pub kind: String,
    /// `running`, `paused`, `frozen` or `hibernated`.
    pub state: String,
    /// How many.
    pub count: i64,
    /// RAM that they may use together, MiB.
    pub memory_mib: i64,
    /// CPU that they may use together, 1/1000 vCPU.
    pub vcpu_milli: i64,
}

impl Read<'_> {
    /// A page of machines, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn machines(
        &self,
        query: &MachineQuery,
        page: Page,
    ) -> Result<Vec<MachineRow>, StoreError> {
        let (tenant, kind) = (&query.tenant, query.kind.as_str());
        match (&query.label, query.ended) {
            (Some((key, value)), false) => self.all(
                "SELECT machines.* FROM machine_labels JOIN machines USING (seq)
                 WHERE machine_labels.tenant = ?1 AND key = ?4 AND value = ?5
                   AND machine_labels.seq > ?2 AND kind = ?6
                 ORDER BY machine_labels.seq LIMIT ?3",
                (tenant, page.after, page.limit, key, value, kind),
                machine,
            ),
            (Some((key, value)), true) => self.all(
                "SELECT * FROM machines
                 WHERE tenant = ?1 AND kind = ?6 AND (ended_ms IS NULL) = 0 AND seq > ?2
                   AND EXISTS (SELECT 1 FROM json_each(labels) AS label
                               WHERE label.key = ?4 AND label.value = ?5)
                 ORDER BY seq LIMIT ?3",
                (tenant, page.after, page.limit, key, value, kind),
                machine,
            ),
            (None, ended) => self.all(
                "SELECT * FROM machines
                 WHERE tenant = ?1 AND kind = ?4 AND (ended_ms IS NULL) = ?5 AND seq > ?2
                 ORDER BY seq LIMIT ?3",
                (tenant, page.after, page.limit, kind, !ended),
                machine,
            ),
        }
    }

    /// Everybody of a lineage, mothers before daughters.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn lineage(&self, tenant: &str, lineage: MachineId) -> Result<Vec<MachineRow>, StoreError> {
        self.all(
            "SELECT * FROM machines WHERE lineage = ?2 AND tenant = ?1 ORDER BY seq",
            (tenant, lineage.as_bytes()),
            machine,
        )
    }

    /// Everybody alive, of all tenants.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn alive(&self) -> Result<Vec<MachineRow>, StoreError> {
        self.all(
            "SELECT * FROM machines WHERE ended_ms IS NULL ORDER BY seq",
            (),
            machine,
        )
    }

    /// How many machines of a tenant are in memory, and what they may use together. Who is hibernated uses nothing.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn living(&self, tenant: &str) -> Result<(u32, i64), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*), coalesce(sum(memory_mib), 0) FROM machines
             WHERE tenant = ?1 AND kind = 'machine' AND (ended_ms IS NULL) = 1 AND state <> 'hibernated'",
        )?;
        Ok(statement.query_row([tenant], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// Everybody alive, counted.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn census(&self) -> Result<Vec<Census>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT tenant, kind, state, count(*), sum(memory_mib), sum(vcpu_milli) FROM machines
             WHERE ended_ms IS NULL GROUP BY tenant, kind, state",
        )?;
        let found = statement.query_map((), |row| {
            Ok(Census {
                tenant: row.get(0)?,
                kind: row.get(1)?,
                state: row.get(2)?,
                count: row.get(3)?,
                memory_mib: row.get(4)?,
                vcpu_milli: row.get(5)?,
            })
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }
}
