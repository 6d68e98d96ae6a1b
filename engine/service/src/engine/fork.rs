//! A fork, from the request to its answer.
//!
//! Invariant: nothing is forked that is not decided and written down, and nobody is handed out who is not. Where the rows
//! of daughters cannot be kept, the daughters are ended.

use std::time::Instant as Stopwatch;

use brood_meter::{Cause, Last, Reading, Subject};
use brood_store::{Born, MachineKind, MachineState, ShapeRow, StoreError, Write};
use brood_units::{IntentId, MachineId};
use tokio::sync::oneshot;

use super::carried::Carried;
use super::guest::{Brood, Brought, Guest};
use super::intent::{About, Begun, Intention, close, hold_rows, record};
use super::life::Living;
use super::metric::{Laps, Step};
use super::owner::{After, Seated, Tell};
use super::secret;
use super::source::Source;
use super::usage::reading;
use super::{
    Caller, DaughterAnswer, Engine, EngineError, ForkAnswer, Idempotency, MachineAnswer, Scope,
    now, report,
};
use crate::ask::ForkSpec;
use crate::path::{Stamps, Stopped};

/// What becomes of the others where a daughter is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// They live, and the answer says who is missing.
    Keep,
    /// All are ended, and the request has failed.
    EndAll,
}

/// A fork to be.
#[derive(Clone, Debug)]
pub struct ForkMachine {
    /// How many, and what they get.
    pub spec: ForkSpec,
    /// What becomes of the others where one is missing.
    pub on_error: OnError,
    /// A name, for one that is alone.
    pub name: Option<String>,
    /// How long nobody may ask anything of one of them before she ends, milliseconds; none is for ever.
    pub idle_ms: Option<u64>,
}

/// All that the work of a fork carries along.
struct Job {
    engine: Engine,
    caller: Caller,
    source: Source,
    intent: IntentId,
    fork: ForkMachine,
    decided_us: f64,
    begun: Stopwatch,
    laps: Laps,
}

impl Engine {
    /// Forks a machine, which runs on, or a checkpoint.
    ///
    /// # Errors
    /// There is none, it has ended, the request means nothing, a policy says no, or the fork fails.
    pub async fn fork(
        &self,
        caller: &Caller,
        id: MachineId,
        fork: ForkMachine,
        idempotency: Option<Idempotency>,
    ) -> Result<ForkAnswer, EngineError> {
        caller.may(Scope::Write)?;
        // A repeated request is answered though its mother may have ended meanwhile.
        if let Some(answer) = self.replay(caller, idempotency.as_ref())? {
            return Ok(answer);
        }
        let row = self.living(caller, id)?;
        self.fork_from(caller, Source::Machine(Box::new(row)), fork, idempotency)
            .await
    }

    /// Makes machines of a template, by id or name; each begins a lineage.
    ///
    /// # Errors
    /// As [`Engine::fork`].
    pub async fn fork_template(
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
        let row = self.template(caller, which)?;
        self.fork_from(caller, Source::Template(Box::new(row)), fork, idempotency)
            .await
    }

    pub(super) async fn fork_from(
        &self,
        caller: &Caller,
        source: Source,
        fork: ForkMachine,
        idempotency: Option<Idempotency>,
    ) -> Result<ForkAnswer, EngineError> {
        let (engine, caller) = (self.clone(), caller.clone());
        Self::see_through(async move {
            engine
                .decide_and_fork(caller, source, fork, idempotency)
                .await
        })
        .await
    }

    async fn decide_and_fork(
        self,
        caller: Caller,
        source: Source,
        fork: ForkMachine,
        idempotency: Option<Idempotency>,
    ) -> Result<ForkAnswer, EngineError> {
        let begun = Stopwatch::now();
        let _busy = self.busy(source.id());
        let word = source.word();
        let mut laps = Laps::begin(&self, word);
        let decided = self.decide(&caller, &source, &fork.spec, &mut laps);
        let stamps = match decided.await? {
            Ok(stamps) => stamps,
            Err(mut stopped) => {
                self.give_back(stopped.held.take());
                self.keep_decisions(&caller, source.id(), &mut stopped)
                    .await?;
                let stopped = Err(stopped.into());
                self.metrics().forked(word, &stopped);
                return stopped;
            }
        };
        let decided_us = micros(begun);
        let (holds, units) = match stamps.held() {
            Some(held) => (hold_rows(self.holds().units_of(held)), held.daughters()),
            None => (Vec::new(), 0),
        };
        let intention = Intention {
            operation: "fork",
            subject: source.id(),
            body: serde_json::json!({ "count": fork.spec.count, "units": units }),
            holds,
            units,
        };
        let intent = match self.begin(&caller, intention, idempotency).await {
            Ok(Begun::New(intent)) => intent,
            other => {
                self.give_back(stamps.give_up());
                return match other? {
                    Begun::Replayed(answer) => Ok(answer),
                    Begun::New(_) => Err(EngineError::Failed("an intent was lost".to_owned())),
                };
            }
        };
        laps.done(Step::Intent);
        let job = Job {
            engine: self.clone(),
            caller,
            source,
            intent,
            fork,
            decided_us,
            begun: Stopwatch::now(),
            laps,
        };
        let done = job.start(stamps).await;
        self.metrics().forked(word, &done);
        match done {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.give_up(intent, error.to_string()).await?;
                Err(error)
            }
        }
    }
}

