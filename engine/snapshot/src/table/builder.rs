//! Making a table.
//!
//! Invariant: what a [`Builder`] finishes, [`super::Table::parse`] takes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::{ENTRY, Entry, FILES_MAX, HEADER, MAGIC, RawEntry, VERSION, WORKING_SET};
use crate::chunk::{CHUNK, chunks_of};

/// What was asked for is no table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    /// No size of RAM.
    #[error("{0} bytes are no RAM: it is whole chunks of {CHUNK} bytes")]
    Ram(u64),
    /// More files than a table may name.
    #[error("{0} files are more than a table names, {FILES_MAX}")]
    Files(u32),
    /// No such chunk.
    #[error("RAM has no chunk {0}")]
    Chunk(u32),
    /// The entry cannot be.
    #[error("chunk {chunk} {what}")]
    Entry {
        /// Its number.
        chunk: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A chunk is in the working set twice.
    #[error("the working set has chunk {0} twice")]
    Twice(u32),
}

/// A table in the making: all chunks are zero until they are set.
#[derive(Clone, Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    chunks: u32,
    files: u32,
    order: Vec<u32>,
}

impl Builder {
    /// A table of that much RAM, whose chunks are in `files` files.
    ///
    /// # Errors
    /// It is no RAM, or too many files.
    pub fn new(ram_bytes: u64, files: u32) -> Result<Self, BuildError> {
        let chunks = chunks_of(ram_bytes).ok_or(BuildError::Ram(ram_bytes))?;
        if files > FILES_MAX {
            return Err(BuildError::Files(files));
        }
        let mut bytes = vec![0; HEADER + chunks as usize * ENTRY];
        let fields: [(usize, &[u8]); 6] = [
            (0, MAGIC),
            (8, &VERSION.to_le_bytes()),
            (12, &(CHUNK as u32).to_le_bytes()),
            (16, &ram_bytes.to_le_bytes()),
            (24, &u64::from(chunks).to_le_bytes()),
            (32, &files.to_le_bytes()),
        ];
        for (at, field) in fields {
            for (to, from) in bytes.iter_mut().skip(at).zip(field) {
                *to = *from;
            }
        }
        Ok(Self {
            bytes,
            chunks,
            files,
            order: Vec::new(),
        })
    }

    /// Says where a chunk is. Whether it is of the working set is said by [`Self::working_set`] alone.
    ///
    /// # Errors
    /// RAM has no such chunk, or nothing can be there.
    pub fn set(&mut self, chunk: u32, entry: Entry) -> Result<(), BuildError> {
        let files = self.files;
        let to = self.entry(chunk)?;
        let mut raw = RawEntry::of(entry);
        raw.flags = RawEntry::read(to).flags;
        if let Some(what) = raw.wrong(files) {
            return Err(BuildError::Entry { chunk, what });
        }
        raw.write(to);
        Ok(())
    }

    /// Puts a chunk at the end of what is fetched first.
    ///
    /// # Errors
    /// RAM has no such chunk, or it is there already.
    pub fn working_set(&mut self, chunk: u32) -> Result<(), BuildError> {
        let to = self.entry(chunk)?;
        let mut raw = RawEntry::read(to);
        if raw.flags & WORKING_SET != 0 {
            return Err(BuildError::Twice(chunk));
        }
        raw.flags |= WORKING_SET;
        raw.write(to);
        self.order.push(chunk);
        Ok(())
    }

    /// The bytes of the table.
    pub fn finish(mut self) -> Vec<u8> {
        let order = self.order.iter().flat_map(|chunk| chunk.to_le_bytes());
        self.bytes.extend(order);
        self.bytes
    }

    fn entry(&mut self, chunk: u32) -> Result<&mut [u8; ENTRY], BuildError> {
        let missing = BuildError::Chunk(chunk);
        if chunk >= self.chunks {
            return Err(missing);
        }
        let at = HEADER + chunk as usize * ENTRY;
        let rest = self.bytes.get_mut(at..).unwrap_or_default();
        rest.first_chunk_mut().ok_or(missing)
    }
}

/// The table cannot be put into a memfd.
#[derive(Debug, thiserror::Error)]
#[error("no sealed memfd for {bytes} bytes: free memory on the host")]
pub struct SealError {
    /// Bytes of the table.
    pub bytes: usize,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// A memfd that has these bytes and can neither be written nor change its size (man 2 memfd_create).
///
/// # Errors
/// The kernel has no memory for it.
pub fn sealed_memfd(bytes: &[u8]) -> Result<OwnedFd, SealError> {
    let make = || -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
        let mut file = File::from(memfd_create(c"brood-table", flags)?);
        file.write_all(bytes)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(file.into())
    };
    make().map_err(|source| SealError {
        bytes: bytes.len(),
        source,
    })
}
