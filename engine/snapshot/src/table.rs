//! The table: what a restoring cell is told about its RAM, in a sealed memfd beside the descriptors of the packs.
//!
//! ```text
//!   0 ┌ magic "BROODTBL" ┬ version u32 ┬ chunk bytes u32 ┬ RAM bytes u64 ┬ chunks u64 ┬ files u32 ┬ zeros ┐  64 bytes
//!  64 ├ file u32 ┬ flags u32 ┬ offset u64 ┬ BLAKE3, 32 bytes ┤  one entry a chunk of RAM, 48 bytes
//!     ├ ...
//!     └ chunk number u32 ┬ ...   the working set in the order of its fetching, to the end of the table
//! ```
//!
//! All numbers are little-endian. `file` is 1 for the first descriptor that comes along; 0 says that the chunk is all zero,
//! and then the rest of its entry is zero too. Bit 0 of `flags` says that the chunk is in the working set.
//! Invariant: a [`Table`] was checked as a whole, so none of its answers is out of bounds of its RAM or of its files. It
//! must not change afterwards: a mapping wants a file that is sealed.

use crate::chunk::{CHUNK, ChunkName, RAM_MAX, chunks_of};

mod builder;

pub use builder::{BuildError, Builder, SealError, sealed_memfd};

/// The first bytes.
pub const MAGIC: &[u8; 8] = b"BROODTBL";
/// The version written and read here.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 64;
/// Bytes of an entry.
pub const ENTRY: usize = 48;
/// The most files that a table may name.
pub const FILES_MAX: u32 = 4096;

const WORKING_SET: u32 = 1;

/// Where a chunk of RAM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// All of it is zero, and it is nowhere.
    Zero {
        /// Whether it is fetched first.
        working_set: bool,
    },
    /// [`CHUNK`] bytes of a file.
    Stored {
        /// The file's index among the descriptors that come along, from 0.
        file: u32,
        /// Where in it the chunk begins, in bytes.
        offset: u64,
        /// What its bytes hash to.
        name: ChunkName,
        /// Whether it is fetched first.
        working_set: bool,
    },
}

/// The bytes are no table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Not even a header.
    #[error("{0} bytes are too few for the header of a table, {HEADER}")]
    Short(usize),
    /// Something else.
    #[error("this is no table of RAM: it does not begin with BROODTBL")]
    Magic,
    /// Another version.
    #[error("the table has version {0}, and this program reads {VERSION}")]
    Version(u32),
    /// Chunks of another size.
    #[error("the table has chunks of {0} bytes, and this program reads {CHUNK}")]
    ChunkBytes(u32),
    /// No size of RAM, or another count of chunks.
    #[error(
        "{ram_bytes} bytes of RAM in {chunks} chunks: it is whole chunks, at most {RAM_MAX} bytes"
    )]
    Ram {
        /// Bytes of RAM, as it says.
        ram_bytes: u64,
        /// Chunks, as it says.
        chunks: u64,
    },
    /// More files than a table may name.
    #[error("the table names {0} files, more than {FILES_MAX}")]
    Files(u32),
    /// A field that this version does not have.
    #[error("bytes of the header that this version leaves zero are not")]
    Reserved,
    /// The bytes end elsewhere.
    #[error("the table has {found} bytes, and its entries alone take {entries}")]
    Length {
        /// Its bytes.
        found: usize,
        /// Bytes of header and entries.
        entries: u64,
    },
    /// An entry that means nothing.
    #[error("the entry of chunk {chunk} {what}")]
    Entry {
        /// Its number.
        chunk: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The working set and the flags say different things.
    #[error("the working set names chunk {chunk}, which {what}")]
    WorkingSet {
        /// What it names.
        chunk: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Flags say that more is in the working set than is in its order.
    #[error("{flagged} chunks are flagged as of the working set, and it has {ordered}")]
    Flags {
        /// Entries with the flag.
        flagged: usize,
        /// Chunk numbers behind the entries.
        ordered: usize,
    },
}

/// A table that was checked.
#[derive(Clone, Debug)]
pub struct Table<B> {
    bytes: B,
    ram_bytes: u64,
    chunks: u32,
    files: u32,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Checks all of `bytes`: a vector, a slice or a mapping of a sealed file.
    ///
    /// # Errors
    /// They are no table of this version, or say what no RAM is like.
    pub fn parse(bytes: B) -> Result<Self, ParseError> {
        let all = bytes.as_ref();
        let header = all.first_chunk::<HEADER>();
        let header = header.ok_or(ParseError::Short(all.len()))?;
        let (ram_bytes, chunks, files) = parse_header(header)?;
        let entries = HEADER as u64 + u64::from(chunks) * ENTRY as u64;
        let found = all.len();
        let order = usize::try_from(entries)
            .ok()
            .and_then(|entries| all.get(entries..))
            .map(<[u8]>::len)
            .filter(|bytes| bytes.is_multiple_of(4))
            .ok_or(ParseError::Length { found, entries })?;
        let table = Self {
            ram_bytes,
            chunks,
            files,
            bytes,
        };
        table.check_entries(order / 4)?;
        table.check_order()?;
        Ok(table)
    }

    /// Bytes of RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// Chunks of RAM.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Files that must come along.
    pub fn files(&self) -> u32 {
        self.files
    }

    /// Where chunk `chunk` is, if RAM has one of that number.
    pub fn entry(&self, chunk: u32) -> Option<Entry> {
        if chunk >= self.chunks {
            return None;
        }
        let raw = RawEntry::read(self.raw(chunk)?);
        Some(raw.entry())
    }

    /// Every chunk in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let entries = self.bytes.as_ref().get(HEADER..).unwrap_or_default();
        let entries = entries.as_chunks::<ENTRY>().0.iter();
        entries
            .take(self.chunks as usize)
            .map(|entry| RawEntry::read(entry).entry())
    }

    /// Numbers of the chunks to be fetched first, in that order.
    pub fn working_set(&self) -> impl ExactSizeIterator<Item = u32> {
        let at = HEADER + self.chunks as usize * ENTRY;
        let order = self.bytes.as_ref().get(at..).unwrap_or_default();
        let order = order.as_chunks::<4>().0.iter();
        order.map(|number| u32::from_le_bytes(*number))
    }

    /// What it was parsed of.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    fn raw(&self, chunk: u32) -> Option<&[u8; ENTRY]> {
        let at = HEADER + chunk as usize * ENTRY;
        self.bytes.as_ref().get(at..)?.first_chunk()
    }

    fn check_entries(&self, ordered: usize) -> Result<(), ParseError> {
        let mut flagged = 0;
        let entries = self.bytes.as_ref().get(HEADER..).unwrap_or_default();
        let entries = entries.as_chunks::<ENTRY>().0;
        for (chunk, raw) in (0..self.chunks).zip(entries) {
            let raw = RawEntry::read(raw);
            if let Some(what) = raw.wrong(self.files) {
                return Err(ParseError::Entry { chunk, what });
            }
            flagged += (raw.flags & WORKING_SET) as usize;
        }
        // With each number in the order flagged and none twice, equal counts make them the same set.
        if flagged == ordered {
            Ok(())
        } else {
            Err(ParseError::Flags { flagged, ordered })
        }
    }

    fn check_order(&self) -> Result<(), ParseError> {
        let mut seen = vec![0_u64; (self.chunks as usize).div_ceil(64)];
        for chunk in self.working_set() {
            let wrong = |what| ParseError::WorkingSet { chunk, what };
            let (Some(entry), Some(word)) = (self.entry(chunk), seen.get_mut(chunk as usize / 64))
            else {
                return Err(wrong("is not in RAM"));
            };
            if !entry.in_working_set() {
                return Err(wrong("is not flagged"));
            }
            let bit = 1 << (chunk % 64);
            if *word & bit != 0 {
                return Err(wrong("was named before"));
            }
            *word |= bit;
        }
        Ok(())
    }
}

