//! Daughters of a snapshot: each in a fresh cell that reads its memory as it needs it.
//!
//! Invariant: all that were planned are restored or none: what is damaged or does not fit is so for each of them.

use std::time::Instant;

use brood_cell::{Cell, CellError};
use brood_store::SnapshotRow;

use super::super::guest::Brood;
use super::super::source::Source;
use super::super::{Caller, Engine, EngineError, ForkAnswer, ForkMachine, Idempotency, Scope};
use super::meta::CarriedPoint;
use crate::fork::Unstamped;
use crate::path::{Stamps, Stopped, Why};
use crate::snapshot::{Key, SnapshotError};

impl Engine {
    /// Makes machines of a snapshot, by id or name; each begins a lineage.
    ///
    /// # Errors
    /// Those of a fork; it is damaged, or does not fit this host.
    pub async fn fork_snapshot(
        &self,
        caller: &Caller,
        which: &str,
        fork: ForkMachine,
        idempotency: Option<Idempotency>,
    ) -> Result<ForkAnswer, EngineError> {
        caller.may(Scope::Write)?;
        if let Some(answer) = self.replay(caller, idempotency.as_ref())? {
            return Ok(answer);
        }
        let row = self.snapshot_row(caller, which)?;
        self.fork_from(caller, Source::Snapshot(Box::new(row)), fork, idempotency)
            .await
    }

    /// Restores as many as were planned, and stamps those who have an agent.
    pub(in crate::engine) fn restore_snapshot(
        &self,
        row: &SnapshotRow,
        stamps: Stamps,
    ) -> Result<Brood, Box<Stopped>> {
        let carried = match CarriedPoint::read(row) {
            Ok(carried) => carried,
            Err(error) => return Err(stamps.fail(error.into())),
        };
        let cells = match self.restore_cells(row, stamps.stamps().len()) {
            Ok(cells) => cells,
            Err(error) => return Err(stamps.stop(Why::Snapshot(error))),
        };
        match carried {
            CarriedPoint::Bare => {
                let mut cells = cells.into_iter();
                let next = || cells.next().ok_or_else(too_few);
                Ok(Brood::hatched(stamps.claim_bare(next)?))
            }
            CarriedPoint::Linux { token, .. } => {
                let generation = row.generation.saturating_add(1);
                let restored = cells
                    .into_iter()
                    .map(|cell| Unstamped::restored(cell, token, row.machine, generation));
                let born = stamps.wake_all(restored.collect())?;
                let stamping = Instant::now();
                Ok(Brood::fledged(born.stamp(), None, stamping))
            }
        }
    }

    fn restore_cells(&self, row: &SnapshotRow, count: usize) -> Result<Vec<Cell>, SnapshotError> {
        let host = &self.inner.host;
        let parts = host.snapshots().parts(Key {
            tenant: &row.tenant,
            id: row.id,
        })?;
        (0..count).map(|_| host.restore(&parts)).collect()
    }
}

fn too_few() -> CellError {
    CellError::Confused("fewer cells were restored than were planned".to_owned())
}
