//! The manifest: what a snapshot is, and where its memory lies.
//!
//! ```text
//!   0 ┌ magic "BROODSNP" ┬ version u32 ┬ record bytes u32 ┬ packs u32 ┬ zero u32 ┬ table bytes u64 ┬ id, 16 ┬ zeros ┐  64
//!  64 ├ record: postcard of [`Record`]                   ┤
//!     ├ names of packs, 32 bytes each                    ┤
//!     ├ table: the very bytes that a restoring cell gets ┤
//!     └ BLAKE3 of all that is before, 32 bytes           ┘
//! ```
//!
//! Invariant: a [`Manifest`] was checked as a whole: version, checksum, lengths, table. The version is looked at first, as
//! another one may have everything else elsewhere. Only the engine's own files are named in it, by number; labels are
//! words, never paths.

use std::collections::BTreeMap;

use brood_units::{SnapshotId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::pack::{NAME, PackId};
use crate::table::{FILES_MAX, ParseError, Table};

/// The first bytes.
pub const MAGIC: &[u8; 8] = b"BROODSNP";
/// The version written and read here. There is none before it.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 64;
/// Bytes of the checksum at the end.
pub const CHECKSUM: usize = 32;
/// The most bytes of the record.
pub const RECORD_MAX: usize = 1 << 20;
/// The most bytes of the state of a machine without its memory and disks.
pub const STATE_MAX: u64 = 64 << 20;
/// The most disk files of a snapshot: the most layers of a disk and a base.
pub const DISKS_MAX: usize = 4097;

/// What whoever takes a snapshot says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The engine's version.
    pub engine: String,
    /// When the machine stood still, milliseconds since the epoch.
    pub taken: Timestamp,
    /// vCPUs.
    pub vcpus: u32,
    /// The version of the state's encoding, which only the cell knows.
    pub state_version: u32,
    /// What it ran on.
    pub host: Host,
    /// The snapshot that its machine came of, which may be long gone.
    pub parent: Option<SnapshotId>,
    /// Words for people and for the engine: lineage, template, name.
    pub labels: BTreeMap<String, String>,
}

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// What the engine calls it; a word, no path.
    pub label: String,
    /// Its bytes.
    pub bytes: u64,
    /// BLAKE3 of all of them.
    pub digest: [u8; 32],
}

/// Everything of a manifest but memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was said at the save.
    pub meta: Meta,
    /// State of vCPUs, machine and devices.
    pub state: FileRecord,
    /// Disk files, in the order that the state refers to them.
    pub disks: Vec<FileRecord>,
}

/// A manifest that was checked.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// All but memory.
    pub record: Record,
    /// The packs, in the order of the table's files.
    pub packs: Vec<PackId>,
    /// Where each chunk is.
    pub table: Table<Vec<u8>>,
}

