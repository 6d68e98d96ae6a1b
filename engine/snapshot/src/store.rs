//! The store: a directory of snapshots, whose equal chunks are kept once.
//!
//! ```text
//!  DIR/lock               one process has it (man 2 flock)
//!  DIR/incoming/          what is being written or removed; the next open empties it
//!  DIR/packs/NAME.pack    chunks, see [`crate::pack`]
//!  DIR/snapshots/ID/      manifest, state, disk.0, disk.1 ...
//! ```
//!
//! Invariant: a snapshot is there exactly if `snapshots/ID` is, and all it refers to is durable before that name is. So a
//! process may be killed at any step: the next open finds whole snapshots and sweeps the rest. A pack is deleted only when
//! no snapshot names it and no save counts on it; one that is named by a manifest that cannot be read is not known, so then
//! none is. Descriptors that were given out go on meaning the same bytes.
//!
//! One store is one domain of trust: whoever gets a pack's descriptor can read all of it, and what is saved tells by its
//! size what was there before. Give each tenant a store.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use brood_units::SnapshotId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files::{FileError, Files};
use crate::manifest::{Manifest, ManifestError};
use crate::pack::{self, PackId};

mod compact;
mod incoming;
mod layout;
mod portable;
mod ram;
mod remove;
mod save;
mod snapshot;
mod state;
mod usage;
mod verify;

pub use compact::{CompactError, Compacted};
pub use layout::LayoutError;
pub use portable::{ExportError, ImportError, Portable};
pub use remove::RemoveError;
pub use save::{DiskSource, Rest, SaveError, SaveSpec, Saved, StreamSpec};
pub use snapshot::{Plan, PlanError, ReadError, Snapshot};
pub use usage::{SnapshotUsage, Usage};
pub use verify::{Damage, Fault};

use state::State;

const MANIFEST: &str = "manifest";
const MANIFEST_NEW: &str = "manifest.new";
const STATE: &str = "state";

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by {holder}: stop that one, or name another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who, as far as it says.
        holder: String,
    },
    /// It cannot be made, read or swept.
    #[error("cannot use the directory of snapshots")]
    File(#[from] FileError),
}

/// A directory of snapshots. Any thread may do anything at any time.
pub struct SnapshotStore {
    directory: PathBuf,
    files: Files,
    /// Held by whoever changes which snapshots and packs there are, long; taken before `state`.
    publishing: Mutex<()>,
    /// What there is; a leaf, held for lines.
    state: Mutex<State>,
    /// Kept for its lock.
    _lock: File,
}

