//! The life of a machine after its birth: pause, resume, checkpoints, and every way that it ends.
//!
//! Invariant: a machine that has ended, by whatever cause, is written down as ended with the cause, once, and its units
//! are given back.

use std::sync::Arc;

use brood_meter::{Cause, Reading};
use brood_store::{Born, Life, MachineKind, MachineRow, MachineState, Write};
use brood_units::{MachineId, Timestamp};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::carried::Carried;
use super::guest::Guest;
use super::intent::{Begun, Intention, close};
use super::owner::{After, Seated, Tell};
use super::snapshot::remove_bed;
use super::usage::Begin;
use super::usage::reading::{self, Metered};
use super::{
    Caller, CheckpointAnswer, Engine, EngineError, Idempotency, MachineAnswer, Scope, now, report,
};
use crate::identity;

/// What is needed to look after a machine.
#[derive(Clone, Debug)]
pub(super) struct Living {
    pub(super) id: MachineId,
    pub(super) lineage: MachineId,
    tenant: String,
    kind: MachineKind,
    pub(super) expires: Option<Timestamp>,
    pub(super) idle_ms: Option<u64>,
}

impl Living {
    pub(super) fn of(born: &Born) -> Self {
        Self {
            id: born.id,
            lineage: born.lineage,
            tenant: born.tenant.clone(),
            kind: born.kind,
            expires: born.expires,
            idle_ms: born.idle_ms,
        }
    }

    /// The same of one that is hibernated, who is not idle though nobody asks anything of her.
    pub(super) fn asleep(self) -> Self {
        Self {
            idle_ms: None,
            ..self
        }
    }
}

/// What a machine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stand still.
    Pause,
    /// Run on.
    Resume,
}

impl Engine {
    /// Pauses or resumes a machine. One that does so already stays as it is.
    ///
    /// # Errors
    /// There is none, it has ended, it is a checkpoint, or its cell refuses.
    pub async fn change(
        &self,
        caller: &Caller,
        id: MachineId,
        change: Change,
    ) -> Result<MachineAnswer, EngineError> {
        caller.may(Scope::Write)?;
        let row = self.living(caller, id)?;
        if row.born.kind == MachineKind::Checkpoint {
            let words = format!("{id} is a checkpoint, which never runs: fork it");
            return Err(EngineError::Conflict(words));
        }
        let state = match change {
            Change::Pause => MachineState::Paused,
            Change::Resume => MachineState::Running,
        };
        if change == Change::Resume {
            self.budget_left(caller.tenant(), Begin::Again)?;
        }
        let _busy = self.busy(id);
        let (engine, living) = (self.clone(), Living::of(&row.born));
        self.work_with(living.clone(), move |mut guest| {
            let done = match change {
                Change::Pause => guest.pause(),
                Change::Resume => guest.resume(),
            };
            let told = match done {
                Ok(()) => engine.write_state(&living, state, &guest),
                Err(error) => Err(EngineError::Failed(error.to_string())),
            };
            (told, After::back(guest))
        })
        .await?;
        self.machine(caller, id)
    }

    /// Keeps a frozen point of a machine, which runs on.
    ///
    /// # Errors
    /// There is none, it has ended, or the point cannot be taken.
    pub async fn checkpoint(
        &self,
        caller: &Caller,
        id: MachineId,
        idempotency: Option<Idempotency>,
    ) -> Result<CheckpointAnswer, EngineError> {
        caller.may(Scope::Write)?;
        if let Some(answer) = self.replay(caller, idempotency.as_ref())? {
            return Ok(answer);
        }
        let row = self.living(caller, id)?;
        if row.born.kind == MachineKind::Checkpoint {
            let words = format!("{id} is a checkpoint, a frozen point already: fork it");
            return Err(EngineError::Conflict(words));
        }
        let (engine, caller) = (self.clone(), caller.clone());
        Self::see_through(async move { engine.keep_point(caller, row, idempotency).await }).await
    }

