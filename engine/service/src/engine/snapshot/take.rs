//! Taking a snapshot of a machine that runs on, or of a checkpoint that stays.
//!
//! Invariant: the machine stands still as long as for a fork and is free at once; what saves itself is a frozen point, which
//! ends with the work. Where that fails nothing is left, and the machine knows nothing of it.

use std::collections::BTreeMap;

use brood_crash_point::crash_point;
use brood_store::{MachineRow, MachineState, StoreError, Write};
use brood_units::{IntentId, MachineId};

use super::super::create::check_name;
use super::super::guest::Guest;
use super::super::intent::{Begun, Intention, close};
use super::super::life::Living;
use super::super::owner::After;
use super::super::{Caller, Engine, EngineError, Idempotency, Scope, SnapshotAnswer, report};
use super::Gone;
use super::meta::{CarriedPoint, Meta, Owner};
use crate::identity;
use crate::snapshot::Key;

/// A snapshot to be.
#[derive(Clone, Debug, Default)]
pub struct TakeSnapshot {
    /// Its name, one of its kind in the tenant.
    pub name: Option<String>,
    /// Its labels; those of the machine if there are none.
    pub labels: BTreeMap<String, String>,
}

/// All that the work of a snapshot carries along.
struct Taking {
    engine: Engine,
    tenant: String,
    row: MachineRow,
    wanted: TakeSnapshot,
    intent: IntentId,
    id: MachineId,
}

impl Engine {
    /// Takes a snapshot of a machine, which runs on, or of a checkpoint.
    ///
    /// # Errors
    /// There is none, it has ended or is hibernated, the name is taken, the point cannot be taken, or there is no room on
    /// disk.
    pub async fn take_snapshot(
        &self,
        caller: &Caller,
        id: MachineId,
        wanted: TakeSnapshot,
        idempotency: Option<Idempotency>,
    ) -> Result<SnapshotAnswer, EngineError> {
        caller.may(Scope::Write)?;
        if let Some(answer) = self.replay(caller, idempotency.as_ref())? {
            return Ok(answer);
        }
        let row = self.living(caller, id)?;
        must_run(&row)?;
        self.check_snapshot_name(caller.tenant(), wanted.name.as_deref())?;
        let (engine, caller) = (self.clone(), caller.clone());
        Self::see_through(async move { engine.take(&caller, row, wanted, idempotency).await }).await
    }

    /// Whether a snapshot of the tenant can have this name. That it is still free is seen again as its row is written.
    pub(super) fn check_snapshot_name(
        &self,
        tenant: &str,
        name: Option<&str>,
    ) -> Result<(), EngineError> {
        let Some(name) = name else {
            return Ok(());
        };
        check_name("name", name)?;
        match self
            .store()
            .read(|read| read.snapshot_by_name(tenant, name))?
        {
            Some(_) => Err(taken(tenant, name)),
            None => Ok(()),
        }
    }

    async fn take(
        self,
        caller: &Caller,
        row: MachineRow,
        wanted: TakeSnapshot,
        idempotency: Option<Idempotency>,
    ) -> Result<SnapshotAnswer, EngineError> {
        let id = identity::machine_id().map_err(|error| EngineError::failed(&error))?;
        let intention = Intention {
            operation: "snapshot",
            subject: row.born.id,
            body: serde_json::json!({ "snapshot": id }),
            holds: Vec::new(),
            units: 0,
        };
        let intent = match self.begin(caller, intention, idempotency).await? {
            Begun::Replayed(answer) => return Ok(answer),
            Begun::New(intent) => intent,
        };
        let _busy = self.busy(row.born.id);
        let point = self
            .work_with(Living::of(&row.born), |mut mother| {
                let point = mother.point().map_err(|error| EngineError::failed(&error));
                (point, After::back(mother))
            })
            .await;
        let taking = Taking {
            engine: self.clone(),
            tenant: caller.tenant().to_owned(),
            row,
            wanted,
            intent,
            id,
        };
        let taken = match point {
            Ok(point) => tokio::task::spawn_blocking(move || taking.put_down(point))
                .await
                .unwrap_or_else(|error| Err(EngineError::Failed(error.to_string()))),
            Err(error) => Err(error),
        };
        if let Err(error) = &taken {
            self.give_up(intent, error.to_string()).await?;
        }
        taken
    }
}

impl Taking {
    /// Has the point save itself and writes that down. The point ends in any case.
    fn put_down(self, mut point: Guest) -> Result<SnapshotAnswer, EngineError> {
        let host = &self.engine.inner.host;
        let guest = CarriedPoint::of(&point)?;
        let meta = Meta::of(&self.row.born, guest, self.wanted.labels.clone());
        let text = meta.write()?;
        let key = Key {
            tenant: &self.tenant,
            id: self.id,
        };
        let save = || {
            host.snapshots()
                .save(key, point.cell_mut(), meta.vcpus(), text)
        };
        let saved = crash_point("snapshot: save", save);
        if let Err(error) = point.end() {
            tracing::warn!(snapshot = %self.id, %error, "the frozen point that saved itself was not reaped");
        }
        let bytes = saved?;
        let owner = Owner {
            tenant: self.tenant.clone(),
            name: self.wanted.name.clone(),
            sleeper: None,
        };
        let row = meta.row(self.id, owner, bytes)?;
        let answer = SnapshotAnswer::from(row.clone());
        let kept = answer.clone();
        let (intent, of) = (self.intent, self.row.born.id);
        let write = move |write: &mut Write<'_>| {
            write.add_snapshot(&row)?;
            write.pass_given_on(of, row.id)?;
            let data =
                serde_json::json!({ "machine": row.machine, "name": row.name, "bytes": row.bytes });
            report(write, &row.tenant, "snapshot.created", row.id, &data)?;
            close(write, intent, &kept)
        };
        let written = self.engine.store().write(write).wait();
        if written.is_err() {
            self.engine.discard(Some(Gone {
                tenant: self.tenant.clone(),
                id: self.id,
            }));
        }
        match (written, &self.wanted.name) {
            (Ok(()), _) => Ok(answer),
            (Err(EngineError::Store(StoreError::Exists(_))), Some(name)) => {
                Err(taken(&self.tenant, name))
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Of one that stands still nobody in the guest could be asked to freeze the workload.
pub(super) fn must_run(row: &MachineRow) -> Result<(), EngineError> {
    let id = row.born.id;
    match row.born.state {
        MachineState::Hibernated => Err(EngineError::asleep(id)),
        MachineState::Paused => Err(EngineError::Conflict(format!(
            "machine {id} is paused, so that its workload cannot be frozen: resume it first"
        ))),
        MachineState::Running | MachineState::Frozen | MachineState::Ended => Ok(()),
    }
}

pub(super) fn taken(tenant: &str, name: &str) -> EngineError {
    EngineError::Conflict(format!(
        "{tenant} has a snapshot '{name}': choose another name, or remove that one"
    ))
}