impl Entry {
    /// Whether it is fetched first.
    pub fn in_working_set(&self) -> bool {
        match self {
            Self::Zero { working_set } | Self::Stored { working_set, .. } => *working_set,
        }
    }
}

fn parse_header(header: &[u8; HEADER]) -> Result<(u64, u32, u32), ParseError> {
    if !header.starts_with(MAGIC) {
        return Err(ParseError::Magic);
    }
    let version = u32_at(header, 8);
    if version != VERSION {
        return Err(ParseError::Version(version));
    }
    let chunk_bytes = u32_at(header, 12);
    if chunk_bytes as usize != CHUNK {
        return Err(ParseError::ChunkBytes(chunk_bytes));
    }
    let (ram_bytes, said) = (u64_at(header, 16), u64_at(header, 24));
    let chunks = chunks_of(ram_bytes)
        .filter(|chunks| u64::from(*chunks) == said)
        .ok_or(ParseError::Ram {
            ram_bytes,
            chunks: said,
        })?;
    let files = u32_at(header, 32);
    if files > FILES_MAX {
        return Err(ParseError::Files(files));
    }
    if header.iter().skip(36).any(|byte| *byte != 0) {
        return Err(ParseError::Reserved);
    }
    Ok((ram_bytes, chunks, files))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// An entry as it is on the wire.
#[derive(Clone, Copy, Default)]
struct RawEntry {
    file: u32,
    flags: u32,
    offset: u64,
    name: [u8; 32],
}

impl RawEntry {
    fn read(bytes: &[u8; ENTRY]) -> Self {
        let mut name = [0; 32];
        name.copy_from_slice(&bytes[16..]);
        Self {
            file: u32_at(bytes, 0),
            flags: u32_at(bytes, 4),
            offset: u64_at(bytes, 8),
            name,
        }
    }

    fn of(entry: Entry) -> Self {
        match entry {
            Entry::Zero { working_set } => Self {
                flags: u32::from(working_set),
                ..Self::default()
            },
            Entry::Stored {
                file,
                offset,
                name,
                working_set,
            } => Self {
                file: file.saturating_add(1),
                flags: u32::from(working_set),
                offset,
                name: *name.as_bytes(),
            },
        }
    }

    fn write(&self, to: &mut [u8; ENTRY]) {
        to[..4].copy_from_slice(&self.file.to_le_bytes());
        to[4..8].copy_from_slice(&self.flags.to_le_bytes());
        to[8..16].copy_from_slice(&self.offset.to_le_bytes());
        to[16..].copy_from_slice(&self.name);
    }

    fn entry(&self) -> Entry {
        let working_set = self.flags & WORKING_SET != 0;
        match self.file.checked_sub(1) {
            None => Entry::Zero { working_set },
            Some(file) => Entry::Stored {
                file,
                offset: self.offset,
                name: ChunkName::from_bytes(self.name),
                working_set,
            },
        }
    }

    /// What no entry of a table with `files` files is like.
    fn wrong(&self, files: u32) -> Option<&'static str> {
        if self.flags & !WORKING_SET != 0 {
            return Some("has flags that this version does not know");
        }
        if self.file > files {
            return Some("is in a file that does not come along");
        }
        if self.file == 0 && (self.offset != 0 || self.name != [0; 32]) {
            return Some("is zero and yet somewhere");
        }
        // Offsets of files are signed (man 2 pread).
        let end = self.offset.checked_add(CHUNK as u64);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Some("is beyond the end of any file");
        }
        None
    }
}

#[cfg(test)]
mod tests;
