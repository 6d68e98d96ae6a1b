//! Opening a snapshot, and what a cell needs to restore it.
//!
//! Invariant: what is given out was looked at before the guest runs: manifest by its checksum, state by its digest, disks
//! and packs by their lengths. Chunks are checked by whoever reads them, against the name in the table.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use brood_units::SnapshotId;

use super::layout::LayoutError;
use super::save::disk_name;
use super::{RewriteError, STATE, SnapshotStore};
use crate::chunk::CHUNK;
use crate::files::FileError;
use crate::host::{Host, Lack};
use crate::manifest::{FileRecord, Manifest, ManifestError, Record};
use crate::pack::PackId;
use crate::store::layout::{laid, lay_out};
use crate::table::{Entry, SealError, Table, sealed_memfd};

/// A snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("there is no snapshot {0}")]
    Absent(SnapshotId),
    /// Its manifest is damaged, or of another format.
    #[error("snapshot {id} cannot be read")]
    Manifest {
        /// Which.
        id: SnapshotId,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// Another snapshot's manifest is in its place.
    #[error("the manifest of snapshot {id} is that of {found}")]
    Other {
        /// Which was asked for.
        id: SnapshotId,
        /// Which is there.
        found: SnapshotId,
    },
    /// A file has another length than was written.
    #[error("{file} of snapshot {id} has {found} bytes, and {expected} were written")]
    Length {
        /// Which snapshot.
        id: SnapshotId,
        /// `state`, `disk.0`.
        file: String,
        /// Its bytes.
        found: u64,
        /// The manifest's.
        expected: u64,
    },
    /// A file is not what was written.
    #[error("{file} of snapshot {id} is damaged: its digest is not the manifest's")]
    Digest {
        /// Which snapshot.
        id: SnapshotId,
        /// `state`.
        file: String,
    },
    /// The snapshot has no such disk.
    #[error("snapshot {id} has no disk file {index}")]
    NoDisk {
        /// Which snapshot.
        id: SnapshotId,
        /// Which disk.
        index: usize,
    },
    /// Something cannot be read at all.
    #[error("a snapshot's file cannot be used")]
    File(#[from] FileError),
    /// The table cannot be made anew.
    #[error("the snapshot's table cannot be made")]
    Layout(#[from] LayoutError),
}

/// A snapshot that is open. It stays readable if it is removed.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) manifest: Manifest,
    state: File,
    disks: Vec<File>,
}

impl Snapshot {
    /// Its id.
    pub fn id(&self) -> SnapshotId {
        self.manifest.id
    }

    /// What was said of it, and its files.
    pub fn record(&self) -> &Record {
        &self.manifest.record
    }

    /// Where its memory is.
    pub fn table(&self) -> &Table<Vec<u8>> {
        &self.manifest.table
    }

    /// The packs that the table's files are.
    pub fn packs(&self) -> &[PackId] {
        &self.manifest.packs
    }

    /// All that `host` lacks of what its machine needs.
    pub fn lacking_on(&self, host: &Host) -> Vec<Lack> {
        self.record().meta.host.lacking_on(host)
    }

    /// State of vCPUs, machine and devices, checked by its digest.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn state(&self) -> Result<Vec<u8>, ReadError> {
        let record = &self.record().state;
        // At most STATE_MAX, as the manifest was checked.
        let mut bytes = vec![0; usize::try_from(record.bytes).unwrap_or(0)];
        let read = self.state.read_exact_at(&mut bytes, 0);
        read.map_err(|source| FileError::new("read", STATE.as_ref(), source))?;
        if blake3::hash(&bytes).as_bytes() == &record.digest {
            Ok(bytes)
        } else {
            Err(ReadError::Digest {
                id: self.id(),
                file: STATE.into(),
            })
        }
    }

    /// A disk file, for reading, whose offset is shared with all that were given out before.
    ///
    /// # Errors
    /// There is none of that index, or no descriptor.
    pub fn disk(&self, index: usize) -> Result<File, ReadError> {
        let id = self.id();
        let disk = self.disks.get(index);
        let disk = disk.ok_or(ReadError::NoDisk { id, index })?;
        let copy = disk.try_clone();
        Ok(copy.map_err(|source| FileError::new("open", disk_name(index).as_ref(), source))?)
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (String, &File, &FileRecord)> {
        let record = self.record();
        let disks = self.disks.iter().zip(&record.disks).enumerate();
        let disks = disks.map(|(index, (file, record))| (disk_name(index), file, record));
        std::iter::once((STATE.to_owned(), &self.state, &record.state)).chain(disks)
    }
}

/// What a cell is sent to restore memory.
#[derive(Debug)]
pub struct Plan {
    /// A sealed memfd with the table.
    pub table: OwnedFd,
    /// The packs, in the order of the table's files, read-only.
    pub packs: Vec<OwnedFd>,
}

/// A snapshot's memory cannot be given out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A pack is not there.
    #[error(
        "pack {pack} of snapshot {id} is missing: verify the snapshot, restore a copy of the pack"
    )]
    Missing {
        /// Which snapshot.
        id: SnapshotId,
        /// Which pack.
        pack: PackId,
    },
    /// A pack ends before a chunk does.
    #[error("pack {pack} of snapshot {id} has {found} bytes, and its chunks reach to {expected}")]
    Short {
        /// Which snapshot.
        id: SnapshotId,
        /// Which pack.
        pack: PackId,
        /// Its bytes.
        found: u64,
        /// Where the last chunk ends.
        expected: u64,
    },
    /// The manifest cannot be read again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No memory for the table.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No descriptor of a pack.
    #[error("no descriptor of pack {pack}: raise the limit of open files")]
    Descriptor {
        /// Which pack.
        pack: PackId,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl SnapshotStore {
    /// Opens a snapshot.
    ///
    /// # Errors
    /// There is none, it is damaged, or of a format that this engine does not read.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, ReadError> {
        let manifest = self.read_manifest(id)?;
        let directory = self.snapshot_path(id);
        let open = |name: String, record: &FileRecord| -> Result<File, ReadError> {
            let path: PathBuf = directory.join(&name);
            let failed = |source| FileError::new("open", &path, source);
            let file = File::open(&path).map_err(failed)?;
            let found = file.metadata().map_err(failed)?.len();
            if found == record.bytes {
                return Ok(file);
            }
            let (file, expected) = (name, record.bytes);
            Err(ReadError::Length {
                id,
                file,
                found,
                expected,
            })
        };
        let state = open(STATE.into(), &manifest.record.state)?;
        let disks = manifest.record.disks.iter().enumerate();
        let disks: Result<Vec<_>, _> = disks
            .map(|(index, record)| open(disk_name(index), record))
            .collect();
        Ok(Snapshot {
            state,
            disks: disks?,
            manifest,
        })
    }

    /// What a cell needs for the memory of a snapshot. A few milliseconds: it is on the way to the first instruction.
    ///
    /// # Errors
    /// A pack is missing or too short, or there are no descriptors or no memory.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, PlanError> {
        match self.plan_of(&snapshot.manifest) {
            // Its chunks may have been moved to another pack since it was opened.
            Err(PlanError::Missing { .. }) => self.plan_of(&self.read_manifest(snapshot.id())?),
            plan => plan,
        }
    }

    fn plan_of(&self, manifest: &Manifest) -> Result<Plan, PlanError> {
        let id = manifest.id;
        let mut ends = vec![0; manifest.packs.len()];
        for entry in manifest.table.entries() {
            if let Entry::Stored { file, offset, .. } = entry
                && let Some(end) = ends.get_mut(file as usize)
            {
                *end = offset.saturating_add(CHUNK as u64).max(*end);
            }
        }
        let mut packs = Vec::with_capacity(ends.len());
        for (pack, expected) in manifest.packs.iter().zip(ends) {
            let pack = *pack;
            let failed = |source: io::Error| match source.kind() {
                io::ErrorKind::NotFound => PlanError::Missing { id, pack },
                _ => PlanError::Descriptor { pack, source },
            };
            let file = self.open_pack(pack).map_err(failed)?;
            let found = file.metadata().map_err(failed)?.len();
            if found < expected {
                return Err(PlanError::Short {
                    id,
                    pack,
                    found,
                    expected,
                });
            }
            packs.push(file.into());
        }
        let table = sealed_memfd(manifest.table.as_bytes())?;
        Ok(Plan { table, packs })
    }

    /// Writes down which chunks a restored machine touched first, in that order: the next restore fetches them before it
    /// is asked to.
    ///
    /// # Errors
    /// There is no such snapshot, no such chunk, one chunk is named twice, or the manifest cannot be written.
    pub fn record_working_set(&self, id: SnapshotId, chunks: &[u32]) -> Result<(), ReadError> {
        let _publishing = self.publishing();
        let mut manifest = self.read_manifest(id)?;
        let ram_bytes = manifest.table.ram_bytes();
        let laid: Vec<_> = laid(&manifest).collect();
        (manifest.packs, manifest.table) = lay_out(ram_bytes, &laid, chunks)?;
        self.rewrite_manifest(&manifest)
            .map_err(|error| match error {
                RewriteError::File(error) => error.into(),
                RewriteError::Manifest(source) => ReadError::Manifest { id, source },
            })
    }
}