    async fn keep_point(
        self,
        caller: Caller,
        row: MachineRow,
        idempotency: Option<Idempotency>,
    ) -> Result<CheckpointAnswer, EngineError> {
        let intention = Intention {
            operation: "checkpoint",
            subject: row.born.id,
            body: serde_json::json!({}),
            holds: Vec::new(),
            units: 0,
        };
        let intent = match self.begin(&caller, intention, idempotency).await? {
            Begun::Replayed(answer) => return Ok(answer),
            Begun::New(intent) => intent,
        };
        let point = Born {
            id: identity::machine_id().map_err(|error| EngineError::failed(&error))?,
            name: None,
            kind: MachineKind::Checkpoint,
            mother: Some(row.born.id),
            state: MachineState::Frozen,
            intent,
            created: now(),
            expires: None,
            granted: None,
            idle_ms: None,
            carried: String::new(),
            ..row.born.clone()
        };
        let _busy = self.busy(row.born.id);
        let (engine, living) = (self.clone(), Living::of(&row.born));
        let kept = self
            .work_with(living, move |mut mother| match mother.checkpoint() {
                Ok(guest) => {
                    let counted = reading::cpu(mother.pid());
                    let (told, born) = match engine.write_point(point, guest, counted) {
                        Ok((answer, born)) => (Ok(answer), vec![born]),
                        Err(error) => (Err(error), Vec::new()),
                    };
                    let seated = Some(Seated::Awake(mother));
                    (told, After { seated, born })
                }
                Err(error) => (Err(EngineError::failed(&error)), After::back(mother)),
            })
            .await;
        if let Err(error) = &kept {
            self.give_up(intent, error.to_string()).await?;
        }
        kept
    }

