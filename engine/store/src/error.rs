//! What goes wrong with the database, and what to do about it.
//!
//! Invariant: an error says whether what was asked is kept. After a [`StoreError`] of a write nothing of it is.

use std::path::PathBuf;
use std::{io, sync::Arc};

use rusqlite::ErrorCode;

/// A state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made or written.
    #[error("cannot write {}: give this user write access to it, or name another state directory", path.display())]
    Directory {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "{} is in use by {holder}: stop that one, or name another state directory", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who, as far as it says.
        holder: String,
    },
    /// The schema is of a newer program.
    #[error(
        "{} has schema version {found}, and this program knows up to {known}: start the newer program again, \
         or restore a copy made before it ran", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// It is no database of this engine.
    #[error(
        "{} is a database of another program: name another state directory", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged.
    #[error(
        "{} is damaged ({detail}): nothing is served from it. Copy the state directory away, then restore a copy, \
         or let `sqlite3 store.db .recover` save what it can", path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// SQLite refuses.
    #[error("cannot open {}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// The database did not do what it was asked; of a write nothing is kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space.
    #[error(
        "the disk of the state directory is full, or the database has reached its limit: free space and try again; \
         nothing of this was kept"
    )]
    Full,
    /// The file is damaged.
    #[error(
        "the database is damaged ({0}): stop the engine and restore a copy of the state directory"
    )]
    Damaged(String),
    /// Input or output failed.
    #[error(
        "the database cannot be read or written ({0}): look at the disk of the state directory"
    )]
    Disk(String),
    /// A row that must not be there twice is there.
    #[error("a row is there already ({0})")]
    Exists(String),
    /// What is in a column is not what this program writes there.
    #[error("column {column} holds '{found}', which this program does not know")]
    Unknown {
        /// Which.
        column: &'static str,
        /// What it holds.
        found: String,
    },
    /// Nobody writes any more.
    #[error("the store is closed")]
    Closed,
    /// Anything else that SQLite refuses.
    #[error("the database refuses: {0}")]
    Refused(Arc<rusqlite::Error>),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
                Self::Disk(error.to_string())
            }
            Some(ErrorCode::ConstraintViolation) if is_unique(&error) => {
                Self::Exists(error.to_string())
            }
            _ => Self::Refused(Arc::new(error)),
        }
    }
}

fn is_unique(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        extended,
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
    )
}
