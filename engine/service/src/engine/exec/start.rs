//! Starting programs, and waiting for their ends.
//!
//! Invariant: a program that runs is written down before anybody is told of it; one that cannot be written down is ended.
//! Its end is waited for by a task of its own, whoever has gone meanwhile, and written down. A request that is repeated with
//! the caller's key starts one program: the key commits with the row, and an engine that died before that commit has left
//! the key with the agent, where the next one finds what was begun ([`super::once`]).

use std::collections::BTreeMap;

use brood_agent_proto::client::AttachEvent;
use brood_agent_proto::exec::{AttachSpec, ExecId, ExecKey, ExecSpec, ExecState, Follow, Removal};
use brood_agent_proto::{Client, ClientError};
use brood_store::MachineRow;
use brood_units::MachineId;

use super::follow::next;
use super::once::{Begun, exec_key};
use super::talk::{Talk, on_thread, refused};
use super::{ExecRow, Stdin, Stream, TtySize, Which, new_row, seen};
use crate::engine::once::Deed;
use crate::engine::{Caller, Engine, EngineError, Idempotency, Scope, now};

/// Programs that run in one machine at once: each has a conversation that waits for its end, and an agent has 128.
const MOST_RUNNING: usize = 48;
/// Programs that a guest keeps, ended ones included: the oldest that have ended make room.
const MOST_KEPT: usize = 64;
/// Bytes of each output stream that a guest keeps.
const RING_BYTES: u32 = 512 * 1024;
/// The most output that is taken while somebody waits for the end.
const TAKEN_BYTES: usize = 1 << 20;
/// How long a program may run that somebody waits for, if nobody says.
const WAITED_MS: u64 = 60_000;

/// A program to be.
#[derive(Clone, Debug)]
pub struct StartExec {
    /// It and its arguments.
    pub argv: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// Who runs it.
    pub user: Option<String>,
    /// How long it may run, milliseconds; a minute if nobody says and somebody waits, and else for ever.
    pub timeout_ms: Option<u64>,
    /// A terminal of this size.
    pub tty: Option<TtySize>,
    /// Where its stdin comes from.
    pub stdin: Stdin,
    /// Whether it has ended before it is answered.
    pub wait: bool,
}

/// What a program brought forth that somebody waited for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// Standard output, or the terminal's.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Bytes of either that are not in here.
    pub lost: u64,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ran")
            .field("stdout", &self.stdout.len())
            .field("stderr", &self.stderr.len())
            .field("lost", &self.lost)
            .finish()
    }
}

impl Ran {
    fn take(&mut self, stream: Stream, bytes: &[u8], lost: u64) {
        let room = TAKEN_BYTES.saturating_sub(self.stdout.len() + self.stderr.len());
        let (taken, over) = bytes.split_at(room.min(bytes.len()));
        let sink = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        sink.extend_from_slice(taken);
        let over = u64::try_from(over.len()).unwrap_or(u64::MAX);
        self.lost = self.lost.saturating_add(lost).saturating_add(over);
    }
}

/// A program that runs, or that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The program.
    pub exec: ExecRow,
    /// Its output, if somebody waited.
    pub ran: Option<Ran>,
}

impl Engine {
    /// Starts a program in a machine with an agent, or shows the one that the same request has started.
    ///
    /// # Errors
    /// There is no such machine, it has no agent or too many programs, or the program cannot be started.
    pub async fn start_exec(
        &self,
        caller: &Caller,
        id: MachineId,
        wanted: StartExec,
        idempotency: Option<Idempotency>,
    ) -> Result<Started, EngineError> {
        caller.may(Scope::Write)?;
        if wanted.argv.first().is_none_or(String::is_empty) {
            let words = "argv is empty: name a program";
            return Err(EngineError::Invalid(words.to_owned()));
        }
        let (engine, caller) = (self.clone(), caller.clone());
        if let Some(Begun { exec }) = self.replay(&caller, idempotency.as_ref())? {
            let which = Which { machine: id, exec };
            return Self::see_through(async move {
                match wanted.wait {
                    true => engine.awaited_again(&caller, which).await,
                    false => engine.shown_again(&caller, which).await,
                }
            })
            .await;
        }
        let machine = self.living(&caller, id)?;
        // Who goes away leaves no program behind that nobody knows.
        Self::see_through(async move {
            let started = engine.start_and_wait(&caller, machine, wanted, idempotency);
            started.await
        })
        .await
    }

