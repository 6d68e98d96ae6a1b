//! What images consist of and what was made of them, each once, by its digest.
//!
//! ```text
//!  lock                  shared by sessions, exclusive for who collects garbage
//!  blobs/HEX             layers, configurations, manifests: read-only, never changed
//!  partial/HEX           a blob on its way; the next attempt goes on where it ends
//!  disks/KEY.ext4        root disks; KEY is a digest of the layers and of the options of the disk
//!  refs/images/HEX       a name and the manifest it stands for: {"name": …, "target": …}
//!  refs/disks/HEX        a name, for instance a template's, and the disk it needs
//!  locks/…               held by whoever fetches a blob or makes a disk, so that the work is done once
//!  tmp/…                 a session's own; without a session everything in it is left over
//! ```
//!
//! Invariant: what has its final name is whole and on the disk (fsync, rename, fsync of the directory), whenever the process is
//! killed or the file system is full; names that are not final mean nothing. Garbage is what no name leads to, and is only
//! collected while there is no session.

mod collect;
mod disk;
mod image;
mod incoming;
mod reference;
mod step;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::build::BuildError;
use crate::config::ConfigError;
use crate::digest::Digest;
use crate::limits::Limits;
use crate::manifest::ManifestError;

pub use collect::Collected;
pub use disk::Disk;
pub use image::{Image, LayerRef};
pub(crate) use incoming::{Incoming, TakeError};
pub use reference::{Named, RefKind};
pub use step::Steps;

/// The store of a directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
    steps: Steps,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The host refused.
    #[error("{what} {} failed", path.display())]
    Io {
        /// What was done, for instance `writing`.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Content is not what it was to be.
    #[error(
        "{found} came where {wanted} was due: it was changed on its way or where it lies; what came is thrown away"
    )]
    Digest {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// Content has another size.
    #[error("{digest} has to have {wanted} bytes, and {found} came; what came is thrown away")]
    Size {
        /// Of what.
        digest: Digest,
        /// By the manifest.
        wanted: u64,
        /// What came.
        found: u64,
    },
    /// More than the operator allows.
    #[error(
        "{bytes} bytes in one layer are more than {limit}: raise the limit if this image is to be trusted"
    )]
    Limit {
        /// What it has.
        bytes: u64,
        /// What it may have.
        limit: u64,
    },
    /// There is no such content.
    #[error("{digest} is not in the store: pull the image again")]
    Missing {
        /// Of what.
        digest: Digest,
    },
    /// There is no such name.
    #[error("nothing is called '{name}' in the store")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// A name's file says nothing.
    #[error("{} is no name of the store: remove it if it was made by somebody else", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest was refused.
    #[error("the image cannot be used")]
    Manifest(#[from] ManifestError),
    /// A configuration was refused.
    #[error("the image cannot be used")]
    Config(#[from] ConfigError),
    /// No disk can be made.
    #[error("no root disk of the image")]
    Build(#[from] BuildError),
    /// Somebody works in the store.
    #[error("images are being fetched or made just now: try again when that is done")]
    Busy,
}

/// The right to add to a store, during which nothing is collected.
#[derive(Debug)]
pub struct Session {
    store: Store,
    scratch: tempfile::TempDir,
    /// Holds the lock.
    _shared: File,
}

const PARTS: [&str; 7] = [
    "blobs",
    "partial",
    "disks",
    "refs/images",
    "refs/disks",
    "locks",
    "tmp",
];

impl Store {
    /// The store in `root`, which is made. What sessions left that were killed is removed, unless there are others now.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, StoreError> {
        Self::with_steps(root, limits, Steps::default())
    }

    /// As [`Self::open`]; each change of the directory is announced first, and one that is refused fails as if the host had
    /// refused it. For tests of what a failure leaves behind.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn with_steps(root: &Path, limits: Limits, steps: Steps) -> Result<Self, StoreError> {
        let store = Self {
            root: root.to_owned(),
            limits,
            steps,
        };
        for part in PARTS {
            let path = root.join(part);
            store.step("making", &path, || fs::create_dir_all(&path))?;
        }
        if let Some(_exclusive) = store.exclusively()? {
            store.sweep()?;
        }
        Ok(store)
    }

    /// How much an image may ask for.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Begins to add; waits for whoever collects garbage.
    ///
    /// # Errors
    /// There is no room for a directory.
    pub fn begin(&self) -> Result<Session, StoreError> {
        let shared = self.lock_file("lock")?;
        let path = self.root.join("lock");
        shared
            .lock_shared()
            .map_err(|source| failed("locking", &path, source))?;
        let tmp = self.root.join("tmp");
        let scratch = self.step("making a directory in", &tmp, || tempfile::tempdir_in(&tmp))?;
        Ok(Session {
            store: self.clone(),
            scratch,
            _shared: shared,
        })
    }

    /// The lock of who collects; none while there are sessions.
    fn exclusively(&self) -> Result<Option<File>, StoreError> {
        let lock = self.lock_file("lock")?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => {
                Err(failed("locking", &self.root.join("lock"), source))
            }
        }
    }

    fn lock_file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.root.join(name);
        let mut options = File::options();
        let options = options.create(true).truncate(false).write(true);
        self.step("making", &path, || options.open(&path))
    }

    /// What nobody works at any more: everything in `tmp`, as the caller has the lock.
    fn sweep(&self) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        for path in files(&tmp)? {
            self.step("removing", &path, || fs::remove_dir_all(&path))?;
        }
        Ok(())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    /// Makes one change of the directory.
    fn step<T>(
        &self,
        what: &'static str,
        path: &Path,
        change: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StoreError> {
        self.steps
            .announce(what, path)
            .and_then(|()| change())
            .map_err(|source| failed(what, path, source))
    }

    /// Gives a whole file its final name.
    fn settle(&self, file: &File, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.step("syncing", from, || file.sync_all())?;
        self.step("renaming", from, || fs::rename(from, to))?;
        self.sync_directory(to)
    }

    /// A name is there after a power cut once its directory is written.
    fn sync_directory(&self, of: &Path) -> Result<(), StoreError> {
        let directory = of.parent().unwrap_or(&self.root);
        self.step("syncing", directory, || File::open(directory)?.sync_all())
    }
}

impl Session {
    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A directory of this session's own.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Waits until nobody else works at `name`.
    fn lock(&self, name: &str) -> Result<File, StoreError> {
        let name = format!("locks/{name}");
        let file = self.store.lock_file(&name)?;
        let path = self.store.root.join(&name);
        file.lock()
            .map_err(|source| failed("locking", &path, source))?;
        Ok(file)
    }
}

/// The paths in a directory, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = |source| failed("reading", directory, source);
    let entries = fs::read_dir(directory).map_err(read)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>().map_err(read)?;
    paths.sort();
    Ok(paths)
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
