//! A state directory, opened.
//!
//! Invariant: a [`Store`] exists only over a directory that is this process's alone and a database that was checked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

use crate::reader::Readers;
use crate::schema::{STEPS, SchemaError, migrate};
use crate::writer::{Outlives, Writer};
use crate::{OpenError, Pending, Read, StoreError, StoreMetrics, Write, lock};

/// What an operator sets.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// The most pages of 4 KiB that the database may have; none for as many as the disk holds.
    pub most_pages: Option<u32>,
}

/// The database. Clones are the same one; the last one closes it, once everything that was asked is done.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // The order is that of their ends: nobody else may come in before the writer is done.
    writer: Writer,
    readers: Readers,
    _lock: File,
}

impl Store {
    /// Opens the database in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`OpenError`]: each says what to do.
    pub fn open(directory: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        fs::create_dir_all(directory).map_err(|source| OpenError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let lock = lock::take(directory)?;
        let path = directory.join("store.db");
        let connection = connect(&path, options)?;
        let failed = |source: StoreError| OpenError::Database {
            path: path.clone(),
            source,
        };
        let writer = Writer::start(connection).map_err(failed)?;
        let readers = Readers::new(path.clone());
        let inner = Inner {
            writer,
            readers,
            _lock: lock,
        };
        let inner = Arc::new(inner);
        Ok(Self { inner })
    }

    /// Writes; the answer comes once it is durable. Where `job` fails, nothing of it is kept.
    pub fn write<T, E>(
        &self,
        job: impl FnOnce(&mut Write<'_>) -> Result<T, E> + Send + 'static,
    ) -> Pending<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.write(Outlives::Power, job)
    }

    /// As [`Store::write`], for what says nothing once the host has lost its power: the answer comes once it is committed,
    /// and the end of this process, however violent, does not undo it.
    pub fn write_for_process<T, E>(
        &self,
        job: impl FnOnce(&mut Write<'_>) -> Result<T, E> + Send + 'static,
    ) -> Pending<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.write(Outlives::Process, job)
    }

    /// Looks at what is committed.
    ///
    /// # Errors
    /// Those of `look`, and that the database cannot be read.
    pub fn read<T, E: From<StoreError>>(
        &self,
        look: impl FnOnce(&Read<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.inner.readers.read(look)
    }

    /// What the writer counts.
    pub fn metrics(&self) -> &StoreMetrics {
        self.inner.writer.metrics()
    }

    /// Bytes of the database and of its log; what cannot be looked at counts nothing.
    pub fn file_bytes(&self) -> u64 {
        let path = self.inner.readers.path();
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        [path, Path::new(&log)]
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    /// The number of the last event that is committed; it changes after each commit that had one.
    pub fn last_event(&self) -> watch::Receiver<i64> {
        self.inner.writer.last_event()
    }
}

fn connect(path: &PathBuf, options: &StoreOptions) -> Result<Connection, OpenError> {
    let damaged = |detail: String| OpenError::Damaged {
        path: path.clone(),
        detail,
    };
    let wrong = |error: StoreError| match error {
        StoreError::Damaged(detail) => damaged(detail),
        source => OpenError::Database {
            path: path.clone(),
            source,
        },
    };
    let failed = |error: rusqlite::Error| wrong(error.into());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    let check = |connection: &Connection| -> rusqlite::Result<String> {
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    let found = check(&connection).map_err(failed)?;
    if found != "ok" {
        return Err(damaged(found));
    }
    migrate(&mut connection, STEPS).map_err(|error| match error {
        SchemaError::Newer { found, known } => OpenError::Newer {
            path: path.clone(),
            found,
            known,
        },
        SchemaError::Foreign => OpenError::Foreign { path: path.clone() },
        SchemaError::Database(error) => wrong(error),
    })?;
    settle(&connection, options).map_err(failed)?;
    Ok(connection)
}

/// A database of another program is left as it is found, so this comes after the schema.
fn settle(connection: &Connection, options: &StoreOptions) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Durable, not only consistent, after a loss of power (sqlite.org, "PRAGMA synchronous").
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if let Some(most) = options.most_pages {
        connection.pragma_update(None, "max_page_count", most)?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}
