//! The pager: one thread that puts chunks into RAM, those that somebody waits for before all others.
//!
//! ```text
//!  fault ─► ask ─┐
//!                ├─► take ─► check ─► put there        ahead: the working set in its order, then the rest, rising
//!  ahead ─► ask ─┘
//! ```
//!
//! Ahead in the background it rests after every [`BURST`] chunks, so that it does not take a CPU from guests; once
//! somebody wants all of RAM it does not. Invariant: a chunk is put there once, after its BLAKE3 was checked. It touches
//! no guest memory itself, and its one lock is a leaf that no faulting thread holds.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use brood_snapshot::table::{Entry, Table};
use brood_snapshot::{CHUNK, ChunkName};
use brood_vmm::{LazyError, MissingPages};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::sealed::SealedBytes;
use super::source::{ChunkError, Source};
use crate::protocol::Fetch;

/// Chunks that are fetched ahead in the background before a rest: 256 KiB.
const BURST: u32 = 4;
/// The rest.
const REST: Duration = Duration::from_millis(1);

/// How eagerly chunks are fetched that nobody waits for.
const NOT: u8 = 0;
const IN_BACKGROUND: u8 = 1;
const AT_ONCE: u8 = 2;

/// Why RAM cannot be made whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum PagerError {
    #[error("{place}")]
    Chunk {
        chunk: u32,
        /// Where it is said to lie.
        place: String,
        #[source]
        source: ChunkError,
    },
    #[error("the table has no such chunk")]
    Table { chunk: u32 },
    #[error("it cannot be put there")]
    Ram {
        chunk: u32,
        #[source]
        source: LazyError,
    },
    #[error("poll(2) failed")]
    Poll {
        chunk: u32,
        #[source]
        source: std::io::Error,
    },
}

impl PagerError {
    /// The chunk it came to an end at.
    pub(super) fn chunk(&self) -> u32 {
        match self {
            Self::Chunk { chunk, .. }
            | Self::Table { chunk }
            | Self::Ram { chunk, .. }
            | Self::Poll { chunk, .. } => *chunk,
        }
    }
}

/// What the main thread and the pager tell each other.
pub(super) struct Progress {
    eagerness: AtomicU8,
    bell: OwnedFd,
    touched: Mutex<Vec<u32>>,
}

impl Progress {
    pub(super) fn new(fetch: Fetch) -> std::io::Result<Self> {
        let eagerness = match fetch {
            Fetch::OnlyTouched => NOT,
            Fetch::Ahead => IN_BACKGROUND,
            Fetch::AtOnce => AT_ONCE,
        };
        Ok(Self {
            eagerness: AtomicU8::new(eagerness),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            touched: Mutex::default(),
        })
    }

    pub(super) fn hurry(&self) {
        self.urge(AT_ONCE);
    }

    pub(super) fn fetch_ahead(&self) {
        self.urge(IN_BACKGROUND);
    }

    pub(super) fn touched(&self) -> Vec<u32> {
        self.list().clone()
    }

    fn urge(&self, eagerness: u8) {
        self.eagerness.fetch_max(eagerness, Ordering::AcqRel);
        // A full counter means that the pager is being woken already.
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).ok();
    }

    fn list(&self) -> MutexGuard<'_, Vec<u32>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Asked,
    There,
}

/// Everything the thread has.
pub(super) struct Pager {
    pages: MissingPages,
    table: Table<SealedBytes>,
    source: Source,
    progress: Arc<Progress>,
    states: Vec<State>,
    /// The working set, last first.
    early: Vec<u32>,
    /// Every chunk before this one was looked at, ahead of whoever touches it.
    next: u32,
    /// Chunks asked for ahead since the last rest.
    since_rest: u32,
}

