//! Files of a guest, through its agent.
//!
//! ```text
//!  read:   agent ─► thread ─ chunks ─► caller           a caller who reads slowly holds the agent back, and nothing else
//!  write:  caller ─ chunks ─► thread ─► agent           the file is there whole or as it was
//! ```
//!
//! Invariant: no file is ever whole in memory here. A conversation is a connection of its own, so that the machine can
//! be asked for other things meanwhile; it ends with the caller.

use std::io::{self, Read, Write};
use std::sync::mpsc;

use brood_agent_proto::errno::Errno;
use brood_agent_proto::file::{ReadSpec, WriteSpec};
use brood_agent_proto::{AgentError, Client, ClientError};
use brood_units::MachineId;
use tokio::sync::mpsc as channel;

pub use brood_agent_proto::file::{DirEntry, FileKind, FileStat, RemoveDepth};

use super::deadline::Busy;
use super::life::Living;
use super::owner::After;
use super::{Caller, Engine, EngineError, Scope};

/// Chunks that wait between the agent and a caller.
const WAITING: usize = 4;
/// The most entries of a directory that are listed.
const MOST_ENTRIES: usize = 10_000;
/// Longest path, bytes (PATH_MAX, limits.h, without its NUL).
const LONGEST_PATH: usize = 4095;

/// A file on its way to a caller.
pub struct FileChunks {
    first: Option<Vec<u8>>,
    rest: channel::Receiver<Result<Vec<u8>, EngineError>>,
}

impl FileChunks {
    /// What comes next; none at the end.
    ///
    /// # Errors
    /// The guest did not send the rest.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, EngineError>> {
        match self.first.take() {
            Some(chunk) => Some(Ok(chunk)),
            None => self.rest.recv().await,
        }
    }
}

/// The caller's end of a file that is being written.
pub struct FileSink {
    chunks: channel::Sender<Vec<u8>>,
    written: tokio::task::JoinHandle<Result<u64, EngineError>>,
    whole: mpsc::Sender<()>,
}

impl FileSink {
    /// Adds a piece of the file. Nothing is to be sent any more once this says that nobody listens; [`FileSink::finish`]
    /// says why.
    pub async fn send(&self, chunk: Vec<u8>) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }

    /// The file is whole: puts it in its place. Where this is not called, it stays as it was. How many bytes it has.
    ///
    /// # Errors
    /// The guest did not take it.
    pub async fn finish(self) -> Result<u64, EngineError> {
        // Where the thread has given up already, its reason comes below.
        self.whole.send(()).ok();
        drop(self.chunks);
        let written = self.written.await;
        written.unwrap_or_else(|error| Err(EngineError::Failed(error.to_string())))
    }
}

impl Engine {
    /// Reads a file of a machine.
    ///
    /// # Errors
    /// There is no such machine, it has no agent, there is no such file, or the caller may not.
    pub async fn read_file(
        &self,
        caller: &Caller,
        id: MachineId,
        path: &str,
    ) -> Result<FileChunks, EngineError> {
        let (mut agent, busy) = self.agent(caller, id, path).await?;
        let (chunks, mut rest) = channel::channel(WAITING);
        let spec = ReadSpec {
            path: path.to_owned(),
            offset: 0,
            len: None,
        };
        tokio::task::spawn_blocking(move || {
            let mut sink = Sink(chunks.clone());
            let read = agent.read_file(&spec, &mut sink, u64::MAX);
            if let Err(error) = read {
                // A caller who has gone does not want to know.
                drop(chunks.blocking_send(Err(refused(error))));
            }
            drop::<Busy>(busy);
        });
        // Whether there is such a file shows with the first of it.
        let first = rest.recv().await.transpose()?;
        Ok(FileChunks { first, rest })
    }

    /// Begins to write a file of a machine, which replaces the one that is there once it is whole.
    ///
    /// # Errors
    /// There is no such machine, it has no agent, or the caller may not.
    pub async fn write_file(
        &self,
        caller: &Caller,
        id: MachineId,
        path: &str,
        mode: Option<u32>,
    ) -> Result<FileSink, EngineError> {
        let (mut agent, busy) = self.agent(caller, id, path).await?;
        let (chunks, came) = channel::channel(WAITING);
        let (whole, is_whole) = mpsc::channel();
        let spec = WriteSpec {
            mode,
            ..WriteSpec::replace(path, 0)
        };
        let written = tokio::task::spawn_blocking(move || {
            let mut source = Source::new(came, is_whole);
            let written = agent.write_file(&spec, &mut source);
            drop::<Busy>(busy);
            written.map_err(refused)
        });
        Ok(FileSink {
            chunks,
            written,
            whole,
        })
    }

    /// What a path of a machine is; a symbolic link is not followed.
    ///
    /// # Errors
    /// There is no such machine or path, it has no agent, or the caller may not.
    pub async fn file_stat(
        &self,
        caller: &Caller,
        id: MachineId,
        path: &str,
    ) -> Result<FileStat, EngineError> {
        let path = path.to_owned();
        self.ask_agent(caller, id, &path.clone(), move |agent| agent.stat(&path))
            .await
    }

    /// The entries of a directory of a machine, by name.
    ///
    /// # Errors
    /// There is no such machine or directory, it has no agent, the directory is too large, or the caller may not.
    pub async fn directory(
        &self,
        caller: &Caller,
        id: MachineId,
        path: &str,
    ) -> Result<Vec<DirEntry>, EngineError> {
        let path = path.to_owned();
        self.ask_agent(caller, id, &path.clone(), move |agent| {
            let mut entries = agent.list(&path, MOST_ENTRIES)?;
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(entries)
        })
        .await
    }

