//! What goes to a running program: bytes, signals, the size of its terminal.
//!
//! Invariant: a program that does not read holds no thread, and whoever writes to it is told after a while that it does not.

use std::time::Duration;

use brood_agent_proto::Client;
use brood_agent_proto::exec::ExecId;
use brood_agent_proto::frame::CHUNK;
use tokio::time::{Instant, timeout_at};

use super::talk::{MOMENT, Talk, on_thread, refused};
use super::{Follower, From, SignalTarget, Stream, TtySize, Which};
use crate::engine::{Caller, Engine, EngineError, Scope};

/// How long a program may take to read what is written to it.
const READS: Duration = Duration::from_secs(10);

/// Somebody who writes to a program.
pub struct Keyboard {
    exec: ExecId,
    talk: Talk<Client>,
}

/// Something for a program's stdin.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StdinWrite {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether stdin is closed behind them; on a terminal, the end-of-file character is typed.
    pub close: bool,
}

impl std::fmt::Debug for StdinWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdinWrite")
            .field("bytes", &self.bytes.len())
            .field("close", &self.close)
            .finish()
    }
}

/// What somebody sits at: what a program's terminal shows, and what is typed there.
pub struct Terminal {
    /// What is shown.
    pub follower: Follower,
    /// What is typed.
    pub keyboard: Keyboard,
}

impl Engine {
    /// Writes to a program's stdin, and waits until its pipe or terminal has taken all of it.
    ///
    /// # Errors
    /// There is no such program, its machine has ended, it has no open stdin or does not read, or the caller may not.
    pub async fn write_stdin(
        &self,
        caller: &Caller,
        which: Which,
        wanted: StdinWrite,
    ) -> Result<(), EngineError> {
        let mut keyboard = self.keyboard(caller, which).await?;
        keyboard.write(&wanted.bytes).await?;
        match wanted.close {
            true => keyboard.close().await,
            false => Ok(()),
        }
    }

    /// Changes the size of a program's terminal.
    ///
    /// # Errors
    /// As [`Engine::write_stdin`]; it has no terminal.
    pub async fn resize(
        &self,
        caller: &Caller,
        which: Which,
        size: TtySize,
    ) -> Result<(), EngineError> {
        self.keyboard(caller, which).await?.resize(size).await
    }

    /// Sits down at a program's terminal, or its stdin and stdout, from an offset of what was shown on.
    ///
    /// # Errors
    /// There is no such program, its machine has ended, it has not made so much yet, or the caller may not.
    pub async fn sit(
        &self,
        caller: &Caller,
        which: Which,
        offset: u64,
    ) -> Result<Terminal, EngineError> {
        let keyboard = self.keyboard(caller, which).await?;
        let from = From::One(Stream::Stdout, offset);
        Ok(Terminal {
            follower: self.follow(caller, which, from).await?,
            keyboard,
        })
    }

    async fn keyboard(&self, caller: &Caller, which: Which) -> Result<Keyboard, EngineError> {
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
    /// As [`Engine::write_stdin`]; the number is no signal, or the program has ended.
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

    async fn close(&mut self) -> Result<(), EngineError> {
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
