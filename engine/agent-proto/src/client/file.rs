//! Files of the guest from the host. Invariant: what the guest sends never exceeds what the caller allows.

use std::io::{Read, Write};
use std::time::Duration;

use super::{Client, ClientError};
use crate::blob::Blob;
use crate::file::{DirEntry, DirRest, FileStat, MkdirParents, ReadSpec, RemoveDepth, WriteSpec};
use crate::frame::CHUNK;
use crate::message::{Reply, Request};

impl Client {
    /// Copies a file of the guest to `sink`, at most `most` bytes, and returns how many it were.
    ///
    /// # Errors
    /// [`crate::AgentError::File`]; [`ClientError::TooMuch`], [`ClientError::Local`] (both end the conversation).
    pub fn read_file(
        &mut self,
        spec: &ReadSpec,
        sink: &mut impl Write,
        most: u64,
    ) -> Result<u64, ClientError> {
        let limit = spec.len.unwrap_or(most).min(most);
        self.send(&Request::FileRead(spec.clone()))?;
        let mut total: u64 = 0;
        loop {
            match self.receive(Duration::ZERO)? {
                Reply::Chunk(Blob(bytes)) => {
                    total = total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    if total > limit {
                        self.wire.break_off();
                        return Err(ClientError::TooMuch {
                            what: "bytes of a file",
                            limit,
                        });
                    }
                    if let Err(error) = sink.write_all(&bytes) {
                        self.wire.break_off();
                        return Err(ClientError::Local(error));
                    }
                }
                Reply::FileEnd { .. } => return Ok(total),
                other => return Err(self.unexpected("Chunk", &other)),
            }
        }
    }

    /// The contents of the file at `path`, at most `most` bytes.
    ///
    /// # Errors
    /// Those of [`Self::read_file`].
    pub fn read_file_to_vec(&mut self, path: &str, most: u64) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        let spec = ReadSpec {
            path: path.to_owned(),
            offset: 0,
            len: None,
        };
        self.read_file(&spec, &mut bytes, most)?;
        Ok(bytes)
    }

    /// Copies `source` to a file of the guest and returns how many bytes it were.
    ///
    /// # Errors
    /// [`crate::AgentError::File`]; [`ClientError::Local`] if `source` fails (ends the conversation; the guest drops
    /// a file that was to be renamed).
    pub fn write_file(
        &mut self,
        spec: &WriteSpec,
        source: &mut impl Read,
    ) -> Result<u64, ClientError> {
        match self.call(&Request::FileWrite(spec.clone()), Duration::ZERO)? {
            Reply::Ready => {}
            other => return Err(self.unexpected("Ready", &other)),
        }
        loop {
            let mut bytes = Vec::with_capacity(CHUNK);
            let limit = u64::try_from(CHUNK).unwrap_or(u64::MAX);
            if let Err(error) = source.by_ref().take(limit).read_to_end(&mut bytes) {
                self.wire.break_off();
                return Err(ClientError::Local(error));
            }
            if bytes.is_empty() {
                break;
            }
            self.send(&Request::Chunk(Blob(bytes)))?;
        }
        match self.call(&Request::Finish, Duration::ZERO)? {
            Reply::Written { bytes } => Ok(bytes),
            other => Err(self.unexpected("Written", &other)),
        }
    }

    /// The entries of a directory, at most `most`.
    ///
    /// # Errors
    /// [`crate::AgentError::File`]; [`ClientError::TooMuch`] (ends the conversation).
    pub fn list(&mut self, path: &str, most: usize) -> Result<Vec<DirEntry>, ClientError> {
        self.send(&Request::List {
            path: path.to_owned(),
        })?;
        let mut entries = Vec::new();
        loop {
            match self.receive(Duration::ZERO)? {
                Reply::DirPage(page) => {
                    if entries.len().saturating_add(page.entries.len()) > most {
                        self.wire.break_off();
                        return Err(ClientError::TooMuch {
                            what: "entries of a directory",
                            limit: u64::try_from(most).unwrap_or(u64::MAX),
                        });
                    }
                    let came = page.entries.len();
                    entries.extend(page.entries);
                    match page.rest {
                        DirRest::End => return Ok(entries),
                        // An empty page that promises more would let the guest keep us here.
                        DirRest::More if came == 0 => {
                            self.wire.break_off();
                            return Err(ClientError::Unexpected {
                                wanted: "entries",
                                got: "an empty page",
                            });
                        }
                        DirRest::More => {}
                    }
                }
                other => return Err(self.unexpected("DirPage", &other)),
            }
        }
    }

    /// Metadata of a path; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`crate::AgentError::File`].
    pub fn stat(&mut self, path: &str) -> Result<FileStat, ClientError> {
        let request = Request::Stat {
            path: path.to_owned(),
        };
        match self.call(&request, Duration::ZERO)? {
            Reply::FileStat(stat) => Ok(stat),
            other => Err(self.unexpected("FileStat", &other)),
        }
    }

    /// Removes a file or a directory.
    ///
    /// # Errors
    /// [`crate::AgentError::File`].
    pub fn remove_path(&mut self, path: &str, depth: RemoveDepth) -> Result<(), ClientError> {
        self.call_done(&Request::RemovePath {
            path: path.to_owned(),
            depth,
        })
    }

    /// Makes a directory with permission bits `mode`.
    ///
    /// # Errors
    /// [`crate::AgentError::File`].
    pub fn mkdir(
        &mut self,
        path: &str,
        mode: u32,
        parents: MkdirParents,
    ) -> Result<(), ClientError> {
        self.call_done(&Request::Mkdir {
            path: path.to_owned(),
            mode,
            parents,
        })
    }
}