impl Job {
    /// Has the owner of the mother, or the template, do it, and waits for the answer.
    async fn start(mut self, stamps: Stamps) -> Result<ForkAnswer, EngineError> {
        let (answer, answered) = oneshot::channel();
        let engine = self.engine.clone();
        match self.source.clone() {
            Source::Machine(row) => {
                let (lineage, id) = (row.born.lineage, row.born.id);
                let work = Box::new(move |mother: Option<Seated>| {
                    self.laps.done(Step::Queue);
                    let (told, after) = match mother {
                        Some(Seated::Awake(mut mother)) => {
                            let forked = mother.fork(stamps);
                            let counted = Some((id, reading::cpu(mother.pid())));
                            let (told, born) = self.finish(forked, counted);
                            let born = born.into_iter().map(|(living, guest)| (living.id, guest));
                            let after = After {
                                seated: Some(Seated::Awake(mother)),
                                born: born.collect(),
                            };
                            (told, after)
                        }
                        Some(asleep @ Seated::Asleep) => {
                            self.engine.give_back(stamps.give_up());
                            (Err(EngineError::asleep(id)), After::with(asleep))
                        }
                        None => {
                            self.engine.give_back(stamps.give_up());
                            (Err(EngineError::no_machine(id)), After::gone())
                        }
                    };
                    let tell: Tell = Box::new(move || drop(answer.send(told)));
                    (after, tell)
                });
                engine.inner.owners.work(lineage, id, work);
            }
            Source::Template(row) => {
                tokio::task::spawn_blocking(move || {
                    let inner = &engine.inner;
                    self.laps.done(Step::Queue);
                    let metrics = &inner.metrics;
                    let forked = inner.templates.claim(&inner.host, &row, stamps, metrics);
                    drop(answer.send(self.found_lineages(forked)));
                    inner.templates.refill(&inner.host, row.id);
                });
            }
            Source::Snapshot(row) => {
                tokio::task::spawn_blocking(move || {
                    self.laps.done(Step::Queue);
                    let forked = engine.restore_snapshot(&row, stamps);
                    drop(answer.send(self.found_lineages(forked)));
                });
            }
            Source::Asleep(row, _) => {
                self.engine.give_back(stamps.give_up());
                return Err(EngineError::asleep(row.born.id));
            }
        }
        answered
            .await
            .unwrap_or_else(|_| Err(EngineError::Failed("the fork broke off".to_owned())))
    }

    /// Writes down those who were born of no machine that lives, and seats each in a lineage of her own.
    fn found_lineages(
        self,
        forked: Result<Brood, Box<Stopped>>,
    ) -> Result<ForkAnswer, EngineError> {
        let engine = self.engine.clone();
        let (told, born) = self.finish(forked, None);
        for (living, guest) in born {
            let owners = &engine.inner.owners;
            owners.seat(living.lineage, living.id, Seated::Awake(guest));
        }
        told
    }

