//! Snapshots as the engine asks for them: saving a machine that stands still, restoring one that runs before its RAM is
//! read.
//!
//! Invariant: RAM goes past this crate's client: whoever calls reads the stream that [`Cell::save`] has written, on a
//! thread of its own, and makes the table that [`Cell::restore`] hands over.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::error::call;
use super::{Cell, CellError};
use crate::protocol::{ChunkSource, Fetch, Reply, Request, VERSION};

/// The most chunks of a record: 64 GiB of RAM, all of it touched.
const MOST_RECORDED: u32 = 1 << 20;

/// Everything of a saved machine but RAM.
#[derive(Debug)]
pub struct Saved {
    /// Its state, as this engine writes it.
    pub state: OwnedFd,
    /// Its disk: the base image if it has one, then the layers.
    pub disk: Vec<OwnedFd>,
}

/// What a machine is restored of.
#[derive(Debug)]
pub struct RestoreParts<'a> {
    /// `/dev/kvm`.
    pub kvm: BorrowedFd<'a>,
    /// Where each chunk lies: a memfd sealed against writing and shrinking (`brood_snapshot::table`).
    pub table: BorrowedFd<'a>,
    /// The state, as it was saved.
    pub state: BorrowedFd<'a>,
    /// The disk's files, as they were saved.
    pub disk: Vec<BorrowedFd<'a>>,
    /// The files that the table names, or the one socket of a page server.
    pub chunks: Vec<BorrowedFd<'a>>,
}

impl Cell {
    /// Writes the RAM of a frozen checkpoint or a paused machine to `ram` (`brood_snapshot::stream`), whose other end
    /// somebody must read meanwhile, and gives out the rest of it. It may take up to `limit`.
    ///
    /// # Errors
    /// The machine runs, its reader has gone, or it takes longer. The machine is as it was.
    pub fn save(&mut self, ram: OwnedFd, limit: Duration) -> Result<Saved, CellError> {
        // An engine that may not look makes the cell read what was never touched as well.
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid())).ok();
        let files: Vec<_> = std::iter::once(ram.as_fd())
            .chain(pagemap.as_ref().map(AsFd::as_fd))
            .collect();
        let id = self.ask(Request::Save, &files)?;
        drop(files);
        // The cell has the only writing end, so that the reader hears of its end.
        drop(ram);
        match self.answer_within(id, limit)? {
            (Reply::Saved, fds) => {
                let mut fds = fds.into_iter();
                let state = fds.next().ok_or_else(no_file)?;
                length_of(&state)?;
                let disk = fds.collect();
                Ok(Saved { state, disk })
            }
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// Makes this cell a restored machine, held before its next instruction; RAM comes as it is touched.
    ///
    /// # Errors
    /// The cell refuses; or a chunk that its devices need at once cannot be had, and it has ended.
    pub fn restore(
        &mut self,
        parts: &RestoreParts<'_>,
        source: ChunkSource,
        fetch: Fetch,
    ) -> Result<(), CellError> {
        let version = VERSION;
        let mut files = vec![parts.kvm, parts.table, parts.state];
        files.extend(&parts.disk);
        files.extend(&parts.chunks);
        let request = Request::Restore {
            version,
            source,
            fetch,
        };
        self.ready(request, &files)
    }

    /// Has all of a restored machine's RAM fetched as fast as possible and waits until it is there, up to `limit`.
    ///
    /// # Errors
    /// A chunk cannot be had, and the machine has ended; or it takes longer.
    pub fn fill(&mut self, limit: Duration) -> Result<(), CellError> {
        let id = self.ask(Request::Fill, &[])?;
        match self.answer_within(id, limit)? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// The chunks of RAM that a restored machine has waited for so far, in order.
    ///
    /// # Errors
    /// The machine was not restored.
    pub fn working_set(&mut self) -> Result<Vec<u32>, CellError> {
        let (chunks, fds) = match self.request(Request::WorkingSet, &[])? {
            (Reply::WorkingSet { chunks }, fds) => (chunks, fds),
            (other, _) => return Err(CellError::Confused(format!("{other:?}"))),
        };
        let file = fds.into_iter().next().ok_or_else(no_file)?;
        let length = length_of(&file)?;
        if chunks > MOST_RECORDED || length != 4 * u64::from(chunks) {
            let said = format!("{length} bytes of {chunks} chunks");
            return Err(CellError::Confused(said));
        }
        let mut bytes = vec![0; 4 * chunks as usize];
        File::from(file)
            .read_exact_at(&mut bytes, 0)
            .map_err(io_call("read of the working set"))?;
        let words = bytes.as_chunks::<4>().0.iter();
        Ok(words.map(|word| u32::from_le_bytes(*word)).collect())
    }
}

/// The length of a file that a cell handed over, which is one in memory: reading any other might wait for ever.
fn length_of(file: &OwnedFd) -> Result<u64, CellError> {
    let stat = rustix::fs::fstat(file).map_err(call("fstat"))?;
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => Ok(stat.st_size.unsigned_abs()),
        other => Err(CellError::Confused(format!("a file that is {other:?}"))),
    }
}

fn io_call(operation: &'static str) -> impl Fn(std::io::Error) -> CellError {
    move |source| CellError::Call { operation, source }
}

fn no_file() -> CellError {
    CellError::Confused("an answer without its file".to_owned())
}
