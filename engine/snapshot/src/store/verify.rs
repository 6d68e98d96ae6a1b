//! Reading all of a snapshot.
//!
//! Invariant: every byte that a restore could read is read and hashed, and whatever differs is named by file and place. A
//! chunk that is found damaged is not counted on by later saves.

use std::fs::File;
use std::io;

use brood_units::SnapshotId;

use super::SnapshotStore;
use super::layout::{Laid, laid};
use super::save::FromStart;
use super::snapshot::ReadError;
use crate::chunk::{CHUNK, ChunkName};
use crate::manifest::FileRecord;
use crate::pack::{PackId, read_up_to};

/// How something is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its bytes are others.
    #[error("its bytes are not those that were written")]
    Content,
    /// It ends early.
    #[error("only {found} of {expected} bytes are there")]
    Short {
        /// Bytes that are there.
        found: u64,
        /// Bytes that were written.
        expected: u64,
    },
    /// The disk does not give it.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Something of a snapshot that is damaged.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A chunk of memory.
    #[error("chunk {chunk} of memory, at byte {offset} of packs/{}: {fault}", pack.file_name())]
    Chunk {
        /// Its number in RAM.
        chunk: u32,
        /// The pack it is in.
        pack: PackId,
        /// Where in that.
        offset: u64,
        /// How.
        fault: Fault,
    },
    /// A pack that is not there, or cannot be opened.
    #[error("packs/{} cannot be opened, and {chunks} chunks of memory are in it", pack.file_name())]
    PackMissing {
        /// Which.
        pack: PackId,
        /// Chunks of this snapshot in it.
        chunks: u32,
    },
    /// State or disk.
    #[error("{file}: {fault}")]
    File {
        /// `state`, `disk.0`.
        file: String,
        /// How.
        fault: Fault,
    },
}

impl SnapshotStore {
    /// Reads everything of a snapshot; all that is damaged, nothing if it is whole.
    ///
    /// # Errors
    /// It cannot even be opened: there is none, or its manifest is damaged, or a file is missing or has another length.
    pub fn verify(&self, id: SnapshotId) -> Result<Vec<Damage>, ReadError> {
        let snapshot = self.snapshot(id)?;
        let mut found = Vec::new();
        for (file, handle, record) in snapshot.files() {
            if let Some(fault) = file_fault(handle, record) {
                found.push(Damage::File { file, fault });
            }
        }
        let packs = snapshot.packs().iter();
        let packs: Vec<_> = packs.map(|pack| self.open_pack(*pack).ok()).collect();
        let mut missing = vec![0; packs.len()];
        let mut bytes = vec![0; CHUNK];
        for laid in laid(&snapshot.manifest) {
            let number = snapshot.packs().iter().position(|pack| *pack == laid.pack);
            let number = number.unwrap_or(usize::MAX);
            let Some(Some(pack)) = packs.get(number) else {
                self.distrust(&laid);
                if let Some(chunks) = missing.get_mut(number) {
                    *chunks += 1;
                }
                continue;
            };
            if let Some(fault) = chunk_fault(pack, &laid, &mut bytes) {
                self.distrust(&laid);
                found.push(Damage::Chunk {
                    chunk: laid.chunk,
                    pack: laid.pack,
                    offset: laid.offset,
                    fault,
                });
            }
        }
        let each = snapshot.packs().iter().zip(missing);
        let gone = each.filter(|(_, chunks)| *chunks > 0);
        found.extend(gone.map(|(pack, chunks)| Damage::PackMissing {
            pack: *pack,
            chunks,
        }));
        Ok(found)
    }

    /// Later saves write this chunk again instead of counting on the damaged one.
    fn distrust(&self, laid: &Laid) {
        let mut state = self.state();
        if state.index.get(&laid.name).copied() == laid.place() {
            state.index.remove(&laid.name);
        }
    }
}

fn chunk_fault(pack: &File, laid: &Laid, bytes: &mut [u8]) -> Option<Fault> {
    match read_up_to(pack, laid.offset, bytes) {
        Ok(CHUNK) if ChunkName::of(bytes) == laid.name => None,
        Ok(CHUNK) => Some(Fault::Content),
        Ok(found) => Some(Fault::Short {
            found: found as u64,
            expected: CHUNK as u64,
        }),
        Err(error) => Some(Fault::Unreadable(error)),
    }
}

fn file_fault(file: &File, record: &FileRecord) -> Option<Fault> {
    let mut hasher = blake3::Hasher::new();
    if let Err(error) = hasher.update_reader(FromStart(file, 0)) {
        return Some(Fault::Unreadable(error));
    }
    let (found, expected) = (hasher.count(), record.bytes);
    if found < expected {
        return Some(Fault::Short { found, expected });
    }
    (hasher.finalize().as_bytes() != &record.digest).then_some(Fault::Content)
}
