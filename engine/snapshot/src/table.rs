//! Where each chunk of RAM lies, for a cell that restores: a file of fixed entries, read in place.
//!
//! ```text
//!   0  magic "BROODTBL"   8  version u32   12  chunk bytes u32   16  RAM bytes u64   24  chunks u64   32  files u32
//!  64  one entry of 48 bytes for each chunk of RAM:
//!      [file u32: its place among the descriptors + 1, 0 = all zero][flags u32][offset u64][BLAKE3, 32 bytes]
//!   …  the working set: chunk numbers u32, in the order in which they are to be fetched, to the end
//! ```
//!
//! All integers are little-endian. [`Table::parse`] looks at the header alone, so that a machine of any size starts
//! equally soon; an entry is checked when it is looked at. Invariant: whatever the bytes are, [`Table::entry`] names only
//! files that came along and spans that have an end.

use crate::CHUNK;

const MAGIC: &[u8; 8] = b"BROODTBL";
const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER: usize = 64;
/// Bytes of an entry.
const ENTRY: usize = 48;
/// Flag: the chunk is in the working set.
const IN_WORKING_SET: u32 = 1;

/// Why a table means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It is too short, or not a table at all.
    #[error("this is no table of chunks")]
    Foreign,
    /// It was written by another version.
    #[error("the table has version {version}, this program reads {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
    /// Its chunks have another size.
    #[error("the table's chunks have {bytes} bytes and not {CHUNK}")]
    ChunkBytes {
        /// Bytes of one.
        bytes: u32,
    },
    /// Header and length do not belong together.
    #[error("the table is of {ram_bytes} bytes of RAM in {chunks} chunks and has {length} bytes")]
    Length {
        /// Bytes of RAM it says it is of.
        ram_bytes: u64,
        /// Chunks it says it has.
        chunks: u64,
        /// Its own length.
        length: usize,
    },
    /// There is no such chunk.
    #[error("there is no chunk {chunk} of RAM, which has {chunks}")]
    Chunk {
        /// The one asked for.
        chunk: u32,
        /// How many there are.
        chunks: u32,
    },
    /// An entry names a file that did not come along, or a place that no file has.
    #[error("the table puts chunk {chunk} at byte {offset} of file {file}, of {files}")]
    Entry {
        /// The chunk.
        chunk: u32,
        /// The file's place + 1.
        file: u32,
        /// The offset.
        offset: u64,
        /// How many files there are.
        files: u32,
    },
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is all zero.
    Zero,
    /// In a file.
    File {
        /// The file's place among the descriptors that came along, from 0.
        file: u32,
        /// First byte of the chunk in it.
        offset: u64,
        /// BLAKE3 of the chunk.
        blake3: [u8; 32],
    },
}

/// One chunk of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub place: Place,
    /// Whether it is in the working set.
    pub in_working_set: bool,
}

/// A table in bytes of any kind: a vector, a mapped file.
#[derive(Debug)]
pub struct Table<B> {
    bytes: B,
    ram_bytes: u64,
    chunks: u32,
    files: u32,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// A table whose header is sound.
    ///
    /// # Errors
    /// Bytes that are no table, of another version, or shorter than they say.
    pub fn parse(bytes: B) -> Result<Self, TableError> {
        let all = bytes.as_ref();
        if all.len() < HEADER || !all.starts_with(MAGIC) {
            return Err(TableError::Foreign);
        }
        let version = u32_at(all, 8);
        if version != VERSION {
            return Err(TableError::Version { version });
        }
        let chunk_bytes = u32_at(all, 12);
        if chunk_bytes as usize != CHUNK {
            return Err(TableError::ChunkBytes { bytes: chunk_bytes });
        }
        let (ram_bytes, chunks) = (u64_at(all, 16), u64_at(all, 24));
        let length = all.len();
        let entries = usize::try_from(chunks)
            .ok()
            .and_then(|chunks| chunks.checked_mul(ENTRY)?.checked_add(HEADER));
        let is_whole = chunks.checked_mul(CHUNK as u64) == Some(ram_bytes);
        let narrow = u32::try_from(chunks);
        match (entries, narrow) {
            (Some(entries), Ok(chunks)) if is_whole && entries <= length => Ok(Self {
                ram_bytes,
                chunks,
                files: u32_at(all, 32),
                bytes,
            }),
            _ => Err(TableError::Length {
                ram_bytes,
                chunks,
                length,
            }),
        }
    }

