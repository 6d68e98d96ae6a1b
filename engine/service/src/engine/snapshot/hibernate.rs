//! Hibernation: a machine that is on disk alone, under her own id.
//!
//! ```text
//!  running ─ quiesced, paused ─ saved, synced ─► commit: row, state, last window, event ─► the cell ends ─► asleep in her seat
//!                └─ what fails ─► resumed, thawed: she runs on, and nothing is left
//! ```
//!
//! Invariant: until the commit she is in memory and after it on disk, never nowhere: an engine that is killed before it leaves
//! her cell to the next one, which lets it run on, and one that is killed after it leaves a cell that the next one ends.
//!
//! What admission held for her is given back as if she had ended: counters are a policy's own, and the engine cannot tell
//! memory from number in them. To wake she is admitted anew. She counts neither as living nor as using memory meanwhile.

use brood_agent_proto::Quiesced;
use brood_crash_point::crash_point;
use brood_meter::Cause;
use brood_store::{MachineKind, MachineRow, MachineState, Write};
use brood_units::{IntentId, MachineId};

use super::super::guest::Guest;
use super::super::intent::{Begun, Intention, close};
use super::super::life::Living;
use super::super::owner::{After, Seated};
use super::super::usage::reading;
use super::super::{Caller, Engine, EngineError, MachineAnswer, Scope, report};
use super::Gone;
use super::meta::{CarriedPoint, Meta, Owner};
use super::take::must_run;
use crate::fork::quiesce;
use crate::identity;
use crate::snapshot::Key;

/// What it takes to put a machine to sleep.
struct Bed {
    engine: Engine,
    row: MachineRow,
    intent: IntentId,
    id: MachineId,
}

/// A guest that stands still, with its workload frozen if it has one.
enum Still {
    Bare,
    Linux(Quiesced),
}

impl Engine {
    /// Has a machine sleep on disk: she keeps id, name and labels, and nothing of her is in memory. One that does so already
    /// stays as she is.
    ///
    /// # Errors
    /// There is none, it has ended, it is a checkpoint or paused, its workload does not freeze, or there is no room on disk;
    /// she runs on.
    pub async fn hibernate(
        &self,
        caller: &Caller,
        id: MachineId,
    ) -> Result<MachineAnswer, EngineError> {
        caller.may(Scope::Write)?;
        let row = self.living(caller, id)?;
        if row.born.kind == MachineKind::Checkpoint {
            let words = format!("{id} is a checkpoint: take a snapshot of it and end it");
            return Err(EngineError::Conflict(words));
        }
        if row.born.state == MachineState::Hibernated {
            return Ok(MachineAnswer::from(row));
        }
        must_run(&row)?;
        let (engine, of) = (self.clone(), caller.clone());
        Self::see_through(async move { engine.put_to_sleep(&of, row).await }).await?;
        self.machine(caller, id)
    }

    async fn put_to_sleep(self, caller: &Caller, row: MachineRow) -> Result<(), EngineError> {
        let id = identity::machine_id().map_err(|error| EngineError::failed(&error))?;
        let intention = Intention {
            operation: "hibernate",
            subject: row.born.id,
            body: serde_json::json!({ "snapshot": id }),
            holds: Vec::new(),
            units: 0,
        };
        let intent = match self.begin::<()>(caller, intention, None).await? {
            Begun::Replayed(()) => return Ok(()),
            Begun::New(intent) => intent,
        };
        let _busy = self.busy(row.born.id);
        let living = Living::of(&row.born);
        let bed = Bed {
            engine: self.clone(),
            row,
            intent,
            id,
        };
        let slept = self
            .work_with(living, move |guest| bed.lay_down(guest))
            .await;
        if let Err(error) = &slept {
            self.give_up(intent, error.to_string()).await?;
        }
        slept
    }
}

