//! What an engine makes of what another has left behind.
//!
//! ```text
//!              written down as alive      not written down
//!  cell lives        taken over            killed: nobody was told of it
//!  cell ended   written down with its end  forgotten
//!  no cell      written down as ended
//!
//!  hibernated   sleeps on                  on disk without a row: removed
//! ```
//!
//! Invariant: afterwards every machine that is written down as alive is one that can be asked, no cell lives that is
//! not, and of snapshots there is on disk what is written down and nothing else. What was being done when the engine died came to nothing, and a caller that repeats it with its key has it done.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use brood_hooks::Now;
use brood_meter::{Cause, Last, Reading};
use brood_store::{Born, MachineRow, StoreError, Write};
use brood_supervisor::protocol::Entry;
use brood_units::MachineId;

use super::carried::Carried;
use super::guest::Guest;
use super::life::{Living, is_awake};
use super::owner::{After, Seated};
use super::usage::reading;
use super::{Engine, EngineError, now, report};
use crate::fork::wall_clock_ns;
use crate::hold::Units;
use crate::keeper::Keeper;
use crate::machine::Machine;

/// How long the supervisor may take to hear of the last ends, and how often it is asked.
const SWEEP_PATIENCE: Duration = Duration::from_secs(5);
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
/// How long the supervisor may take to say how a cell ended: longer than it waits itself for whoever forked her to tell.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// What is said of machines of an engine that kept them itself.
const NOT_KEPT: &str = "the engine was killed, and the machine with it";

impl Engine {
    /// Takes over what lives, buries what does not.
    pub(super) async fn take_up(&self) -> Result<(), EngineError> {
        let engine = self.clone();
        let taken = tokio::task::spawn_blocking(move || engine.take_over()).await;
        let taken = taken.unwrap_or_else(|error| Err(EngineError::Failed(error.to_string())))?;
        for (living, seated) in taken {
            let (lineage, id) = (living.lineage, living.id);
            let is_linux = match seated {
                Seated::Awake(mut guest) => {
                    self.look_after(living.clone(), &mut guest);
                    let is_linux = guest.linux().is_some();
                    self.inner.owners.seat(lineage, id, Seated::Awake(guest));
                    is_linux
                }
                Seated::Asleep => {
                    self.watch(living.clone().asleep());
                    self.inner.owners.seat(lineage, id, Seated::Asleep);
                    false
                }
            };
            if is_linux {
                let engine = self.clone();
                tokio::spawn(async move { engine.release(living).await });
            }
        }
        if let Some(mut ended) = self.inner.host.keeper().and_then(Keeper::ended) {
            let engine = self.clone();
            tokio::spawn(async move {
                while let Some(cell) = ended.recv().await {
                    let engine = engine.clone();
                    // Of a machine somebody is told, and notes it once that is written down.
                    let forget = move || engine.forget_unless_machine(cell);
                    tokio::task::spawn_blocking(forget).await.ok();
                }
            });
        }
        Ok(())
    }

    /// The engine that died may have frozen the workload for a fork; whoever wants something of the machine meanwhile
    /// waits in her line.
    async fn release(&self, living: Living) {
        let released = self.work_with(living, |mut guest| {
            let done = guest.linux().map_or(Ok(()), Machine::release);
            let told = done.map_err(|error| EngineError::failed(&error));
            (told, After::back(guest))
        });
        // One whose agent does not answer says so to whoever asks her next.
        released.await.ok();
    }

    fn forget_unless_machine(&self, cell: MachineId) {
        if !self.kept().contains(&cell) {
            self.note(Some(cell));
        }
    }

    /// Has the supervisor forget a cell whose end is written down or of no interest.
    pub(super) fn note(&self, cell: Option<MachineId>) {
        if let (Some(keeper), Some(cell)) = (self.inner.host.keeper(), cell) {
            // One that is not forgotten is found by the next engine.
            keeper.noted(&[cell]).ok();
        }
    }