    /// Writes down who was born, with the window of their mother that this ends, and gives out who is to be seated.
    fn finish(
        mut self,
        forked: Result<Brood, Box<Stopped>>,
        mother: Option<(MachineId, Reading)>,
    ) -> (Result<ForkAnswer, EngineError>, Vec<(Living, Guest)>) {
        let mut brood = match forked {
            Ok(brood) => brood,
            Err(mut stopped) => {
                self.engine.give_back(stopped.held.take());
                return (Err(stopped.into()), Vec::new());
            }
        };
        self.laps.born(brood.stamping);
        let (lived, missing): (Vec<_>, Vec<_>) = brood.daughters.drain(..).partition(Result::is_ok);
        let mut lived: Vec<Brought> = lived.into_iter().flatten().collect();
        let missing: Vec<String> = missing.into_iter().filter_map(Result::err).collect();
        let fails = lived.is_empty() || self.fork.on_error == OnError::EndAll;
        if fails && !missing.is_empty() {
            self.engine.give_back(brood.held.take());
            return (Err(EngineError::Failed(missing.join("; "))), Vec::new());
        }
        let rows = match self.rows(&mut lived) {
            Ok(rows) => rows,
            Err(error) => {
                self.engine.give_back(brood.held.take());
                return (Err(error), Vec::new());
            }
        };
        let (mut guests, mut daughters, mut given) = (Vec::new(), Vec::new(), Vec::new());
        for (one, row) in lived.into_iter().zip(&rows) {
            let secrets = &one.stamp.secrets;
            given.push(secrets.given().map(secret::given_row).collect::<Vec<_>>());
            daughters.push(DaughterAnswer {
                machine: MachineAnswer::from(row.clone()),
                hostname: one.stamp.identity.hostname,
                first_instruction_us: one.first_instruction_us,
                confirmed_us: one.confirmed_us,
            });
            guests.push(one.guest);
        }
        let answer = ForkAnswer {
            intent: self.intent,
            daughters,
            missing,
            warnings: brood.warnings,
            mother_pause_us: brood.mother_pause_us,
            decided_us: self.decided_us,
            forked_us: micros(self.begun),
        };
        let living: Vec<Living> = rows.iter().map(Living::of).collect();
        let (intent, tenant, kept) = (self.intent, self.caller.tenant().to_owned(), answer.clone());
        let (decisions, subject) = (brood.decisions, self.source.id());
        let snapshot = self.source.snapshot();
        let births: Vec<_> = rows.iter().map(reading::birth).collect();
        let write = move |write: &mut Write<'_>| {
            count(write, mother, &births)?;
            for (row, given) in rows.iter().zip(&given) {
                write.add_machine(row)?;
                write.add_given(row.id, given)?;
                let data = of_birth(row.mother, intent, snapshot);
                report(write, &tenant, "machine.born", row.id, &data)?;
            }
            let about = About {
                tenant: &tenant,
                intent,
                subject,
            };
            record(write, about, &decisions)?;
            close(write, intent, &kept)
        };
        // This thread may stand still, and whom it holds is handed out only after the commit.
        if let Err(error) = self.engine.store().write(write).wait() {
            self.engine.give_back(brood.held.take());
            return (Err(self.named(error)), Vec::new());
        }
        self.laps.done(Step::Commit);
        self.laps.committed(&answer);
        if let Some(held) = brood.held {
            let alive = living.iter().map(|one| one.id);
            self.engine.holds().settle(held, alive);
            self.engine.call_next();
        }
        for (one, guest) in living.iter().zip(&mut guests) {
            self.engine.look_after(one.clone(), guest);
        }
        (Ok(answer), living.into_iter().zip(guests).collect())
    }

    /// Has daughters kept, and says how they are written down.
    fn rows(&self, lived: &mut [Brought]) -> Result<Vec<Born>, EngineError> {
        let kept = lived.iter_mut().map(|one| (one.stamp.id, &mut one.guest));
        self.engine.keep(kept)?;
        lived.iter().map(|one| self.row(one)).collect()
    }

    fn row(&self, one: &Brought) -> Result<Born, EngineError> {
        let stamp = &one.stamp;
        let created = now();
        let expires = stamp.ttl_ms.map(|ttl| created.after(ttl));
        let (mother, lineage, template, generation) = match &self.source {
            Source::Machine(row) | Source::Asleep(row, _) => {
                let born = &row.born;
                (
                    Some(born.id),
                    born.lineage,
                    born.template,
                    born.generation + 1,
                )
            }
            Source::Template(row) => (None, stamp.id, row.id, 0),
            Source::Snapshot(row) => (None, stamp.id, row.template, 0),
        };
        Ok(Born {
            id: stamp.id,
            tenant: self.caller.tenant().to_owned(),
            project: self.caller.principal.project.clone(),
            name: self.fork.name.clone(),
            kind: MachineKind::Machine,
            mother,
            lineage,
            template,
            generation,
            state: MachineState::Running,
            shape: ShapeRow {
                vcpu_milli: stamp.shape.vcpu_milli,
                memory_mib: stamp.shape.memory_mib,
                disk_mib: stamp.shape.disk_mib,
            },
            labels: stamp.labels.clone(),
            intent: self.intent,
            created,
            expires,
            granted: expires,
            idle_ms: self.fork.idle_ms,
            carried: Carried::of(&one.guest).write()?,
        })
    }

    fn named(&self, error: EngineError) -> EngineError {
        match (error, &self.fork.name) {
            (EngineError::Store(StoreError::Exists(_)), Some(name)) => {
                EngineError::Conflict(format!(
                    "a machine lives under the name '{name}': choose another, or ask for reuse"
                ))
            }
            (error, _) => error,
        }
    }
}

/// What is told of a birth.
fn of_birth(
    mother: Option<MachineId>,
    intent: IntentId,
    snapshot: Option<MachineId>,
) -> serde_json::Value {
    match snapshot {
        Some(snapshot) => {
            serde_json::json!({ "mother": mother, "intent": intent, "snapshot": snapshot })
        }
        None => serde_json::json!({ "mother": mother, "intent": intent }),
    }
}

/// A fork ends a window of the mother, and begins the first of each daughter.
fn count(
    write: &mut Write<'_>,
    mother: Option<(MachineId, Reading)>,
    births: &[(Subject, Last)],
) -> Result<(), StoreError> {
    if let Some((id, reading)) = mother {
        write.count(id, &reading, Cause::Fork)?;
    }
    births
        .iter()
        .try_for_each(|(subject, last)| write.open_meter(subject, last))
}

fn micros(since: Stopwatch) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}
