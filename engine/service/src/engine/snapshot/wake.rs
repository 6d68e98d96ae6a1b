//! Waking: a hibernated machine goes on in a fresh cell, as herself.
//!
//! ```text
//!  asleep ─ admitted, placed (no plan: she is who she was) ─ intent ─► restored ─ stamped ─► commit: state, meter, event ─► running
//!     ▲                                                                  └─ what fails ─► the cell ends ─┐
//!     └──────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariant: she sleeps until the commit that says she runs, and what she sleeps in goes after it. Her stamp brings
//! randomness and a clock; id, host name, variables, files and SSH host keys stay. She has another boot id: counters that
//! are the kernel's own start from what it was told.

use brood_store::{MachineRow, MachineState, SnapshotRow, Write};
use brood_units::{Instant, IntentId, MachineId};

use super::super::carried::Carried;
use super::super::guest::Guest;
use super::super::intent::{About, Begun, Intention, close, hold_rows, record};
use super::super::life::Living;
use super::super::metric::Laps;
use super::super::owner::{After, Seated};
use super::super::source::Source;
use super::super::usage::Begin;
use super::super::{Caller, Engine, EngineError, MachineAnswer, Scope, now, report};
use super::meta::CarriedPoint;
use super::{Gone, remove_bed};
use crate::ask::ForkSpec;
use crate::decision::Decision;
use crate::fork::{self, HostKeys, IdentitySpec, Unstamped};
use crate::hold::Held;
use crate::path::{Allowed, Placed, Stopped};
use crate::snapshot::Key;

/// What it takes to wake a machine.
struct Alarm {
    engine: Engine,
    row: MachineRow,
    bed: SnapshotRow,
    intent: IntentId,
}

impl Engine {
    /// Has a hibernated machine go on where she was, under the same id. One that runs stays as she is.
    ///
    /// # Errors
    /// There is none, it has ended, a policy says no, the snapshot is damaged or does not fit this host, or she cannot be
    /// restored; she sleeps on.
    pub async fn wake(&self, caller: &Caller, id: MachineId) -> Result<MachineAnswer, EngineError> {
        caller.may(Scope::Write)?;
        let row = self.living(caller, id)?;
        if row.born.state != MachineState::Hibernated {
            return Ok(MachineAnswer::from(row));
        }
        self.budget_left(caller.tenant(), Begin::Again)?;
        let (engine, of) = (self.clone(), caller.clone());
        Self::see_through(async move { engine.rouse(&of, row).await }).await?;
        self.machine(caller, id)
    }

    async fn rouse(self, caller: &Caller, row: MachineRow) -> Result<(), EngineError> {
        let id = row.born.id;
        let bed = self.store().read(|read| read.snapshot_of_sleeper(id))?;
        // She has woken, or ended, since she was looked at.
        let Some(bed) = bed else {
            return Ok(());
        };
        let allowed = match self.allow(caller, &row, &bed).await? {
            Ok(allowed) => allowed,
            Err(mut stopped) => {
                self.give_back(stopped.held.take());
                self.keep_decisions(caller, id, &mut stopped).await?;
                return Err(stopped.into());
            }
        };
        let Allowed { held, decisions } = allowed;
        let (holds, units) = match &held {
            Some(held) => (hold_rows(self.holds().units_of(held)), held.daughters()),
            None => (Vec::new(), 0),
        };
        let intention = Intention {
            operation: "wake",
            subject: id,
            body: serde_json::json!({ "snapshot": bed.id, "units": units }),
            holds,
            units,
        };
        let intent = match self.begin::<()>(caller, intention, None).await {
            Ok(Begun::New(intent)) => intent,
            Ok(Begun::Replayed(())) => return Ok(()),
            Err(error) => {
                self.give_back(held);
                return Err(error);
            }
        };
        let living = Living::of(&row.born);
        let alarm = Alarm {
            engine: self.clone(),
            row,
            bed,
            intent,
        };
        let woken = self
            .work_with_seated(living, move |seated| match seated {
                Seated::Asleep => alarm.ring(held, decisions),
                awake @ Seated::Awake(_) => {
                    alarm.engine.give_back(held);
                    (Ok(Woke::Already), After::with(awake))
                }
            })
            .await;
        match woken {
            Ok(Woke::Now) => Ok(()),
            Ok(Woke::Already) => self.give_up(intent, "she was awake".to_owned()).await,
            Err(error) => {
                self.give_up(intent, error.to_string()).await?;
                Err(error)
            }
        }
    }