    /// Removes a file of a machine, or a directory.
    ///
    /// # Errors
    /// There is no such machine or path, it has no agent, the directory is not empty, or the caller may not.
    pub async fn remove_file(
        &self,
        caller: &Caller,
        id: MachineId,
        path: &str,
        depth: RemoveDepth,
    ) -> Result<(), EngineError> {
        let path = path.to_owned();
        self.ask_agent(caller, id, &path.clone(), move |agent| {
            agent.remove_path(&path, depth)
        })
        .await
    }

    async fn ask_agent<T: Send + 'static>(
        &self,
        caller: &Caller,
        id: MachineId,
        path: &str,
        ask: impl FnOnce(&mut Client) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (mut agent, busy) = self.agent(caller, id, path).await?;
        let asked = tokio::task::spawn_blocking(move || {
            let asked = ask(&mut agent);
            drop::<Busy>(busy);
            asked.map_err(refused)
        });
        asked
            .await
            .unwrap_or_else(|error| Err(EngineError::Failed(error.to_string())))
    }

    /// A conversation with a machine's agent about a path. What is in files is nobody's to read who may not run
    /// programs that could read it as well.
    async fn agent(
        &self,
        caller: &Caller,
        id: MachineId,
        path: &str,
    ) -> Result<(Client, Busy), EngineError> {
        caller.may(Scope::Write)?;
        let row = self.living(caller, id)?;
        if !path.starts_with('/') || path.contains('\0') || path.len() > LONGEST_PATH {
            return Err(EngineError::Invalid(format!(
                "a path in the guest begins with '/', has no NUL and at most {LONGEST_PATH} bytes"
            )));
        }
        let busy = self.busy(id);
        let agent = self
            .work_with(Living::of(&row.born), move |mut guest| {
                let agent = match guest.linux() {
                    Some(machine) => machine.connect().map_err(|error| EngineError::failed(&error)),
                    None => Err(EngineError::Conflict(format!(
                        "{id} has no agent that could reach its files: use a template with a Linux guest"
                    ))),
                };
                (agent, After::back(guest))
            })
            .await?;
        Ok((agent, busy))
    }
}

/// Where chunks go. A caller who has gone ends the conversation.
pub(super) struct Sink(pub(super) channel::Sender<Result<Vec<u8>, EngineError>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(bytes.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where chunks come from. One who goes before the end leaves no half file.
pub(super) struct Source {
    came: channel::Receiver<Vec<u8>>,
    is_whole: mpsc::Receiver<()>,
    chunk: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl Source {
    /// Of what comes, until it is said to be whole.
    pub(super) fn new(came: channel::Receiver<Vec<u8>>, is_whole: mpsc::Receiver<()>) -> Self {
        Self {
            came,
            is_whole,
            chunk: Vec::new(),
            taken: 0,
            ended: false,
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() {
            match self.came.blocking_recv() {
                Some(chunk) => (self.chunk, self.taken) = (chunk, 0),
                // It is said before the last end of the channel goes; who reads on finds the end again.
                None if self.ended || self.is_whole.try_recv().is_ok() => {
                    self.ended = true;
                    return Ok(0);
                }
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        }
        let rest = self.chunk.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(from), Some(to)) = (rest.get(..count), buffer.get_mut(..count)) {
            to.copy_from_slice(from);
        }
        self.taken += count;
        Ok(count)
    }
}

/// errno(3): ENOENT and ENOTDIR, there is none; what else the guest's file system says is about the state it is in.
fn refused(error: ClientError) -> EngineError {
    match error {
        ClientError::Agent(AgentError::File {
            path,
            errno: Errno(2 | 20),
            ..
        }) => EngineError::NotFound {
            what: "file",
            which: path.escape_debug().to_string(),
        },
        ClientError::Agent(error @ (AgentError::File { .. } | AgentError::WorkloadQuiesced)) => {
            EngineError::Conflict(format!("the guest refuses: {error}"))
        }
        ClientError::Agent(error @ AgentError::Invalid { .. }) => {
            EngineError::Invalid(error.to_string())
        }
        ClientError::TooMuch { .. } => EngineError::Conflict(error.to_string()),
        error => EngineError::failed(&error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> (channel::Sender<Vec<u8>>, mpsc::Sender<()>, Source) {
        let (chunks, came) = channel::channel(WAITING);
        let (whole, is_whole) = mpsc::channel();
        (chunks, whole, Source::new(came, is_whole))
    }

    #[test]
    fn a_file_ends_where_its_sender_says_so_and_not_where_the_sender_vanishes() {
        let (chunks, whole, mut file) = source();
        for chunk in ["ab", "", "c"] {
            chunks.try_send(chunk.into()).expect("there is room");
        }
        whole.send(()).expect("it listens");
        drop(chunks);
        let mut text = String::new();
        file.read_to_string(&mut text).expect("it is whole");
        assert_eq!(text, "abc");
        // As the agent's client does, which looks for another piece behind the last.
        assert_eq!(file.read(&mut [0; 8]).expect("the end is still there"), 0);

        let (chunks, whole, mut file) = source();
        chunks.try_send(b"ab".to_vec()).expect("there is room");
        drop((chunks, whole));
        let broken = file.read_to_string(&mut String::new()).expect_err("half");
        assert_eq!(broken.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_reader_who_has_gone_ends_the_conversation() {
        let (chunks, rest) = channel::channel(WAITING);
        let mut sink = Sink(chunks);
        assert_eq!(sink.write(b"ab").expect("it is heard"), 2);
        drop(rest);
        let broken = sink.write(b"c").expect_err("nobody is there");
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
    }
}
