//! What goes to a running program: bytes, signals, the size of its terminal.
//!
//! Invariant: a program that does not read holds no thread, and whoever writes to it is told after a while that it does not.

use std::time::Duration;

use brood_agent_proto::Client;
use brood_agent_proto::exec::ExecId;
use brood_agent_proto::frame::CHUNK;
use tokio::time::{Instant, timeout_at};

use super::talk::{MOMENT, Talk, on_thread, refused};
use super::{SignalTarget, TtySize, Which};
use crate::engine::{Caller, Engine, EngineError, Scope};

/// How long a program may take to read what is written to it.
const READS: Duration = Duration::from_secs(10);

/// Somebody who writes to a program.
pub struct Keyboard {
    exec: ExecId,
    talk: Talk<Client>,
}

impl Engine {
    /// For who writes to a program now and then.
    ///
    /// # Errors
    /// There is no such program, its machine has ended, or the caller may not.
    pub async fn keyboard(&self, caller: &Caller, which: Which) -> Result<Keyboard, EngineError> {
        caller.may(Scope::Write)?;
        let (agent, status) = self.program(caller, which).await?;
        Ok(Keyboard {
            exec: status.exec,
            talk: Talk::new(agent)?,
        })
    }

    /// Sends a signal to a program that runs.
    ///
    /// # Errors
    /// As [`Engine::keyboard`]; the number is no signal, or the program has ended.
    pub async fn signal(
        &self,
        caller: &Caller,
        which: Which,
        signal: i32,
        target: SignalTarget,
    ) -> Result<(), EngineError> {
        caller.may(Scope::Write)?;
        let (mut agent, status) = self.program(caller, which).await?;
        let sent = on_thread(move || agent.signal(status.exec, signal, target)).await?;
        sent.map_err(|error| refused(&error))
    }
}

impl Keyboard {
    /// Writes, and waits until the program's pipe or terminal has taken all of it.
    ///
    /// # Errors
    /// The program has no open stdin, or does not read.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        let exec = self.exec;
        for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
            let chunk = chunk.to_vec();
            let sent = self
                .talk
                .with(move |agent| agent.send_stdin(exec, &chunk))
                .await?;
            sent.map_err(|error| refused(&error))?;
            let taken = index.saturating_mul(CHUNK);
            self.taken(taken).await?;
        }
        Ok(())
    }

    async fn taken(&mut self, before: usize) -> Result<(), EngineError> {
        let end = Instant::now() + READS;
        loop {
            if timeout_at(end, self.talk.ready()).await.is_err() {
                // Its word may come yet, and would be taken for that of another question.
                self.talk.over();
                let exec = self.exec;
                return Err(EngineError::Conflict(format!(
                    "exec {exec} does not read its stdin: it has taken {before} bytes, and perhaps some more"
                )));
            }
            let word = self
                .talk
                .read(|agent| agent.stdin_taken(MOMENT).transpose());
            if let Some(taken) = word.await? {
                return taken.map_err(|error| refused(&error));
            }
        }
    }

    /// Closes the program's stdin; on a terminal, types the end-of-file character.
    ///
    /// # Errors
    /// The program has no open stdin.
    pub async fn close(&mut self) -> Result<(), EngineError> {
        let exec = self.exec;
        let closed = self.talk.with(move |agent| agent.close_stdin(exec)).await?;
        closed.map_err(|error| refused(&error))
    }

    /// Changes the size of the program's terminal.
    ///
    /// # Errors
    /// It has none.
    pub async fn resize(&mut self, size: TtySize) -> Result<(), EngineError> {
        let exec = self.exec;
        let resized = self
            .talk
            .with(move |agent| agent.resize(exec, size))
            .await?;
        resized.map_err(|error| refused(&error))
    }
}