    /// Has the supervisor end and forget all that is no machine; with nothing left to keep it ends as well.
    pub(super) fn sweep(&self) {
        let Some(keeper) = self.inner.host.keeper() else {
            return;
        };
        let deadline = Instant::now() + SWEEP_PATIENCE;
        // A cell tells this engine of its daughters' ends, and the supervisor, each in its own time.
        while Instant::now() < deadline {
            // What is not forgotten now is found by the next engine.
            let mut entries = keeper.list().unwrap_or_default();
            let kept = self.kept();
            entries.retain(|entry| !kept.contains(&entry.id));
            drop(kept);
            let is_over = |entry: &&Entry| entry.end.is_some();
            let over: Vec<_> = entries
                .iter()
                .filter(is_over)
                .map(|entry| entry.id)
                .collect();
            keeper.noted(&over).ok();
            if over.len() == entries.len() {
                return;
            }
            for entry in entries.iter().filter(|entry| entry.end.is_none()) {
                keeper.kill(entry.id).ok();
            }
            std::thread::sleep(SWEEP_PAUSE);
        }
    }

    fn take_over(&self) -> Result<Vec<(Living, Seated)>, EngineError> {
        let keeper = self.inner.host.keeper();
        let mut cells: HashMap<MachineId, Entry> = match keeper {
            Some(keeper) => {
                let list = keeper.list().map_err(|error| EngineError::failed(&error))?;
                list.into_iter().map(|entry| (entry.id, entry)).collect()
            }
            None => HashMap::new(),
        };
        let (mut taken, mut lost) = (Vec::new(), Vec::new());
        let alive = self.store().read(|read| read.alive())?;
        let (awake, asleep): (Vec<_>, Vec<_>) = alive.into_iter().partition(is_awake);
        for row in awake {
            match self.adopt(&row, &mut cells) {
                Ok(guest) => taken.push((row.born, guest)),
                Err(how) => lost.push((row, how)),
            }
        }
        if let Some(keeper) = keeper {
            await_ends(keeper, &mut lost, &mut cells)?;
        }
        let ended = lost.into_iter().map(|(row, how)| {
            let end = cell_of(&row).and_then(|cell| cells.get(&cell)?.end.as_ref());
            if end.is_none_or(|end| end.cpu_ns.is_none()) {
                tracing::warn!(machine = %row.born.id, how, "nobody saw her end: what she used since she was last counted is not known, and not billed");
            }
            let last = reading::end_by_supervisor(end);
            (row, how, last)
        });
        let ended = ended.collect();
        self.bury_the_lost(ended)?;
        self.open_missing_meters(&taken)?;
        if let Some(keeper) = keeper {
            // Templates and warm daughters of the engine that died, daughters whose fork was not written down.
            for entry in cells.values().filter(|entry| entry.end.is_none()) {
                // It may end by itself meanwhile.
                keeper.kill(entry.id).ok();
            }
            let noted = |entry: &&Entry| entry.end.is_some();
            let noted: Vec<_> = cells.values().filter(noted).map(|entry| entry.id).collect();
            keeper
                .noted(&noted)
                .map_err(|error| EngineError::failed(&error))?;
        }
        self.recall_holds()?;
        let awake = taken.into_iter();
        let awake = awake.map(|(born, guest)| (Living::of(&born), Seated::Awake(guest)));
        let asleep = asleep.into_iter();
        let asleep = asleep.map(|row| (Living::of(&row.born), Seated::Asleep));
        Ok(awake.chain(asleep).collect())
    }

