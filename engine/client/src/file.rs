//! Files of a machine's guest.
//!
//! Invariant: contents go through as they come, a piece at a time, whatever their length.

use std::io::Read;

use brood_api::OperationId as Id;
use brood_api::file::{Directory, FileStat, FileWritten, RemoveQuery};
use brood_units::MachineId;

use crate::ask::Ask;
use crate::{Client, ClientError};

impl Client {
    /// What is in a file of a machine. One that breaks off before its end is an error of the reader.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn read_file(&self, id: MachineId, path: &str) -> Result<impl Read + use<>, ClientError> {
        let ask = Ask::to(Id::ReadFile).at(id).at(below_root(path)?);
        let response = self.send(ask.accept("*/*"))?;
        Ok(response.into_body().into_reader())
    }

    /// Writes a file of a machine; it is there whole or as it was. Without permission bits it keeps its own.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn write_file(
        &self,
        id: MachineId,
        path: &str,
        mode: Option<u32>,
        bytes: impl Read,
    ) -> Result<FileWritten, ClientError> {
        let ask = Ask::to(Id::WriteFile).at(id).at(below_root(path)?);
        let ask = ask.query("mode", mode.map(|mode| format!("{mode:04o}")));
        let mut response = self.send_bytes(&ask, bytes)?;
        self.read_json(&mut response)
    }

    /// Removes a path of a machine.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn remove_file(
        &self,
        id: MachineId,
        path: &str,
        query: &RemoveQuery,
    ) -> Result<(), ClientError> {
        let ask = Ask::to(Id::RemoveFile).at(id).at(below_root(path)?);
        self.done(ask.query("recursive", query.recursive))
    }

    /// What is in a directory of a machine.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_directory(&self, id: MachineId, path: &str) -> Result<Directory, ClientError> {
        let ask = Ask::to(Id::ListDirectory).at(id);
        self.call(ask.query("path", Some(path)))
    }

    /// What a path of a machine is.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn stat_file(&self, id: MachineId, path: &str) -> Result<FileStat, ClientError> {
        let ask = Ask::to(Id::StatFile).at(id);
        self.call(ask.query("path", Some(path)))
    }
}

/// A path as the last parameter of an address: without the `/` that it begins with.
fn below_root(path: &str) -> Result<&str, ClientError> {
    path.strip_prefix('/').ok_or_else(|| ClientError::NotSent {
        why: format!("the guest's path '{}' is not absolute", path.escape_debug()),
    })
}
