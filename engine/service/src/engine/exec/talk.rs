//! Conversations with agents that wait without holding a thread.
//!
//! ```text
//!  ready: the descriptor is polled ─► on a thread: one frame is read or written ─► ready …
//! ```
//!
//! Invariant: a thread is taken only while a frame is on its way, and at most [`THREADS`] are, so that guests that say
//! nothing cost none and guests that stop in the middle of a frame never take those that forks need. Whoever is dropped
//! while it waits leaves nothing behind but a closed conversation.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use brood_agent_proto::{AGENT_PORT, AgentError, Client, ClientError, SpawnStep};
use brood_store::{MachineKind, MachineRow, MachineState};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use crate::engine::life::Living;
use crate::engine::owner::After;
use crate::engine::{Engine, EngineError};

/// Threads that conversations may hold at once, of the 512 that tokio has for all.
static THREADS: Semaphore = Semaphore::const_new(64);
/// How long an agent may take for an answer, or for a frame that it has begun.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a frame that is said to be there may take to begin.
pub(super) const MOMENT: Duration = Duration::from_millis(1);
/// errno(3).
const ESRCH: i32 = 3;

/// Runs on a thread that may stand still.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let broken =
        |error: String| EngineError::Failed(format!("the conversation broke off: {error}"));
    let place = THREADS.acquire().await;
    let place = place.map_err(|error| broken(error.to_string()))?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    done.await.map_err(|error| broken(error.to_string()))
}

/// A conversation, or an attachment over one.
pub(super) struct Talk<C> {
    inside: Option<C>,
    descriptor: AsyncFd<OwnedFd>,
}

impl<C: AsFd + Send + 'static> Talk<C> {
    pub(super) fn new(inside: C) -> Result<Self, EngineError> {
        let failed = |error: &dyn std::fmt::Display| {
            EngineError::Failed(format!("a conversation cannot be waited for: {error}"))
        };
        let descriptor = inside.as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| failed(&error))?;
        // SAFETY: the descriptor is owned by what registers it, and closed by nobody else.
        let registered = unsafe { AsyncFd::register(descriptor) };
        Ok(Self {
            inside: Some(inside),
            descriptor: registered.map_err(|error| failed(&error))?,
        })
    }

    /// Until there is something to read, or it is over. Nothing is lost if this is dropped.
    pub(super) async fn ready(&self) {
        // An error is one that the next read finds as well.
        if let Ok(mut guard) = self.descriptor.readable().await {
            guard.retain_ready();
        }
    }

    /// Nothing is said any more.
    pub(super) fn over(&mut self) {
        self.inside = None;
    }

    /// Does something that may take a frame's time.
    pub(super) async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut C) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let gone = || EngineError::Failed("the conversation is over".to_owned());
        let mut inside = self.inside.take().ok_or_else(gone)?;
        let (done, inside) = on_thread(move || (work(&mut inside), inside)).await?;
        self.inside = Some(inside);
        Ok(done)
    }

    /// The same with what is ready to be read; [`None`] if that was nothing.
    pub(super) async fn read<T: Send + 'static>(
        &mut self,
        read: impl FnOnce(&mut C) -> Option<T> + Send + 'static,
    ) -> Result<Option<T>, EngineError> {
        let gone = || EngineError::Failed("the conversation is over".to_owned());
        let mut inside = self.inside.take().ok_or_else(gone)?;
        let guard = self.descriptor.readable().await;
        let mut guard = guard.map_err(|error| EngineError::Failed(error.to_string()))?;
        let (found, inside) = on_thread(move || (read(&mut inside), inside)).await?;
        match found {
            Some(_) => guard.retain_ready(),
            // What came since the guard was given out is not forgotten with it.
            None => guard.clear_ready(),
        }
        self.inside = Some(inside);
        Ok(found)
    }
}

impl Engine {
    /// A conversation with a machine's agent. The machine is in her seat again before the agent has said a word.
    pub(super) async fn talk(&self, row: &MachineRow) -> Result<Client, EngineError> {
        let id = row.born.id;
        if row.born.kind == MachineKind::Checkpoint {
            return Err(EngineError::no_machine(id));
        }
        let paused = row.born.state == MachineState::Paused;
        let stream = self
            .work_with(Living::of(&row.born), move |mut guest| {
                let stream = match guest.linux() {
                    None => Err(EngineError::Conflict(format!(
                        "{id} has no agent that could run programs: use a template with a Linux guest"
                    ))),
                    Some(_) if paused => Err(EngineError::Conflict(format!(
                        "{id} is paused, and her agent with her: resume her"
                    ))),
                    Some(machine) => {
                        let stream = machine.cell.connect(AGENT_PORT);
                        stream.map_err(|error| EngineError::Failed(error.to_string()))
                    }
                };
                (stream, After::back(guest))
            })
            .await?;
        let hello = on_thread(move || Client::handshake(stream, PATIENCE)).await?;
        hello.map_err(|error| refused(&error))
    }
}

/// Why an agent does not do it, in the engine's words.
pub(super) fn refused(error: &ClientError) -> EngineError {
    let ClientError::Agent(error) = error else {
        let cause = std::error::Error::source(error);
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        return EngineError::Failed(format!("{error}{cause}"));
    };
    let words = error.to_string();
    match error {
        AgentError::NoSuchExec { exec } => EngineError::NotFound {
            what: "exec",
            which: exec.to_string(),
        },
        AgentError::Invalid { .. }
        | AgentError::OffsetAhead { .. }
        | AgentError::Spawn {
            step: SpawnStep::User | SpawnStep::Cwd | SpawnStep::Exec,
            ..
        } => EngineError::Invalid(words),
        AgentError::NoStdin { .. } => EngineError::Conflict(format!(
            "{words}: it was started without one, has closed it or has ended"
        )),
        AgentError::NoTty { .. } => EngineError::Conflict(format!("{words}: start it with `tty`")),
        AgentError::WorkloadQuiesced => {
            EngineError::Conflict(format!("{words}: ask again when the fork is over"))
        }
        AgentError::Limit { .. } | AgentError::StillRunning { .. } => EngineError::Conflict(words),
        AgentError::Os { errno, .. } if errno.0 == ESRCH => {
            EngineError::Conflict("the program has ended".to_owned())
        }
        _ => EngineError::Failed(words),
    }
}