impl Bed {
    fn lay_down(self, mut guest: Guest) -> (Result<(), EngineError>, After) {
        let still = match hold_still(&mut guest) {
            Ok(still) => still,
            Err(error) => return (Err(error), After::back(guest)),
        };
        if let Err(error) = self.save(&mut guest, &still) {
            let told = match go_on(&mut guest, still) {
                Ok(()) => error,
                Err(worse) => EngineError::Failed(format!("{error}; then {worse}")),
            };
            return (Err(told), After::back(guest));
        }
        // From here on she is on disk: her cell is nobody any more, whatever becomes of it.
        let cell = guest.kept_as();
        if let Err(error) = guest.end() {
            tracing::warn!(machine = %self.row.born.id, %error, "the cell of a hibernated machine was not reaped");
        }
        self.settle(cell);
        (Ok(()), After::with(Seated::Asleep))
    }

    /// Saves her and writes down that she sleeps, with her last reading. Nothing is left of it where this fails.
    fn save(&self, guest: &mut Guest, still: &Still) -> Result<(), EngineError> {
        let carried = match (still, &*guest) {
            (Still::Linux(quiesced), Guest::Linux(machine)) => {
                CarriedPoint::linux(&quiesced.ticket(), &machine.hostname)
            }
            (_, guest) => CarriedPoint::of(guest)?,
        };
        let born = &self.row.born;
        let meta = Meta::of(born, carried, born.labels.clone());
        let text = meta.write()?;
        let snapshots = self.engine.inner.host.snapshots();
        let key = Key {
            tenant: &born.tenant,
            id: self.id,
        };
        let save = || snapshots.save(key, guest.cell_mut(), meta.vcpus(), text);
        let bytes = crash_point("snapshot: hibernate", save)?;
        let owner = Owner {
            tenant: born.tenant.clone(),
            name: None,
            sleeper: Some(born.id),
        };
        let row = meta.row(self.id, owner, bytes)?;
        let last = reading::all(guest.pid());
        let (id, intent) = (born.id, self.intent);
        let write = move |write: &mut Write<'_>| {
            write.add_snapshot(&row)?;
            write.pass_given_on(id, row.id)?;
            write.hibernate_machine(id)?;
            write.count(id, &last, Cause::Hibernate)?;
            let data = serde_json::json!({ "machine": id, "bytes": row.bytes });
            report(write, &row.tenant, "snapshot.created", row.id, &data)?;
            let data = serde_json::json!({ "snapshot": row.id, "bytes": row.bytes });
            report(write, &row.tenant, "machine.hibernated", id, &data)?;
            close(write, intent, &())
        };
        let written = self.engine.store().write(write).wait();
        if written.is_err() {
            self.engine.discard(Some(Gone {
                tenant: born.tenant.clone(),
                id: self.id,
            }));
        }
        written
    }

    /// What was held for her and looked after is let go.
    fn settle(&self, cell: Option<MachineId>) {
        let (engine, id) = (&self.engine, self.row.born.id);
        engine.metered().remove(&id);
        engine.watch(Living::of(&self.row.born).asleep());
        engine.holds().machine_ended(id);
        engine.call_next();
        if let Some(cell) = cell {
            engine.kept().remove(&cell);
        }
        engine.note(cell);
    }
}

/// Freezes the workload, if there is one, and stops the vCPUs. Where this fails the guest runs as it did.
fn hold_still(guest: &mut Guest) -> Result<Still, EngineError> {
    let failed = |error: anyhow::Error| EngineError::failed(&error);
    let still = match guest.linux() {
        Some(machine) => Still::Linux(quiesce(machine).map_err(failed)?),
        None => Still::Bare,
    };
    match guest.pause() {
        Ok(()) => Ok(still),
        Err(error) => {
            let error = EngineError::Failed(error.to_string());
            Err(match go_on(guest, still) {
                Ok(()) => error,
                Err(worse) => EngineError::Failed(format!("{error}; then {worse}")),
            })
        }
    }
}

/// Has a guest that stands still run on.
fn go_on(guest: &mut Guest, still: Still) -> Result<(), EngineError> {
    guest
        .resume()
        .map_err(|error| EngineError::Failed(format!("the machine does not run on: {error}")))?;
    if let (Still::Linux(quiesced), Some(machine)) = (still, guest.linux()) {
        let agent = quiesced
            .thaw()
            .map_err(|error| EngineError::Failed(format!("the workload does not thaw: {error}")))?;
        machine.agent = Some(agent);
    }
    Ok(())
}