    async fn start_and_wait(
        &self,
        caller: &Caller,
        machine: MachineRow,
        wanted: StartExec,
        idempotency: Option<Idempotency>,
    ) -> Result<Started, EngineError> {
        let wait = wanted.wait;
        let (argv, spec) = (wanted.argv.clone(), spec(wanted)?);
        let born = &machine.born;
        let key = idempotency
            .as_ref()
            .map(|own| exec_key(&born.tenant, born.id, own));
        let agent = self.talk(&machine).await?;
        let started = on_thread(move || begin(agent, key, &spec)).await?;
        let (agent, exec) = started?;
        let row = new_row(born.id, &born.tenant, exec.0, &argv, now());
        let deed = Deed {
            operation: "exec",
            subject: *born.id.as_bytes(),
            idempotency,
        };
        if let Err(error) = self.write_start(caller, deed, row.clone()).await {
            let ended = on_thread(move || {
                let mut agent = agent;
                agent.remove(exec, Removal::Kill)
            });
            return Err(match ended.await? {
                Ok(()) => error,
                Err(left) => EngineError::Failed(format!(
                    "{error}; and exec {exec}, which nobody has written down, runs on: {left}"
                )),
            });
        }
        let follow = if wait {
            Follow::UntilExit
        } else {
            Follow::Exit
        };
        let (engine, begun) = (self.clone(), row.clone());
        // A machine with a program that somebody started here is not idle.
        let busy = self.busy(row.machine);
        let awaited = tokio::spawn(async move {
            let ended = engine.await_end(agent, begun, follow).await;
            drop(busy);
            ended
        });
        if !wait {
            return Ok(Started {
                exec: row,
                ran: None,
            });
        }
        let ended = awaited.await;
        let ended = ended.map_err(|error| EngineError::Failed(error.to_string()))?;
        let (exec, ran) = ended?;
        Ok(Started {
            exec,
            ran: Some(ran),
        })
    }

    /// Waits for a program's end, and writes it down. If the conversation is lost before, the end is found by whoever
    /// looks.
    pub(super) async fn await_end(
        &self,
        agent: Client,
        row: ExecRow,
        follow: Follow,
    ) -> Result<(ExecRow, Ran), EngineError> {
        let spec = AttachSpec {
            follow,
            ..AttachSpec::all(ExecId(row.exec))
        };
        let attached = on_thread(move || agent.into_attachment(&spec)).await?;
        let mut talk = Talk::new(attached.map_err(|error| refused(&error))?)?;
        let mut ran = Ran::default();
        let state = loop {
            match next(&mut talk).await? {
                AttachEvent::Output(piece) => ran.take(piece.stream, &piece.bytes.0, piece.lost),
                AttachEvent::Ended { state, .. } => break state,
            }
        };
        let row = seen(row, state, now());
        self.keep_execs(vec![row.clone()]).await?;
        Ok((row, ran))
    }
}

fn spec(wanted: StartExec) -> Result<ExecSpec, EngineError> {
    let timeout_ms = wanted.timeout_ms;
    let mut spec = ExecSpec::new(wanted.argv);
    for (name, value) in wanted.env {
        let inserted = spec.env.insert(name, value);
        inserted.map_err(|error| EngineError::Invalid(error.to_string()))?;
    }
    spec.cwd = wanted.cwd;
    spec.user = wanted.user;
    spec.tty = wanted.tty;
    spec.stdin = wanted.stdin;
    spec.timeout_ms = timeout_ms.or_else(|| wanted.wait.then_some(WAITED_MS));
    spec.ring_bytes = RING_BYTES;
    Ok(spec)
}

/// Makes room for a program and starts it, unless it was begun under its key by an engine that died then.
fn begin(
    mut agent: Client,
    key: Option<ExecKey>,
    spec: &ExecSpec,
) -> Result<(Client, ExecId), EngineError> {
    let refuse = |error: ClientError| refused(&error);
    if let Some(key) = key
        && let Some(exec) = agent.exec_begun(key).map_err(refuse)?
    {
        return Ok((agent, exec));
    }
    let all = agent.exec_list().map_err(refuse)?;
    let (running, ended): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|status| status.state == ExecState::Running);
    if running.len() >= MOST_RUNNING {
        return Err(EngineError::Conflict(format!(
            "{MOST_RUNNING} programs run in this machine, and no more may: end one, or use another machine"
        )));
    }
    let over = (all.len() + 1).saturating_sub(MOST_KEPT);
    for status in ended.iter().take(over) {
        let removed = agent.remove(status.exec, Removal::EndedOnly);
        removed.map_err(refuse)?;
    }
    let exec = match key {
        Some(key) => agent.exec_once(key, spec),
        None => agent.exec(spec),
    };
    let exec = exec.map_err(refuse)?;
    Ok((agent, exec))
}
