//! Snapshots, and machines that sleep in them.
//!
//! Invariant: exported bytes go through as they come, a piece at a time, whatever their length.

use std::io::Read;

use brood_api::fork::{ForkAnswer, ForkSpec};
use brood_api::machine::Machine;
use brood_api::snapshot::{ImportQuery, Snapshot, SnapshotSpec};
use brood_api::{ListQuery, OperationId as Id, Page};
use brood_units::MachineId;

use crate::ask::Ask;
use crate::{Client, ClientError};

impl Client {
    /// Takes a snapshot of a running machine; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn create_snapshot(
        &self,
        id: MachineId,
        spec: &SnapshotSpec,
        once: Option<&str>,
    ) -> Result<Snapshot, ClientError> {
        self.call(Ask::to(Id::CreateSnapshot).at(id).json(spec)?.once(once))
    }

    /// Takes a snapshot of a checkpoint; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn snapshot_checkpoint(
        &self,
        id: MachineId,
        spec: &SnapshotSpec,
        once: Option<&str>,
    ) -> Result<Snapshot, ClientError> {
        self.call(
            Ask::to(Id::SnapshotCheckpoint)
                .at(id)
                .json(spec)?
                .once(once),
        )
    }

    /// A page of the tenant's snapshots.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_snapshots(&self, query: &ListQuery) -> Result<Page<Snapshot>, ClientError> {
        let ask = Ask::to(Id::ListSnapshots);
        self.call(
            ask.query("limit", query.limit)
                .query("cursor", query.cursor),
        )
    }

    /// A snapshot, by its name or its id.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_snapshot(&self, which: &str) -> Result<Snapshot, ClientError> {
        self.call(Ask::to(Id::ShowSnapshot).at(which))
    }

    /// Removes a snapshot; machines that were made of it live on.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn remove_snapshot(&self, which: &str) -> Result<(), ClientError> {
        self.done(Ask::to(Id::RemoveSnapshot).at(which))
    }

    /// Makes machines of a snapshot; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn fork_snapshot(
        &self,
        which: &str,
        spec: &ForkSpec,
        once: Option<&str>,
    ) -> Result<ForkAnswer, ClientError> {
        self.call(Ask::to(Id::ForkSnapshot).at(which).json(spec)?.once(once))
    }

    /// A snapshot as bytes. One that breaks off before its end is an error of the reader.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn export_snapshot(&self, which: &str) -> Result<impl Read + use<>, ClientError> {
        let response = self.send(Ask::to(Id::ExportSnapshot).at(which).accept("*/*"))?;
        Ok(response.into_body().into_reader())
    }

    /// Takes a snapshot that was exported; it is there whole or not at all.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn import_snapshot(
        &self,
        query: &ImportQuery,
        bytes: impl Read,
    ) -> Result<Snapshot, ClientError> {
        let ask = Ask::to(Id::ImportSnapshot).query("name", query.name.as_deref());
        let mut response = self.send_bytes(&ask, bytes)?;
        self.read_json(&mut response)
    }

    /// Has a machine sleep on disk.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn hibernate_machine(&self, id: MachineId) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::HibernateMachine).at(id))
    }

    /// Has a hibernated machine go on.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn wake_machine(&self, id: MachineId) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::WakeMachine).at(id))
    }
}