/// The bytes are no manifest that this engine reads.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Something else.
    #[error("this is no snapshot: it does not begin with BROODSNP")]
    Magic,
    /// Of a later engine.
    #[error(
        "the snapshot has format {0}, and this engine reads format {VERSION}: restore it with the engine that wrote it, or a \
         newer one"
    )]
    Newer(u32),
    /// Of an earlier engine.
    #[error("the snapshot has format {0}, which this engine, of format {VERSION}, no longer reads")]
    Older(u32),
    /// It ends elsewhere than it says.
    #[error("the manifest has {found} bytes and says {expected}: it is cut off or damaged")]
    Length {
        /// Its bytes.
        found: usize,
        /// What the header says.
        expected: u64,
    },
    /// A length that no snapshot has.
    #[error("the manifest says {what} {found}, more than {most}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much.
        found: u64,
        /// The most.
        most: u64,
    },
    /// A bit is not what was written.
    #[error("the manifest is damaged: its checksum is not that of its bytes")]
    Checksum,
    /// The record does not decode.
    #[error("the manifest's record cannot be read")]
    Record(#[source] postcard::Error),
    /// The table is none.
    #[error("the manifest's table cannot be read")]
    Table(#[from] ParseError),
    /// Table and packs are not of each other.
    #[error("the manifest names {packs} packs, and its table {files} files")]
    Packs {
        /// Names of packs.
        packs: usize,
        /// Files of the table.
        files: u32,
    },
}

/// The lengths in a header.
struct Lengths {
    record: usize,
    packs: usize,
    table: u64,
}

impl Lengths {
    fn total(&self) -> u64 {
        let fixed = HEADER + self.record + self.packs * NAME + CHECKSUM;
        self.table.saturating_add(fixed as u64)
    }
}

/// The most bytes of a manifest whose table has `table` bytes.
pub(crate) const fn most_bytes(table: u64) -> u64 {
    (HEADER + RECORD_MAX + FILES_MAX as usize * NAME + CHECKSUM) as u64 + table
}

impl Manifest {
    /// Checks all of `bytes`.
    ///
    /// # Errors
    /// They are no manifest, one of another version, or damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let lengths = header(bytes)?;
        let found = bytes.len();
        let expected = lengths.total();
        if found as u64 != expected {
            return Err(ManifestError::Length { found, expected });
        }
        let (body, checksum) = bytes.split_at(found - CHECKSUM);
        if blake3::hash(body).as_bytes() != checksum {
            return Err(ManifestError::Checksum);
        }
        let (header, body) = body.split_at(HEADER);
        let (record, body) = body.split_at(lengths.record);
        let (packs, table) = body.split_at(lengths.packs * NAME);
        let mut id = [0; 16];
        id.copy_from_slice(&header[32..48]);
        let record = postcard::from_bytes(record).map_err(ManifestError::Record)?;
        let packs: Vec<_> = packs.as_chunks::<NAME>().0.to_vec();
        let packs: Vec<_> = packs.into_iter().map(PackId::from_bytes).collect();
        let table = Table::parse(table.to_vec())?;
        if table.files() as usize != packs.len() {
            return Err(ManifestError::Packs {
                packs: packs.len(),
                files: table.files(),
            });
        }
        let id = SnapshotId::from_bytes(id);
        let manifest = Self {
            id,
            record,
            packs,
            table,
        };
        manifest.check_limits()?;
        Ok(manifest)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// What was said at the save is longer than a record may be.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check_limits()?;
        let record = postcard::to_stdvec(&self.record).map_err(ManifestError::Record)?;
        within("bytes of record", record.len() as u64, RECORD_MAX as u64)?;
        let table = self.table.as_bytes();
        let mut bytes = vec![0; HEADER];
        let fields: [(usize, &[u8]); 6] = [
            (0, MAGIC),
            (8, &VERSION.to_le_bytes()),
            (12, &(record.len() as u32).to_le_bytes()),
            (16, &(self.packs.len() as u32).to_le_bytes()),
            (24, &(table.len() as u64).to_le_bytes()),
            (32, self.id.as_bytes()),
        ];
        for (at, field) in fields {
            for (to, from) in bytes.iter_mut().skip(at).zip(field) {
                *to = *from;
            }
        }
        bytes.extend(record);
        for pack in &self.packs {
            bytes.extend(pack.as_bytes());
        }
        bytes.extend(table);
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        Ok(bytes)
    }

    fn check_limits(&self) -> Result<(), ManifestError> {
        let disks = self.record.disks.len() as u64;
        within("bytes of state", self.record.state.bytes, STATE_MAX)?;
        within("disk files", disks, DISKS_MAX as u64)?;
        // Lengths of files are signed (man 2 lseek), and their sum is used.
        let each = self.record.disks.iter();
        let all = each.fold(0_u64, |all, disk| all.saturating_add(disk.bytes));
        within("bytes of disks", all, i64::MAX as u64 >> 1)
    }
}

fn header(bytes: &[u8]) -> Result<Lengths, ManifestError> {
    if !bytes.starts_with(MAGIC) {
        return Err(ManifestError::Magic);
    }
    let cut = ManifestError::Length {
        found: bytes.len(),
        expected: HEADER as u64,
    };
    let header = bytes.first_chunk::<HEADER>().ok_or(cut)?;
    let number = |at: usize| {
        let field = header.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u32::from_le_bytes(*field))
    };
    match number(8) {
        VERSION => {}
        older @ ..VERSION => return Err(ManifestError::Older(older)),
        newer => return Err(ManifestError::Newer(newer)),
    }
    let (record, packs) = (number(12), number(16));
    let table = u64::from(number(28)) << 32 | u64::from(number(24));
    within("bytes of record", u64::from(record), RECORD_MAX as u64)?;
    within("packs", u64::from(packs), u64::from(FILES_MAX))?;
    Ok(Lengths {
        record: record as usize,
        packs: packs as usize,
        table,
    })
}

fn within(what: &'static str, found: u64, most: u64) -> Result<(), ManifestError> {
    if found > most {
        return Err(ManifestError::TooMuch { what, found, most });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