impl SnapshotStore {
    /// Opens a directory, or makes it, and sweeps what a process that was killed left.
    ///
    /// # Errors
    /// Another process has it, or it cannot be read or changed.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(directory, Files::default())
    }

    pub(crate) fn open_with(directory: &Path, files: Files) -> Result<Self, OpenError> {
        let made = !directory.is_dir();
        files.ensure_directory(directory)?;
        let lock = take_lock(directory)?;
        let store = Self {
            directory: directory.to_owned(),
            files,
            publishing: Mutex::default(),
            state: Mutex::default(),
            _lock: lock,
        };
        for part in ["incoming", "packs", "snapshots"] {
            store.files.ensure_directory(&store.directory.join(part))?;
        }
        store.files.sync_directory(directory)?;
        if let Some(parent) = directory.parent().filter(|path| made && path.is_dir()) {
            store.files.sync_directory(parent)?;
        }
        store.sweep_incoming()?;
        store.load_snapshots()?;
        store.load_packs()?;
        let sweeping = store.publishing();
        store.collect(&sweeping)?;
        drop(sweeping);
        Ok(store)
    }

    /// The ids of all snapshots that can be opened, in order.
    pub fn list(&self) -> Vec<SnapshotId> {
        self.state().snapshots.keys().copied().collect()
    }

    /// Snapshots whose manifest could not be read at the open, each with the reason. They can be removed; until then no
    /// space of packs is given back, as it may be theirs.
    pub fn unreadable(&self) -> Vec<(SnapshotId, String)> {
        let state = self.state();
        let each = state.unreadable.iter();
        each.map(|(id, why)| (*id, why.clone())).collect()
    }

    fn sweep_incoming(&self) -> Result<(), FileError> {
        let incoming = self.directory.join("incoming");
        for (path, _) in entries(&incoming)? {
            if path.is_dir() {
                self.files.remove_directory(&path)?;
            } else {
                self.files.remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn load_snapshots(&self) -> Result<(), FileError> {
        for (path, name) in entries(&self.directory.join("snapshots"))? {
            // Other names are nobody's business here.
            let Ok(id) = name.parse::<SnapshotId>() else {
                continue;
            };
            self.files.remove_file(&path.join(MANIFEST_NEW))?;
            match self.read_manifest(id) {
                Ok(manifest) => self.state().adopt(id, manifest.packs),
                Err(error) => {
                    let why = chain(&error);
                    self.state().unreadable.insert(id, why);
                }
            }
        }
        Ok(())
    }

    fn load_packs(&self) -> Result<(), FileError> {
        for (path, name) in entries(&self.directory.join("packs"))? {
            let Some(id) = PackId::of_file_name(&name) else {
                continue;
            };
            let names = pack::names_of(&path, id)?;
            self.state().add_pack(id, &names);
        }
        Ok(())
    }

    fn read_manifest(&self, id: SnapshotId) -> Result<Manifest, ReadError> {
        let path = self.snapshot_path(id).join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::Absent(id));
            }
            Err(error) => return Err(FileError::new("read", &path, error).into()),
        };
        let manifest =
            Manifest::parse(&bytes).map_err(|source| ReadError::Manifest { id, source })?;
        if manifest.id == id {
            Ok(manifest)
        } else {
            let found = manifest.id;
            Err(ReadError::Other { id, found })
        }
    }

    /// Puts another manifest in the place of a snapshot's; whoever reads finds the one or the other.
    fn rewrite_manifest(&self, manifest: &Manifest) -> Result<(), RewriteError> {
        let directory = self.snapshot_path(manifest.id);
        let path = directory.join(MANIFEST_NEW);
        self.files.remove_file(&path)?;
        let mut file = self.files.create(path)?;
        file.append(&manifest.to_bytes()?)?;
        file.sync()?;
        self.files.rename(file.path(), &directory.join(MANIFEST))?;
        Ok(self.files.sync_directory(&directory)?)
    }

    fn snapshot_path(&self, id: SnapshotId) -> PathBuf {
        self.directory.join("snapshots").join(id.to_string())
    }

    fn pack_path(&self, id: PackId) -> PathBuf {
        self.directory.join("packs").join(id.file_name())
    }

    /// Opens a pack for reading. It is not kept open: there may be more of them than descriptors.
    fn open_pack(&self, id: PackId) -> io::Result<File> {
        File::open(self.pack_path(id))
    }

    fn incoming_path(&self, name: &str) -> PathBuf {
        self.directory.join("incoming").join(name)
    }

    fn publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A manifest cannot be put in the place of another.
#[derive(Debug, thiserror::Error)]
enum RewriteError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Path and name of all that is in a directory.
fn entries(directory: &Path) -> Result<Vec<(PathBuf, String)>, FileError> {
    let failed = |source| FileError::new("read", directory, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((entry.path(), name));
    }
    found.sort();
    Ok(found)
}

/// Takes the directory for this process until the file is closed; the file says who has it, and stays.
fn take_lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let failed = |source| FileError::new("lock", &path, source);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            file.rewind().map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(Errno::WOULDBLOCK) => {
            let mut said = String::new();
            // Who has it is a help; that somebody has it is what counts.
            let read = Read::by_ref(&mut file).take(32).read_to_string(&mut said);
            let pid = read.ok().and_then(|_| said.trim().parse::<u32>().ok());
            let holder = pid.map_or_else(
                || "another process".to_owned(),
                |pid| format!("process {pid}"),
            );
            let path = directory.to_owned();
            Err(OpenError::InUse { path, holder })
        }
        Err(errno) => Err(failed(errno.into()).into()),
    }
}

#[cfg(test)]
mod tests;
