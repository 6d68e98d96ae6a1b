//! Snapshots as objects: taken, listed, removed, and what follows for machines.
//!
//! ```text
//!  running machine ─ point, as for a fork ─► frozen cell ─ saves itself ─► files ─ synced ─► row, event, answer (one commit)
//!  hibernate ─ quiesced, paused ──────────► her own cell ─ saves itself ─► files ─ synced ─► row, state ─► the cell ends
//!  fork, wake ◄─ restored: she runs before her memory is read ◄─ fresh cell ◄─ files
//! ```
//!
//! Invariant: a row is there only while everything of it is on disk. It is committed after the files are synced, and its
//! removal before they go, so that what an engine that was killed leaves behind is files without a row, which the next one
//! removes. Objects of another tenant are not there.

mod hibernate;
mod meta;
mod restore;
mod take;
mod transfer;
mod wake;

use brood_store::{Page, SnapshotRow, Write};
use brood_units::MachineId;

use super::{Caller, Engine, EngineError, PageAnswer, Scope, SnapshotAnswer, report};
use crate::snapshot::Key;

pub use take::TakeSnapshot;
pub use transfer::{SnapshotBytes, SnapshotSink};

impl Engine {
    /// A snapshot of the caller's tenant, by id or name.
    ///
    /// # Errors
    /// There is none, or the caller may not look.
    pub fn show_snapshot(
        &self,
        caller: &Caller,
        which: &str,
    ) -> Result<SnapshotAnswer, EngineError> {
        Ok(self.snapshot_row(caller, which)?.into())
    }

    /// A page of the tenant's snapshots, oldest first.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn snapshots(
        &self,
        caller: &Caller,
        page: Page,
    ) -> Result<PageAnswer<SnapshotAnswer>, EngineError> {
        caller.may(Scope::Read)?;
        let rows = self
            .store()
            .read(|read| read.snapshots(caller.tenant(), page))?;
        let full = rows.len() >= usize::try_from(page.limit).unwrap_or(usize::MAX);
        let next = rows.last().filter(|_| full).map(|row| row.seq);
        let items = rows.into_iter().map(SnapshotAnswer::from).collect();
        Ok(PageAnswer { items, next })
    }

    /// Removes a snapshot. Machines that were made of it live on.
    ///
    /// # Errors
    /// There is none, a machine is hibernated in it, or the caller may not.
    pub async fn remove_snapshot(&self, caller: &Caller, which: &str) -> Result<(), EngineError> {
        caller.may(Scope::Write)?;
        let row = self.snapshot_row(caller, which)?;
        let which = which.to_owned();
        let remove = move |write: &mut Write<'_>| {
            // She may have fallen asleep in it, or woken, since it was looked at.
            let sleeper = write
                .snapshot(&row.tenant, row.id)?
                .and_then(|row| row.sleeper);
            if let Some(sleeper) = sleeper {
                return Err(EngineError::Conflict(format!(
                    "machine {sleeper} is hibernated in snapshot {which}: wake or end her, and it goes by itself"
                )));
            }
            remove(write, &row)
        };
        let gone = self.store().write(remove).await?;
        let engine = self.clone();
        let discarded = tokio::task::spawn_blocking(move || engine.discard(gone)).await;
        discarded.map_err(|error| EngineError::Failed(error.to_string()))
    }

    pub(super) fn snapshot_row(
        &self,
        caller: &Caller,
        which: &str,
    ) -> Result<SnapshotRow, EngineError> {
        caller.may(Scope::Read)?;
        let tenant = caller.tenant();
        let found = self.store().read(|read| match which.parse::<MachineId>() {
            Ok(id) => read.snapshot(tenant, id),
            Err(_) => read.snapshot_by_name(tenant, which),
        })?;
        found.ok_or_else(|| EngineError::NotFound {
            what: "snapshot",
            which: which.escape_debug().to_string(),
        })
    }

    /// Removes the files of a snapshot that has no row, or none any more. Those that cannot be removed now are found by the
    /// next engine.
    pub(super) fn discard(&self, gone: Option<Gone>) {
        if let Some(Gone { tenant, id }) = gone
            && let Err(error) = self.inner.host.snapshots().remove(Key {
                tenant: &tenant,
                id,
            })
        {
            tracing::warn!(snapshot = %id, %error, "its files stay until the next start");
        }
    }

    /// Removes what is on disk without a row: leftovers of an engine that was killed.
    pub(super) fn sweep_snapshots(&self) -> Result<(), EngineError> {
        let known = self.store().read(|read| read.snapshot_keys())?;
        let snapshots = self.inner.host.snapshots();
        let swept = snapshots.sweep(&known.into_iter().collect());
        for id in swept.map_err(EngineError::from)? {
            tracing::info!(snapshot = %id, "what an engine that was killed had not finished was removed");
        }
        Ok(())
    }
}

/// A snapshot that may have files, and has no row.
pub(super) struct Gone {
    tenant: String,
    id: MachineId,
}

/// Removes a row, which is the end of the snapshot, for who removes the files after the commit.
fn remove(write: &mut Write<'_>, row: &SnapshotRow) -> Result<Option<Gone>, EngineError> {
    if !write.remove_snapshot(row.id)? {
        return Ok(None);
    }
    let data = serde_json::json!({ "machine": row.machine, "name": row.name });
    report(write, &row.tenant, "snapshot.removed", row.id, &data)?;
    Ok(Some(Gone {
        tenant: row.tenant.clone(),
        id: row.id,
    }))
}

/// Removes the row of what a machine is hibernated in, as she wakes or ends, if she is.
pub(super) fn remove_bed(
    write: &mut Write<'_>,
    sleeper: MachineId,
) -> Result<Option<Gone>, EngineError> {
    match write.snapshot_of_sleeper(sleeper)? {
        Some(row) => remove(write, &row),
        None => Ok(None),
    }
}
