//! Snapshots that leave as bytes and come as bytes.
//!
//! ```text
//!  export:  files ─► thread ─ chunks ─► caller          a caller who reads slowly holds the thread back, and nothing else
//!  import:  caller ─ chunks ─► thread ─► files ─ checked, synced ─► row, event (one commit)
//! ```
//!
//! Invariant: an import is there whole or not at all: a caller who goes, and bytes that are not what was exported, leave no
//! file and no row. No snapshot is ever whole in memory here.

use std::io::{self, Write as _};
use std::sync::mpsc;

use brood_crash_point::crash_point;
use brood_store::{StoreError, Write};
use brood_units::{IntentId, MachineId};
use tokio::sync::mpsc as channel;

use super::super::file::{Sink, Source};
use super::super::intent::{Begun, Intention, close};
use super::super::{Caller, Engine, EngineError, Scope, SnapshotAnswer, report};
use super::Gone;
use super::meta::{Meta, Owner};
use super::take::taken;
use crate::identity;
use crate::snapshot::{Incoming, Key, SnapshotError};

/// Chunks that wait between a thread and a caller.
const WAITING: usize = 4;
/// Bytes of a chunk on its way out.
const CHUNK: usize = 256 << 10;

/// A snapshot on its way to a caller.
pub struct SnapshotBytes {
    first: Option<Vec<u8>>,
    rest: channel::Receiver<Result<Vec<u8>, EngineError>>,
}

impl SnapshotBytes {
    /// What comes next; none at the end.
    ///
    /// # Errors
    /// The rest cannot be read.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, EngineError>> {
        match self.first.take() {
            Some(chunk) => Some(Ok(chunk)),
            None => self.rest.recv().await,
        }
    }
}

/// The caller's end of a snapshot that is being imported.
pub struct SnapshotSink {
    chunks: channel::Sender<Vec<u8>>,
    written: tokio::task::JoinHandle<Result<SnapshotAnswer, EngineError>>,
    whole: mpsc::Sender<()>,
}

impl SnapshotSink {
    /// Adds a piece. Nothing is to be sent any more once this says that nobody listens; [`SnapshotSink::finish`] says why.
    pub async fn send(&self, chunk: Vec<u8>) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }

    /// That was all. Where this is not called, nothing is imported.
    ///
    /// # Errors
    /// It is damaged, there is no room for it, or its name is taken.
    pub async fn finish(self) -> Result<SnapshotAnswer, EngineError> {
        // Where the thread has given up already, its reason comes below.
        self.whole.send(()).ok();
        drop(self.chunks);
        let written = self.written.await;
        written.unwrap_or_else(|error| Err(EngineError::Failed(error.to_string())))
    }
}

impl Engine {
    /// Sends a snapshot as bytes that [`Engine::import_snapshot`] takes, here or elsewhere. It holds the machine's memory, with
    /// whatever secrets are in it.
    ///
    /// # Errors
    /// There is none, it is damaged, or the caller may not.
    pub async fn export_snapshot(
        &self,
        caller: &Caller,
        which: &str,
    ) -> Result<SnapshotBytes, EngineError> {
        caller.may(Scope::Write)?;
        let row = self.snapshot_row(caller, which)?;
        let (chunks, mut rest) = channel::channel(WAITING);
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut sink = io::BufWriter::with_capacity(CHUNK, Sink(chunks.clone()));
            let key = Key {
                tenant: &row.tenant,
                id: row.id,
            };
            let sent = engine.inner.host.snapshots().export(key, &mut sink);
            let flushed = sink.flush().map_err(SnapshotError::from);
            if let Err(error) = sent.and(flushed) {
                // A caller who has gone does not want to know.
                drop(chunks.blocking_send(Err(error.into())));
            }
        });
        // Whether it can be read shows with the first of it.
        let first = rest.recv().await.transpose()?;
        Ok(SnapshotBytes { first, rest })
    }

    /// Begins to take a snapshot that was exported.
    ///
    /// # Errors
    /// The name cannot be one or is taken, or the caller may not.
    pub async fn import_snapshot(
        &self,
        caller: &Caller,
        name: Option<String>,
    ) -> Result<SnapshotSink, EngineError> {
        caller.may(Scope::Write)?;
        self.check_snapshot_name(caller.tenant(), name.as_deref())?;
        let id = identity::machine_id().map_err(|error| EngineError::failed(&error))?;
        let intention = Intention {
            operation: "import-snapshot",
            subject: id,
            body: serde_json::json!({}),
            holds: Vec::new(),
            units: 0,
        };
        let intent = match self.begin::<()>(caller, intention, None).await? {
            Begun::New(intent) => intent,
            Begun::Replayed(()) => {
                return Err(EngineError::Failed("an intent was lost".to_owned()));
            }
        };
        let (chunks, came) = channel::channel(WAITING);
        let (whole, is_whole) = mpsc::channel();
        let import = Import {
            engine: self.clone(),
            tenant: caller.tenant().to_owned(),
            name,
            id,
            intent,
        };
        let written = tokio::task::spawn_blocking(move || {
            let done = import.take(Source::new(came, is_whole));
            import.end(done)
        });
        Ok(SnapshotSink {
            chunks,
            written,
            whole,
        })
    }
}

struct Import {
    engine: Engine,
    tenant: String,
    name: Option<String>,
    id: MachineId,
    intent: IntentId,
}

impl Import {
    fn take(&self, source: Source) -> Result<SnapshotAnswer, EngineError> {
        let snapshots = self.engine.inner.host.snapshots();
        let incoming = Incoming::begin(source)?;
        // What it is, is looked at before it is taken.
        let meta = Meta::read(&incoming)?;
        let key = Key {
            tenant: &self.tenant,
            id: self.id,
        };
        let import = || snapshots.import(key, incoming);
        let bytes = crash_point("snapshot: import", import)?;
        let owner = Owner {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            sleeper: None,
        };
        let row = meta.row(self.id, owner, bytes)?;
        let answer = SnapshotAnswer::from(row.clone());
        let (intent, kept) = (self.intent, answer.clone());
        let write = move |write: &mut Write<'_>| {
            write.add_snapshot(&row)?;
            let data = serde_json::json!({ "machine": row.machine, "name": row.name, "bytes": row.bytes, "imported": true });
            report(write, &row.tenant, "snapshot.created", row.id, &data)?;
            close(write, intent, &kept)
        };
        match (self.engine.store().write(write).wait(), &self.name) {
            (Ok(()), _) => Ok(answer),
            (Err(EngineError::Store(StoreError::Exists(_))), Some(name)) => {
                Err(taken(&self.tenant, name))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Of one that came to nothing nothing is left.
    fn end(self, done: Result<SnapshotAnswer, EngineError>) -> Result<SnapshotAnswer, EngineError> {
        if let Err(error) = &done {
            self.engine.discard(Some(Gone {
                tenant: self.tenant,
                id: self.id,
            }));
            self.engine.give_up_now(self.intent, error.to_string())?;
        }
        done
    }
}