impl Pager {
    pub(super) fn new(
        pages: MissingPages,
        table: Table<SealedBytes>,
        source: Source,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            states: vec![State::Missing; table.chunks() as usize],
            early: Vec::new(),
            next: 0,
            since_rest: 0,
            pages,
            table,
            source,
            progress,
        }
    }

    /// Fills RAM until it is whole.
    pub(super) fn run(mut self) -> Result<(), PagerError> {
        let most = self.states.len();
        self.early = self.table.working_set().take(most).collect();
        self.early.reverse();
        loop {
            self.hear_faults()?;
            self.ask_ahead()?;
            match self.source.take() {
                Ok(Some(chunk)) => self.put(chunk)?,
                Ok(None) if self.source.is_idle() && self.has_looked_at_all() => break,
                Ok(None) => self.wait()?,
                Err((chunk, source)) => return Err(self.bad(chunk, source)),
            }
        }
        let chunk = self.next;
        self.pages
            .finish()
            .map_err(|source| PagerError::Ram { chunk, source })
    }

    fn hear_faults(&mut self) -> Result<(), PagerError> {
        let chunk = self.next;
        let failed = |source| PagerError::Ram { chunk, source };
        while let Some(offset) = self.pages.next_fault().map_err(failed)? {
            // The kernel names places in RAM only, which has at most 2^32 chunks.
            let chunk = (offset / CHUNK as u64) as u32;
            let Some(state) = self.states.get(chunk as usize) else {
                continue;
            };
            match state {
                State::Missing => {
                    self.progress.list().push(chunk);
                    self.ask(chunk)?;
                }
                State::Asked => {}
                // It came between the touch and the hearing of it.
                State::There => self
                    .pages
                    .wake(offset, 4096)
                    .map_err(|source| PagerError::Ram { chunk, source })?,
            }
        }
        Ok(())
    }

    /// Asks for a chunk, or puts it there at once if it is all zero.
    fn ask(&mut self, chunk: u32) -> Result<(), PagerError> {
        let state = match self.place(chunk)? {
            Entry::Zero { .. } => {
                let offset = u64::from(chunk) * CHUNK as u64;
                self.pages
                    .fill_zeros(offset, CHUNK as u64)
                    .map_err(|source| PagerError::Ram { chunk, source })?;
                State::There
            }
            place => {
                let asked = self.source.ask(chunk, place);
                asked.map_err(|source| self.bad(chunk, source))?;
                State::Asked
            }
        };
        self.set(chunk, state);
        Ok(())
    }

    fn ask_ahead(&mut self) -> Result<(), PagerError> {
        while self.may_look_ahead() && self.source.has_room() {
            let Some(chunk) = self.next_ahead()? else {
                return Ok(());
            };
            self.ask(chunk)?;
            self.since_rest += 1;
        }
        Ok(())
    }

    fn may_look_ahead(&self) -> bool {
        match self.progress.eagerness.load(Ordering::Acquire) {
            NOT => false,
            // The working set is not left for later.
            IN_BACKGROUND => !self.is_tired() || !self.early.is_empty(),
            _ => true,
        }
    }

    fn is_tired(&self) -> bool {
        self.since_rest >= BURST && self.source.needs_rest()
    }

    /// The next chunk that nobody has asked for and that is not zero. A chunk of zeros is there once RAM is whole.
    fn next_ahead(&mut self) -> Result<Option<u32>, PagerError> {
        loop {
            let chunk = match self.early.pop() {
                Some(chunk) => chunk,
                None if self.next < self.table.chunks() => {
                    self.next += 1;
                    self.next - 1
                }
                None => return Ok(None),
            };
            let is_missing = self.states.get(chunk as usize) == Some(&State::Missing);
            if is_missing && !matches!(self.place(chunk)?, Entry::Zero { .. }) {
                return Ok(Some(chunk));
            }
        }
    }

    fn has_looked_at_all(&self) -> bool {
        self.early.is_empty() && self.next == self.table.chunks()
    }

    /// Checks the chunk that was taken and puts it there.
    fn put(&mut self, chunk: u32) -> Result<(), PagerError> {
        let bytes = self.source.bytes();
        match self.place(chunk)? {
            Entry::Stored { name, .. } if ChunkName::of(bytes) == name => {}
            _ => return Err(self.bad(chunk, ChunkError::Differs)),
        }
        self.pages
            .fill(u64::from(chunk) * CHUNK as u64, bytes)
            .map_err(|source| PagerError::Ram { chunk, source })?;
        self.set(chunk, State::There);
        Ok(())
    }

    /// Waits until somebody touches a page, the source has something, the main thread rings, or the rest is over.
    fn wait(&mut self) -> Result<(), PagerError> {
        let on_source = self.source.waits_on();
        let rests =
            self.is_tired() && self.progress.eagerness.load(Ordering::Acquire) == IN_BACKGROUND;
        let limit = match on_source {
            Some((_, deadline)) => Some(deadline.saturating_duration_since(Instant::now())),
            None if rests => Some(REST),
            None => None,
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.pages.fd(), PollFlags::IN),
            PollFd::new(&self.progress.bell, PollFlags::IN),
        ];
        fds.extend(on_source.map(|(fd, _)| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                let chunk = self.next;
                let source = errno.into();
                return Err(PagerError::Poll { chunk, source });
            }
        }
        // Nothing to read means that nobody has rung.
        rustix::io::read(&self.progress.bell, &mut [0_u8; 8]).ok();
        if on_source.is_none() {
            self.since_rest = 0;
        }
        Ok(())
    }

    fn place(&self, chunk: u32) -> Result<Entry, PagerError> {
        self.table.entry(chunk).ok_or(PagerError::Table { chunk })
    }

    fn set(&mut self, chunk: u32, to: State) {
        if let Some(state) = self.states.get_mut(chunk as usize) {
            *state = to;
        }
    }

    fn bad(&self, chunk: u32, source: ChunkError) -> PagerError {
        let place = match (&self.source, self.place(chunk)) {
            (Source::Files(_), Ok(Entry::Stored { file, offset, .. })) => {
                format!("file {file}, byte {offset}")
            }
            _ => "page server".to_owned(),
        };
        PagerError::Chunk {
            chunk,
            place,
            source,
        }
    }
}