    /// Usage of machines that were born under a program that did not count is counted from now on.
    fn open_missing_meters(&self, taken: &[(Born, Guest)]) -> Result<(), EngineError> {
        let missing = self.store().read(|read| -> Result<Vec<_>, StoreError> {
            let mut missing = Vec::new();
            for (born, guest) in taken {
                if read.meter(born.id)?.is_none() {
                    let (subject, last) = reading::birth(born);
                    let cpu_ns = reading::cpu(guest.pid()).cpu_ns.unwrap_or(0);
                    missing.push((subject, Last { cpu_ns, ..last }));
                }
            }
            Ok(missing)
        })?;
        if missing.is_empty() {
            return Ok(());
        }
        let open = move |write: &mut Write<'_>| -> Result<(), EngineError> {
            for (subject, last) in &missing {
                write.open_meter(subject, last)?;
            }
            Ok(())
        };
        self.store().write(open).wait()
    }

    /// The guest of a row, or how it ended. What is left of it stays with `cells`.
    fn adopt(
        &self,
        row: &MachineRow,
        cells: &mut HashMap<MachineId, Entry>,
    ) -> Result<Guest, String> {
        let keeper = self.inner.host.keeper().ok_or(NOT_KEPT)?;
        let carried = Carried::read(&row.born)?;
        let id = carried.cell.ok_or(NOT_KEPT)?;
        let entry = cells
            .get(&id)
            .ok_or("its cell ended with the supervisor that kept it")?;
        if let Some(end) = &entry.end {
            return Err(end.to_string());
        }
        let (cell, state) = keeper
            .adopt(id, self.inner.host.layers())
            .map_err(|error| format!("it could not be taken over: {error:#}"))?;
        let guest = carried.guest(&row.born, cell, state.motion)?;
        cells.remove(&id);
        Ok(guest)
    }

    fn bury_the_lost(&self, ended: Vec<(MachineRow, String, Reading)>) -> Result<(), EngineError> {
        let bury = move |write: &mut Write<'_>| -> Result<(), EngineError> {
            for (row, how, last) in &ended {
                write.end_machine(row.born.id, how, now())?;
                write.count(row.born.id, last, Cause::End)?;
                let data = serde_json::json!({ "how": how });
                report(write, &row.born.tenant, "machine.ended", row.born.id, &data)?;
            }
            for intent in write.open_intents()? {
                write.forget_claim(intent.id)?;
                write.close_intent(intent.id, "the engine was killed", now())?;
            }
            Ok(())
        };
        self.store().write(bury).wait()
    }

    /// What those hold who live, and what is held for a time.
    fn recall_holds(&self) -> Result<(), EngineError> {
        let alive = self.store().read(|read| read.alive())?;
        let mut holds = self.holds();
        let clock = Now::from_unix_nanos(wall_clock_ns());
        for intent in self.store().read(|read| read.holding_intents(now()))? {
            let awake = alive.iter().filter(|row| is_awake(row));
            let of_it = awake.filter(|row| row.born.intent == intent.id);
            let machines = of_it.map(|row| row.born.id);
            let units = intent.holds.iter().map(Units::from).collect();
            holds.recall(clock, units, intent.units, machines);
        }
        Ok(())
    }
}

/// Under which id a supervisor keeps a machine's cell.
fn cell_of(row: &MachineRow) -> Option<MachineId> {
    Carried::read(&row.born)
        .ok()
        .and_then(|carried| carried.cell)
}

/// Waits until the supervisor knows how those have ended that could not be taken over, with the CPU time that they used. One
/// may have died since the first look, before whoever forked her told; one that lives and cannot be reached is ended here.
fn await_ends(
    keeper: &Keeper,
    lost: &mut [(MachineRow, String)],
    cells: &mut HashMap<MachineId, Entry>,
) -> Result<(), EngineError> {
    let deadline = Instant::now() + END_PATIENCE;
    let mut is_first_look = true;
    loop {
        let is_due = |cell: &MachineId| cells.get(cell).is_some_and(|entry| entry.end.is_none());
        let due: HashSet<_> = lost
            .iter()
            .filter_map(|(row, _)| cell_of(row))
            .filter(is_due)
            .collect();
        if due.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        let listed = keeper.list().map_err(|error| EngineError::failed(&error))?;
        for entry in listed.into_iter().filter(|entry| due.contains(&entry.id)) {
            match &entry.end {
                Some(end) if is_first_look => {
                    let hers = lost
                        .iter_mut()
                        .filter(|(row, _)| cell_of(row) == Some(entry.id));
                    hers.for_each(|(_, how)| *how = end.to_string());
                }
                Some(_) => {}
                // It may end by itself meanwhile.
                None => keeper.kill(entry.id).unwrap_or_default(),
            }
            cells.insert(entry.id, entry);
        }
        is_first_look = false;
        std::thread::sleep(SWEEP_PAUSE);
    }
}