    fn write_point(
        &self,
        mut point: Born,
        mut guest: Guest,
        counted: Reading,
    ) -> Result<(CheckpointAnswer, (MachineId, Guest)), EngineError> {
        self.keep([(point.id, &mut guest)])?;
        point.carried = Carried::of(&guest).write()?;
        let living = Living::of(&point);
        let answer = CheckpointAnswer {
            checkpoint: MachineAnswer::from(point.clone()),
        };
        let kept = answer.clone();
        let (subject, last) = reading::birth(&point);
        let write = move |write: &mut Write<'_>| {
            write.add_machine(&point)?;
            write.open_meter(&subject, &last)?;
            if let Some(mother) = point.mother {
                write.count(mother, &counted, Cause::Fork)?;
                write.pass_given_on(mother, point.id)?;
            }
            let data = serde_json::json!({ "mother": point.mother });
            report(write, &point.tenant, "checkpoint.kept", point.id, &data)?;
            close(write, point.intent, &kept)
        };
        self.store().write(write).wait()?;
        let id = living.id;
        self.look_after(living, &mut guest);
        Ok((answer, (id, guest)))
    }

    /// Has the supervisor keep cells, if there is one. They end with this engine until they are written down.
    pub(super) fn keep<'a>(
        &self,
        guests: impl IntoIterator<Item = (MachineId, &'a mut Guest)>,
    ) -> Result<(), EngineError> {
        let Some(keeper) = self.inner.host.keeper() else {
            return Ok(());
        };
        let cells = guests.into_iter().map(|(id, guest)| (id, guest.cell_mut()));
        keeper
            .keep(&mut cells.collect::<Vec<_>>())
            .map_err(|error| EngineError::failed(&error))
    }

    /// Ends a machine or checkpoint; its daughters live on, unless the whole subtree goes. Who has ended with it.
    ///
    /// # Errors
    /// There is none, it has ended, or a cell cannot be reaped.
    pub async fn end(
        &self,
        caller: &Caller,
        id: MachineId,
        subtree: bool,
    ) -> Result<Vec<MachineId>, EngineError> {
        caller.may(Scope::Write)?;
        let row = self.living(caller, id)?;
        let mut going = vec![Living::of(&row.born)];
        if subtree {
            let (tenant, lineage) = (caller.tenant(), row.born.lineage);
            let family = self.store().read(|read| read.lineage(tenant, lineage))?;
            going.extend(descendants(id, &family));
        }
        let engine = self.clone();
        Self::see_through(async move {
            let mut ended = Vec::new();
            for living in going {
                let id = living.id;
                match engine.end_one(living, "deleted").await {
                    Ok(()) => ended.push(id),
                    // It ended by itself meanwhile.
                    Err(EngineError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(ended)
        })
        .await
    }

    pub(super) async fn end_one(
        &self,
        living: Living,
        how: &'static str,
    ) -> Result<(), EngineError> {
        let engine = self.clone();
        self.work_with_seated(living.clone(), move |seated| {
            let (reaped, cell, last) = match seated {
                Seated::Awake(guest) => {
                    let cell = guest.kept_as();
                    let before = reading::all(guest.pid());
                    let reaped = guest.end();
                    let last = reading::end(reaped.as_ref().ok(), Some(before));
                    (reaped.map(|_| ()), cell, last)
                }
                // What she used was counted when she fell asleep.
                Seated::Asleep => (Ok(()), None, reading::end(None, None)),
            };
            let written = engine.write_end(&living, how.to_owned(), cell, last);
            let told = reaped
                .map_err(|error| EngineError::Failed(error.to_string()))
                .and(written);
            (told, After::gone())
        })
        .await
    }

    /// Lets go of all that is not a machine, for the engine's own end: machines that a supervisor keeps go on, and the
    /// next engine takes them over. How many those are; who is hibernated is none of them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn leave(&self) -> Result<usize, EngineError> {
        self.inner.templates.forget_all();
        self.sweep();
        let alive = self.store().read(|read| read.alive())?;
        let awake = alive.iter().filter(|row| is_awake(row)).count();
        let is_kept = self.inner.host.keeper().is_some();
        Ok(if is_kept { awake } else { 0 })
    }

    /// Ends all machines, for the engine's own end. Who is hibernated sleeps on.
    ///
    /// # Errors
    /// The store cannot be read, or a cell cannot be reaped; the others are.
    pub async fn close(&self) -> Result<(), EngineError> {
        let mut first = Ok(());
        let alive = self.store().read(|read| read.alive())?;
        for row in alive.into_iter().filter(is_awake) {
            match self
                .end_one(Living::of(&row.born), "the engine was stopped")
                .await
            {
                Err(EngineError::NotFound { .. }) | Ok(()) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        self.inner.templates.forget_all();
        self.sweep();
        first
    }

    /// Has something done with a machine that is in her seat, or gets there, and is awake.
    pub(super) async fn work_with<T: Send + 'static>(
        &self,
        living: Living,
        work: impl FnOnce(Guest) -> (Result<T, EngineError>, After) + Send + 'static,
    ) -> Result<T, EngineError> {
        let id = living.id;
        self.work_with_seated(living, move |seated| match seated {
            Seated::Awake(guest) => work(guest),
            asleep @ Seated::Asleep => (Err(EngineError::asleep(id)), After::with(asleep)),
        })
        .await
    }

    /// The same with one that may be hibernated.
    pub(super) async fn work_with_seated<T: Send + 'static>(
        &self,
        living: Living,
        work: impl FnOnce(Seated) -> (Result<T, EngineError>, After) + Send + 'static,
    ) -> Result<T, EngineError> {
        let (answer, answered) = oneshot::channel();
        let id = living.id;
        let work = Box::new(move |seated: Option<Seated>| {
            let (told, after) = match seated {
                Some(seated) => work(seated),
                None => (Err(EngineError::no_machine(id)), After::gone()),
            };
            // Who no longer waits does not want to know.
            let tell: Tell = Box::new(move || drop(answer.send(told)));
            (after, tell)
        });
        self.inner.owners.work(living.lineage, id, work);
        answered
            .await
            .unwrap_or_else(|_| Err(EngineError::Failed("the work broke off".to_owned())))
    }

    /// Sees to it that a machine that is written down outlives this engine if it can, that somebody notices when it ends
    /// by itself, and that it ends when its time is over.
    pub(super) fn look_after(&self, living: Living, guest: &mut Guest) {
        self.watch(living.clone());
        guest.outlive();
        self.kept().extend(guest.kept_as());
        let process = guest.process().map(Arc::new);
        let metered = Metered {
            kind: living.kind,
            pid: guest.pid(),
            process: process.clone(),
        };
        self.metered().insert(living.id, metered);
        if let Some(process) = process {
            let (engine, living) = (self.clone(), living.clone());
            tokio::spawn(async move {
                // SAFETY: the descriptor is owned by what registers it, with others who only look at it, and is closed by
                // the last of them.
                let registered = unsafe { AsyncFd::register(process) };
                let ended = match registered {
                    Ok(process) => process.readable().await.map(|_| ()).is_ok(),
                    Err(_) => false,
                };
                if ended {
                    engine.bury(living).await;
                }
            });
        }
    }

    /// Of one whose process has ended. Where somebody else ended it, it has no seat any more, or sits there without it.
    async fn bury(&self, living: Living) {
        let engine = self.clone();
        let gone = self.work_with(living.clone(), move |guest| {
            // She was hibernated, which ended that process, and has woken in another.
            if !guest.has_ended() {
                return (Ok(()), After::back(guest));
            }
            let cell = guest.kept_as();
            let ended = guest.wait();
            let last = reading::end(ended.as_ref().ok(), None);
            let how = ended.map_or_else(|error| error.to_string(), |cause| cause.to_string());
            (engine.write_end(&living, how, cell, last), After::gone())
        });
        // If it cannot be written down, the next start finds it.
        gone.await.ok();
    }

    pub(super) fn write_state(
        &self,
        living: &Living,
        state: MachineState,
        guest: &Guest,
    ) -> Result<(), EngineError> {
        let (kind, cause) = match state {
            MachineState::Paused => ("machine.paused", Cause::Pause),
            _ => ("machine.resumed", Cause::Resume),
        };
        let reading = reading::all(guest.pid());
        let (id, tenant) = (living.id, living.tenant.clone());
        let write = move |write: &mut Write<'_>| {
            write.count(id, &reading, cause)?;
            write.change_state(id, state)?;
            report(write, &tenant, kind, id, &serde_json::json!({}))
        };
        self.store().write(write).wait()
    }

    fn write_end(
        &self,
        living: &Living,
        how: String,
        cell: Option<MachineId>,
        last: Reading,
    ) -> Result<(), EngineError> {
        let (id, tenant) = (living.id, living.tenant.clone());
        let kind = match living.kind {
            MachineKind::Machine => "machine.ended",
            MachineKind::Checkpoint => "checkpoint.ended",
        };
        let write = move |write: &mut Write<'_>| -> Result<_, EngineError> {
            let was_alive = write.end_machine(id, &how, now())?;
            if was_alive {
                write.count(id, &last, Cause::End)?;
                report(write, &tenant, kind, id, &serde_json::json!({ "how": how }))?;
            }
            Ok((was_alive, remove_bed(write, id)?))
        };
        self.inner.deadlines.forget(id);
        self.metered().remove(&id);
        let (was_alive, bed) = self.store().write(write).wait()?;
        self.discard(bed);
        if was_alive {
            // Checkpoints hold nothing, and are not known there.
            self.holds().machine_ended(id);
            self.metrics().ended(living.kind.as_str());
            self.call_next();
        }
        if let Some(cell) = cell {
            self.kept().remove(&cell);
        }
        self.note(cell);
        Ok(())
    }
}

/// Whether a cell holds her.
pub(super) fn is_awake(row: &MachineRow) -> bool {
    row.born.state != MachineState::Hibernated
}

/// Everybody alive below `id`, mothers before daughters.
fn descendants(id: MachineId, family: &[MachineRow]) -> Vec<Living> {
    let mut below = vec![id];
    let mut found = Vec::new();
    for row in family {
        if row
            .born
            .mother
            .is_some_and(|mother| below.contains(&mother))
        {
            below.push(row.born.id);
            if row.life == Life::Alive {
                found.push(Living::of(&row.born));
            }
        }
    }
    found
}
