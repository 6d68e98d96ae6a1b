//! Why a snapshot is not written or not used.
//!
//! Invariant: whoever is told can tell damage from a host that does not fit, and both from a disk that is full; what each
//! says comes from whoever found it.

use std::error::Error;
use std::io;

use brood_cell::CellError;
use brood_snapshot::manifest::ManifestError;
use brood_snapshot::{
    ExportError, FileError, ImportError, OpenError, PlanError, ReadError, RemoveError, SaveError,
};

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Bytes are missing or are not those that were written.
    #[error("{0}")]
    Damaged(String),
    /// This host or this engine cannot go on with it.
    #[error("{0}")]
    Unfit(String),
    /// The disk is full.
    #[error("{0}")]
    NoRoom(String),
    /// Something else on the host went wrong.
    #[error("{0}")]
    Failed(String),
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let words: Vec<_> = all(error).map(ToString::to_string).collect();
    words.join(": ")
}

/// It and its causes.
fn all<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| {
        (*cause).source()
    })
}

/// Whether a full disk is at the bottom of it.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    all(error).any(|cause| matches!(cause.downcast_ref(), Some(FileError::Full { .. })))
}

/// Of an error that is no matter of the bytes.
fn of_the_disk(error: &(dyn Error + 'static)) -> SnapshotError {
    let words = chain(error);
    match is_full(error) {
        true => SnapshotError::NoRoom(words),
        false => SnapshotError::Failed(words),
    }
}

fn is_of_another_version(error: &ManifestError) -> bool {
    matches!(error, ManifestError::Newer(_) | ManifestError::Older(_))
}

/// Whether a file is not there.
fn is_absent(error: &FileError) -> bool {
    matches!(error, FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

impl From<ReadError> for SnapshotError {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Manifest { source, .. } if is_of_another_version(source) => {
                Self::Unfit(chain(&error))
            }
            ReadError::File(file) if !is_absent(file) => of_the_disk(&error),
            _ => Self::Damaged(chain(&error)),
        }
    }
}

impl From<PlanError> for SnapshotError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Read(error) => error.into(),
            PlanError::Seal(_) | PlanError::Descriptor { .. } => of_the_disk(&error),
            PlanError::Missing { .. } | PlanError::Short { .. } => Self::Damaged(chain(&error)),
        }
    }
}

impl From<SaveError> for SnapshotError {
    fn from(error: SaveError) -> Self {
        of_the_disk(&error)
    }
}

impl From<RemoveError> for SnapshotError {
    fn from(error: RemoveError) -> Self {
        of_the_disk(&error)
    }
}

impl From<OpenError> for SnapshotError {
    fn from(error: OpenError) -> Self {
        of_the_disk(&error)
    }
}

impl From<ExportError> for SnapshotError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Read(error) => error.into(),
            ExportError::File(_) | ExportError::Write(_) => of_the_disk(&error),
            _ => Self::Damaged(chain(&error)),
        }
    }
}

impl From<ImportError> for SnapshotError {
    fn from(error: ImportError) -> Self {
        match &error {
            ImportError::Version(_) | ImportError::Ram { .. } => Self::Unfit(chain(&error)),
            ImportError::Manifest(source) if is_of_another_version(source) => {
                Self::Unfit(chain(&error))
            }
            ImportError::Save(_) => of_the_disk(&error),
            _ => Self::Damaged(chain(&error)),
        }
    }
}

impl From<CellError> for SnapshotError {
    fn from(error: CellError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
