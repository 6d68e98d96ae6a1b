//! Saving a snapshot.
//!
//! Invariant: after an answer the snapshot is durable; after an error there is none, and what there was is as it was.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use brood_units::SnapshotId;

use super::incoming::{CopyError, Incoming};
use super::layout::LayoutError;
use super::ram;
use super::{STATE, SnapshotStore};
use crate::chunk::{CHUNK, ChunkName};
use crate::files::FileError;
use crate::manifest::{DISKS_MAX, ManifestError, Meta, Record, STATE_MAX};
use crate::stream::{self, Reader};

/// A disk file to be copied into a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct DiskSource<'a> {
    /// What the engine calls it; a word, no path.
    pub label: &'a str,
    /// It is read by position from its beginning to its end, and must not change meanwhile.
    pub file: &'a File,
}

/// A snapshot to be saved.
#[derive(Debug)]
pub struct SaveSpec<'a, R> {
    /// Its id, which no snapshot here has.
    pub id: SnapshotId,
    /// What is to be known about it.
    pub meta: Meta,
    /// Bytes of the machine's RAM.
    pub ram_bytes: u64,
    /// Its RAM as a stream, which may lie.
    pub ram: R,
    /// State of vCPUs, machine and devices, at most [`STATE_MAX`] bytes.
    pub state: &'a [u8],
    /// Its disk files.
    pub disks: &'a [DiskSource<'a>],
}

/// A snapshot of a machine that gives out state and disks once its RAM is written.
#[derive(Debug)]
pub struct StreamSpec<R> {
    /// Its id, which no snapshot here has.
    pub id: SnapshotId,
    /// What is to be known about it.
    pub meta: Meta,
    /// Bytes of the machine's RAM.
    pub ram_bytes: u64,
    /// Its RAM as a stream, which may lie.
    pub ram: R,
}

/// What such a machine gives out besides its RAM.
#[derive(Debug, Default)]
pub struct Rest {
    /// State of vCPUs, machine and devices, at most [`STATE_MAX`] bytes.
    pub state: Vec<u8>,
    /// Its disk files, each with what the engine calls it.
    pub disks: Vec<(String, File)>,
}

/// What a save came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The snapshot.
    pub id: SnapshotId,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Bytes of its chunks that are not zero.
    pub nonzero_bytes: u64,
    /// Bytes of chunks that were not in the store.
    pub new_bytes: u64,
    /// Bytes of state, disks and manifest.
    pub other_bytes: u64,
    /// Packs that it refers to.
    pub packs: usize,
}

/// There is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The id is taken, or being saved under.
    #[error("there is a snapshot {0} already")]
    Exists(SnapshotId),
    /// What came is no RAM.
    #[error("the machine's memory did not come whole")]
    Ram(#[from] stream::ReadError),
    /// State and disks did not come.
    #[error("the machine's state did not come")]
    Rest(#[source] io::Error),
    /// More state than a machine has.
    #[error("the machine's state has {0} bytes, more than {STATE_MAX}")]
    State(u64),
    /// More disk files than a machine has.
    #[error("the machine has {0} disk files, more than {DISKS_MAX}")]
    Disks(usize),
    /// A disk file cannot be read.
    #[error("disk file {index} ({label}) cannot be read")]
    Disk {
        /// Which.
        index: usize,
        /// What it is called.
        label: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The table cannot be made.
    #[error("the snapshot has no table")]
    Layout(#[from] LayoutError),
    /// The manifest cannot be made.
    #[error("the snapshot has no manifest")]
    Manifest(#[from] ManifestError),
    /// The disk of the store fails.
    #[error("the snapshot cannot be written")]
    File(#[from] FileError),
}

impl SnapshotStore {
    /// Saves a snapshot. Nothing of it can be seen before it is whole.
    ///
    /// # Errors
    /// See [`SaveError`]; nothing of it is kept then.
    pub fn save<R: Read>(&self, spec: SaveSpec<'_, R>) -> Result<Saved, SaveError> {
        check(spec.state, spec.disks.len())?;
        let incoming = self.take_ram(spec.id, spec.ram_bytes, spec.ram)?;
        finish(incoming, spec.meta, spec.state, spec.disks)
    }

    /// The same of a machine whose state and disks come behind its RAM: `rest` is asked for them once that is here.
    ///
    /// # Errors
    /// See [`SaveError`]; nothing of it is kept then.
    pub fn save_as_it_comes<R: Read>(
        &self,
        spec: StreamSpec<R>,
        rest: impl FnOnce() -> io::Result<Rest>,
    ) -> Result<Saved, SaveError> {
        let incoming = self.take_ram(spec.id, spec.ram_bytes, spec.ram)?;
        let rest = rest().map_err(SaveError::Rest)?;
        check(&rest.state, rest.disks.len())?;
        let disks = rest.disks.iter();
        let disks: Vec<_> = disks
            .map(|(label, file)| DiskSource { label, file })
            .collect();
        finish(incoming, spec.meta, &rest.state, &disks)
    }

    fn take_ram<R: Read>(
        &self,
        id: SnapshotId,
        ram_bytes: u64,
        ram: R,
    ) -> Result<Incoming<'_>, SaveError> {
        let reader = BufReader::with_capacity(CHUNK, ram);
        let reader = Reader::new(reader, ram_bytes)?;
        let mut incoming = Incoming::begin(self, id, ram_bytes)?;
        ram::chunks(reader, |chunk, bytes| -> Result<(), SaveError> {
            let name = ChunkName::of(bytes);
            let home = incoming.keep(name, bytes)?;
            incoming.set(chunk, name, home);
            Ok(())
        })?;
        Ok(incoming)
    }
}

/// Whether it is as much as a machine has.
fn check(state: &[u8], disks: usize) -> Result<(), SaveError> {
    let bytes = state.len() as u64;
    if bytes > STATE_MAX {
        return Err(SaveError::State(bytes));
    }
    if disks > DISKS_MAX {
        return Err(SaveError::Disks(disks));
    }
    Ok(())
}

fn finish(
    mut incoming: Incoming<'_>,
    meta: Meta,
    state: &[u8],
    sources: &[DiskSource<'_>],
) -> Result<Saved, SaveError> {
    let copied = incoming.file(STATE, STATE, state);
    let state = copied.map_err(|error| of_disk(0, STATE, error))?;
    let mut disks = Vec::new();
    for (index, disk) in sources.iter().enumerate() {
        let source = FromStart(disk.file, 0);
        let copied = incoming.file(&disk_name(index), disk.label, source);
        disks.push(copied.map_err(|error| of_disk(index, disk.label, error))?);
    }
    incoming.publish(Record { meta, state, disks })
}

fn of_disk(index: usize, label: &str, error: CopyError) -> SaveError {
    match error {
        CopyError::File(error) => error.into(),
        CopyError::Source(source) => SaveError::Disk {
            index,
            label: label.to_owned(),
            source,
        },
    }
}

/// The name of a disk file in a snapshot's directory.
pub(super) fn disk_name(index: usize) -> String {
    format!("disk.{index}")
}

/// A file read by position: its offset is shared with every process that has it.
pub(super) struct FromStart<'a>(pub(super) &'a File, pub(super) u64);

impl Read for FromStart<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read_at(bytes, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}