    /// Bytes of RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// Chunks of RAM.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// How many files chunks lie in.
    pub fn files(&self) -> u32 {
        self.files
    }

    /// Where a chunk lies.
    ///
    /// # Errors
    /// No such chunk, or an entry that means nothing.
    pub fn entry(&self, chunk: u32) -> Result<Entry, TableError> {
        let chunks = self.chunks;
        if chunk >= chunks {
            return Err(TableError::Chunk { chunk, chunks });
        }
        let all = self.bytes.as_ref();
        // `parse` has seen that all of them fit.
        let at = HEADER + chunk as usize * ENTRY;
        let (file, flags, offset) = (u32_at(all, at), u32_at(all, at + 4), u64_at(all, at + 8));
        let in_working_set = flags & IN_WORKING_SET != 0;
        let Some(place) = file.checked_sub(1) else {
            let place = Place::Zero;
            return Ok(Entry {
                place,
                in_working_set,
            });
        };
        if file > self.files || offset > i64::MAX as u64 - CHUNK as u64 {
            let files = self.files;
            return Err(TableError::Entry {
                chunk,
                file,
                offset,
                files,
            });
        }
        let place = Place::File {
            file: place,
            offset,
            blake3: array_at(all, at + 16),
        };
        Ok(Entry {
            place,
            in_working_set,
        })
    }

    /// The chunks that are to be fetched first, in order; numbers of chunks that do not exist are passed over.
    pub fn working_set(&self) -> impl Iterator<Item = u32> + '_ {
        let begin = HEADER + self.chunks as usize * ENTRY;
        let numbers = self.bytes.as_ref().get(begin..).unwrap_or_default();
        numbers
            .chunks_exact(4)
            .map(|number| u32_at(number, 0))
            .filter(|chunk| *chunk < self.chunks)
    }
}

/// Makes a table.
#[derive(Clone, Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    chunks: u32,
    working_set: Vec<u32>,
}

