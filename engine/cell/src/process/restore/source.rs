//! Where chunks come from: files of them, or a server.
//!
//! A chunk is asked for, then taken; from a file at once, from a server when its reply is there. Invariant: what is taken
//! was asked for and has a whole chunk of bytes; whether they are the right ones is the pager's to check.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use brood_snapshot::CHUNK;
use brood_snapshot::table::Entry;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::pages::{HEADER, OK};
use crate::protocol::ChunkSource;

/// Chunks a server is asked for before it has answered, besides those that somebody waits for.
const AHEAD: usize = 16;

/// Why a chunk could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChunkError {
    #[error("the file ends before the chunk does")]
    Short,
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    #[error("its bytes are not those that the table names (BLAKE3)")]
    Differs,
    #[error("there is no such file")]
    NoFile,
    #[error("the page server has gone")]
    Gone,
    #[error("the page server sent no whole chunk for {0:?}")]
    Silent(Duration),
    #[error("the page server says that it cannot be had (status {0})")]
    Status(u32),
    #[error("the page server sent chunk {0}, which nobody had asked for")]
    Unasked(u32),
    #[error("the page server cannot be asked")]
    Ask(#[source] io::Error),
}

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
#[error("{sent} descriptors came for one page server")]
pub(super) struct SourceError {
    sent: usize,
}

/// Where chunks come from.
pub(super) enum Source {
    Files(Files),
    Server(Server),
}

/// A chunk that was asked for.
#[derive(Clone, Copy)]
struct Asked {
    chunk: u32,
    place: Entry,
}

pub(super) struct Files {
    files: Vec<File>,
    asked: VecDeque<Asked>,
    bytes: Vec<u8>,
}

pub(super) struct Server {
    socket: OwnedFd,
    asked: Vec<u32>,
    patience: Duration,
    /// When the reply that is waited for must be whole.
    deadline: Instant,
    reply: Vec<u8>,
    filled: usize,
}

impl Source {
    /// A source over what came along: files, or the one socket of a server.
    pub(super) fn new(source: ChunkSource, fds: Vec<OwnedFd>) -> Result<Self, SourceError> {
        let ChunkSource::Server { patience_ms } = source else {
            return Ok(Self::Files(Files {
                files: fds.into_iter().map(File::from).collect(),
                asked: VecDeque::new(),
                bytes: vec![0; CHUNK],
            }));
        };
        let [socket] =
            <[OwnedFd; 1]>::try_from(fds).map_err(|fds| SourceError { sent: fds.len() })?;
        let patience = Duration::from_millis(u64::from(patience_ms));
        Ok(Self::Server(Server {
            socket,
            asked: Vec::new(),
            patience,
            deadline: Instant::now(),
            reply: vec![0; HEADER + CHUNK],
            filled: 0,
        }))
    }

    /// Asks for a chunk.
    pub(super) fn ask(&mut self, chunk: u32, place: Entry) -> Result<(), ChunkError> {
        match self {
            Self::Files(files) => {
                files.asked.push_back(Asked { chunk, place });
                Ok(())
            }
            Self::Server(server) => server.ask(chunk),
        }
    }

    /// Whether it may be asked for chunks that nobody waits for.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Files(files) => files.asked.is_empty(),
            Self::Server(server) => server.asked.len() < AHEAD,
        }
    }

    /// Whether it is left alone between bursts, as its bytes cost this host's CPUs and nothing else limits it.
    pub(super) fn needs_rest(&self) -> bool {
        matches!(self, Self::Files(_))
    }

    /// Whether all that was asked for was taken.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Files(files) => files.asked.is_empty(),
            Self::Server(server) => server.asked.is_empty(),
        }
    }

    /// What to wait on before [`Source::take`], and until when; none if it need not be waited for.
    pub(super) fn waits_on(&self) -> Option<(BorrowedFd<'_>, Instant)> {
        match self {
            Self::Server(server) if !server.asked.is_empty() => {
                Some((server.socket.as_fd(), server.deadline))
            }
            _ => None,
        }
    }

    /// The next chunk that was asked for, whose bytes are then [`Source::bytes`]; none yet.
    ///
    /// # Errors
    /// One of those asked for cannot be had, with its number.
    pub(super) fn take(&mut self) -> Result<Option<u32>, (u32, ChunkError)> {
        match self {
            Self::Files(files) => files.take(),
            Self::Server(server) => server.take(),
        }
    }

    /// The bytes of the chunk that was taken last.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Files(files) => &files.bytes,
            Self::Server(server) => server.reply.get(HEADER..).unwrap_or_default(),
        }
    }
}

impl Files {
    fn take(&mut self) -> Result<Option<u32>, (u32, ChunkError)> {
        let Some(Asked { chunk, place }) = self.asked.pop_front() else {
            return Ok(None);
        };
        let read = match place {
            Entry::Zero { .. } => {
                self.bytes.fill(0);
                Ok(())
            }
            Entry::Stored { file, offset, .. } => match self.files.get(file as usize) {
                // By position: other cells restore from the same open file, which has one offset.
                Some(file) => file
                    .read_exact_at(&mut self.bytes, offset)
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => ChunkError::Short,
                        _ => ChunkError::Read(error),
                    }),
                None => Err(ChunkError::NoFile),
            },
        };
        read.map(|()| Some(chunk)).map_err(|error| (chunk, error))
    }
}

impl Server {
    fn ask(&mut self, chunk: u32) -> Result<(), ChunkError> {
        if self.asked.is_empty() {
            self.deadline = Instant::now() + self.patience;
        }
        // A server that takes no four bytes has not read thousands of asks.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match send(&self.socket, &chunk.to_le_bytes(), flags) {
            Ok(4) => {}
            Ok(_) => return Err(ChunkError::Ask(io::ErrorKind::WriteZero.into())),
            Err(rustix::io::Errno::PIPE) => return Err(ChunkError::Gone),
            Err(errno) => return Err(ChunkError::Ask(errno.into())),
        }
        self.asked.push(chunk);
        Ok(())
    }

    fn take(&mut self) -> Result<Option<u32>, (u32, ChunkError)> {
        let Some(oldest) = self.asked.first().copied() else {
            return Ok(None);
        };
        let whole = self.receive().map_err(|error| (oldest, error))?;
        let (chunk, status) = (self.word(0), self.word(4));
        if self.filled >= HEADER {
            if !self.asked.contains(&chunk) {
                return Err((oldest, ChunkError::Unasked(chunk)));
            }
            if status != OK {
                return Err((chunk, ChunkError::Status(status)));
            }
        }
        if whole {
            self.filled = 0;
            self.asked.retain(|asked| *asked != chunk);
            self.deadline = Instant::now() + self.patience;
            return Ok(Some(chunk));
        }
        match Instant::now() < self.deadline {
            true => Ok(None),
            false => Err((oldest, ChunkError::Silent(self.patience))),
        }
    }

    /// Takes what has come; whether the reply is whole.
    fn receive(&mut self) -> Result<bool, ChunkError> {
        let room = self.reply.get_mut(self.filled..).unwrap_or_default();
        match recv(&self.socket, room, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(ChunkError::Gone),
            Ok((received, _)) => self.filled += received,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Err(ChunkError::Gone),
            Err(errno) => return Err(ChunkError::Read(errno.into())),
        }
        Ok(self.filled == self.reply.len())
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self
            .reply
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    }
}