    async fn allow(
        &self,
        caller: &Caller,
        row: &MachineRow,
        bed: &SnapshotRow,
    ) -> Result<Result<Allowed, Box<Stopped>>, EngineError> {
        let left = row.born.expires.map(|at| now().millis_until(at).max(1));
        let spec = ForkSpec {
            labels: row.born.labels.clone(),
            ttl_ms: left,
            ..ForkSpec::of(1)
        };
        let source = Source::Asleep(Box::new(row.clone()), Box::new(bed.clone()));
        let mut laps = Laps::begin(self, source.word());
        let placed = self.find_place(caller, &source, &spec, &mut laps).await?;
        Ok(placed.map(Placed::as_she_is))
    }
}

/// Whether it was this request that woke her.
enum Woke {
    Now,
    Already,
}

impl Alarm {
    fn ring(
        self,
        held: Option<Held>,
        decisions: Vec<Decision>,
    ) -> (Result<Woke, EngineError>, After) {
        let instant = brood_cell::now();
        let woken = self.restore().and_then(|mut guest| {
            self.write(&mut guest, &decisions, instant)?;
            Ok(guest)
        });
        let mut guest = match woken {
            Ok(guest) => guest,
            Err(error) => {
                self.engine.give_back(held);
                return (Err(error), After::with(Seated::Asleep));
            }
        };
        let living = Living::of(&self.row.born);
        if let Some(held) = held {
            self.engine.holds().settle(held, [living.id]);
            self.engine.call_next();
        }
        self.engine.look_after(living, &mut guest);
        self.engine.discard(Some(Gone {
            tenant: self.bed.tenant,
            id: self.bed.id,
        }));
        (Ok(Woke::Now), After::back(guest))
    }

    /// She in a fresh cell, stamped if she has an agent, running.
    fn restore(&self) -> Result<Guest, EngineError> {
        let host = &self.engine.inner.host;
        let parts = host.snapshots().parts(Key {
            tenant: &self.bed.tenant,
            id: self.bed.id,
        })?;
        let failed = |error: anyhow::Error| EngineError::failed(&error);
        let mut cell = host.restore(&parts)?;
        let born = &self.row.born;
        match CarriedPoint::read(&self.bed)? {
            CarriedPoint::Bare => {
                let ran = cell.resume().and_then(|()| cell.first_instruction());
                ran.map_err(|error| EngineError::Failed(error.to_string()))?;
                Ok(Guest::Bare(cell))
            }
            CarriedPoint::Linux { token, hostname } => {
                let mother = born.mother.unwrap_or(born.template);
                let unstamped = Unstamped::restored(cell, token, mother, born.generation);
                let identity = IdentitySpec {
                    id: Some(born.id),
                    hostname,
                    host_keys: HostKeys::Kept,
                    ..IdentitySpec::default()
                };
                let woken = unstamped
                    .go()
                    .map_err(|error| EngineError::Failed(error.to_string()))?;
                let woken = woken.stamp(&identity, fork::patience(1)).map_err(failed)?;
                let mut machine = woken.machine;
                machine.mother = born.mother;
                Ok(Guest::Linux(Box::new(machine)))
            }
        }
    }

    fn write(
        &self,
        guest: &mut Guest,
        decisions: &[Decision],
        instant: Instant,
    ) -> Result<(), EngineError> {
        let (id, intent) = (self.row.born.id, self.intent);
        self.engine.keep([(id, &mut *guest)])?;
        let carried = Carried::of(guest).write()?;
        let (tenant, bed) = (self.row.born.tenant.clone(), self.bed.id);
        let decisions = decisions.to_vec();
        let write = move |write: &mut Write<'_>| {
            if !write.wake_machine(id, intent, &carried)? {
                return Err(EngineError::no_machine(id));
            }
            remove_bed(write, id)?;
            write.wake_meter(id, now(), instant)?;
            let data = serde_json::json!({ "snapshot": bed, "intent": intent });
            report(write, &tenant, "machine.woken", id, &data)?;
            let about = About {
                tenant: &tenant,
                intent,
                subject: id,
            };
            record(write, about, &decisions)?;
            close(write, intent, &())
        };
        self.engine.store().write(write).wait()
    }
}