impl Builder {
    /// A table of RAM that is all zero, whose chunks may lie in `files` files.
    ///
    /// # Errors
    /// RAM that is not made of chunks, or of too many.
    pub fn new(ram_bytes: u64, files: u32) -> Result<Self, TableError> {
        let chunks = ram_bytes / CHUNK as u64;
        let wrong = TableError::Length {
            ram_bytes,
            chunks,
            length: 0,
        };
        let narrow = u32::try_from(chunks).map_err(|_| wrong.clone())?;
        if !ram_bytes.is_multiple_of(CHUNK as u64) {
            return Err(wrong);
        }
        let mut bytes = vec![0; HEADER + narrow as usize * ENTRY];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 12, &(CHUNK as u32).to_le_bytes());
        put(&mut bytes, 16, &ram_bytes.to_le_bytes());
        put(&mut bytes, 24, &chunks.to_le_bytes());
        put(&mut bytes, 32, &files.to_le_bytes());
        Ok(Self {
            bytes,
            chunks: narrow,
            working_set: Vec::new(),
        })
    }

    /// Says where a chunk lies.
    ///
    /// # Errors
    /// No such chunk.
    pub fn place(&mut self, chunk: u32, place: Place) -> Result<(), TableError> {
        let at = self.entry_at(chunk)?;
        if let Place::File {
            file,
            offset,
            blake3,
        } = place
        {
            put(&mut self.bytes, at, &(file + 1).to_le_bytes());
            put(&mut self.bytes, at + 8, &offset.to_le_bytes());
            put(&mut self.bytes, at + 16, &blake3);
        }
        Ok(())
    }

    /// Puts a chunk at the end of the working set.
    ///
    /// # Errors
    /// No such chunk.
    pub fn fetch_early(&mut self, chunk: u32) -> Result<(), TableError> {
        let at = self.entry_at(chunk)?;
        put(&mut self.bytes, at + 4, &IN_WORKING_SET.to_le_bytes());
        self.working_set.push(chunk);
        Ok(())
    }

    /// The table.
    pub fn finish(mut self) -> Vec<u8> {
        let order = self
            .working_set
            .iter()
            .flat_map(|chunk| chunk.to_le_bytes());
        self.bytes.extend(order);
        self.bytes
    }

    fn entry_at(&self, chunk: u32) -> Result<usize, TableError> {
        let chunks = self.chunks;
        match chunk < chunks {
            true => Ok(HEADER + chunk as usize * ENTRY),
            false => Err(TableError::Chunk { chunk, chunks }),
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let room = bytes.iter_mut().skip(at);
    room.zip(value).for_each(|(to, from)| *to = *from);
}

/// The bytes at a place; zeros where there are none.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes
        .get(at..at + N)
        .and_then(|found| found.try_into().ok());
    found.unwrap_or([0; N])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 4 << 20;

    fn in_file(file: u32, offset: u64) -> Place {
        Place::File {
            file,
            offset,
            blake3: [7; 32],
        }
    }

    fn built() -> Vec<u8> {
        let mut builder = Builder::new(RAM, 2).expect("whole chunks");
        builder.place(3, in_file(1, 65536)).expect("a chunk");
        builder.place(63, in_file(0, 0)).expect("the last");
        builder.fetch_early(63).expect("a chunk");
        builder.fetch_early(3).expect("a chunk");
        builder.finish()
    }

    fn with(at: usize, value: &[u8]) -> Vec<u8> {
        let mut bytes = built();
        put(&mut bytes, at, value);
        bytes
    }

    #[test]
    fn a_table_says_what_its_builder_was_told() {
        let table = Table::parse(built()).expect("sound");
        assert_eq!(
            (table.ram_bytes(), table.chunks(), table.files()),
            (RAM, 64, 2)
        );
        assert_eq!(
            table.entry(3).map(|entry| entry.place),
            Ok(in_file(1, 65536))
        );
        assert_eq!(table.entry(63).map(|entry| entry.place), Ok(in_file(0, 0)));
        let zero = table.entry(0).expect("a chunk");
        assert_eq!((zero.place, zero.in_working_set), (Place::Zero, false));
        assert!(table.entry(3).expect("a chunk").in_working_set);
        assert_eq!(table.working_set().collect::<Vec<_>>(), [63, 3]);
    }

    #[test]
    fn bytes_that_are_no_table_of_this_version_are_refused() {
        assert_eq!(Table::parse(Vec::new()).err(), Some(TableError::Foreign));
        assert_eq!(Table::parse(with(0, b"X")).err(), Some(TableError::Foreign));
        let newer = Table::parse(with(8, &[2])).err();
        assert_eq!(newer, Some(TableError::Version { version: 2 }));
        let other = Table::parse(with(12, &4096_u32.to_le_bytes())).err();
        assert_eq!(other, Some(TableError::ChunkBytes { bytes: 4096 }));
        for (at, value) in [(16, u64::MAX), (16, RAM - 1), (24, 65), (24, u64::MAX)] {
            let wrong = Table::parse(with(at, &value.to_le_bytes())).err();
            assert!(
                matches!(wrong, Some(TableError::Length { .. })),
                "{wrong:?}"
            );
        }
        let mut cut = built();
        cut.truncate(HEADER + 64 * ENTRY - 1);
        let cut = Table::parse(cut).err();
        assert!(matches!(cut, Some(TableError::Length { .. })), "{cut:?}");
    }

    #[test]
    fn an_entry_that_names_a_file_nobody_sent_or_a_place_beyond_any_is_refused() {
        let file = HEADER + 5 * ENTRY;
        let table = Table::parse(with(file, &3_u32.to_le_bytes())).expect("sound header");
        assert!(matches!(
            table.entry(5),
            Err(TableError::Entry { file: 3, .. })
        ));
        let offset = HEADER + 3 * ENTRY + 8;
        let table = Table::parse(with(offset, &u64::MAX.to_le_bytes())).expect("sound header");
        assert!(matches!(table.entry(3), Err(TableError::Entry { .. })));
        assert!(matches!(table.entry(64), Err(TableError::Chunk { .. })));
    }

    #[test]
    fn a_working_set_of_chunks_that_do_not_exist_is_empty() {
        let order = HEADER + 64 * ENTRY;
        let table = Table::parse(with(order, &[0xff; 8])).expect("sound header");
        assert_eq!(table.working_set().count(), 0);
    }
}
