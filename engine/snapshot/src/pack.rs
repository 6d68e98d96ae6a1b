//! A pack: one file of chunks.
//!
//! ```text
//!     0 ┌ magic "BROODPAK" ┬ version u32 ┬ chunk bytes u32 ┬ zeros ┐                      4096 bytes
//!  4096 ├ chunk 0 ┬ chunk 1 ┬ ...                                  ┤                      65536 bytes each, as they are
//!       ├ name of chunk 0 ┬ name of chunk 1 ┬ ...                  ┤                      32 bytes each
//!       └ magic "BROODIDX" ┬ slots u64 ┬ salt, 16 ┬ BLAKE3 of the names and the trailer's first 32 bytes ┘   64 bytes
//! ```
//!
//! A name of zeros is of a slot without a chunk. The salt is its maker's, so that no two packs have one name. Chunks are not compressed: a restoring cell reads them where they lie.
//! Invariant: a pack is never written once it has its name, which is the BLAKE3 of its trailer; so a descriptor of one
//! means the same chunks for ever. The names can be lost: they are then made of the chunks again.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::chunk::{CHUNK, ChunkName};
use crate::files::{FileError, Files, NewFile};

/// The first bytes.
pub const MAGIC: &[u8; 8] = b"BROODPAK";
/// The first bytes of the trailer.
pub const TRAILER_MAGIC: &[u8; 8] = b"BROODIDX";
/// The version written and read here.
pub const VERSION: u32 = 1;
/// Bytes before the first chunk.
pub const HEADER: usize = 4096;
/// Bytes of the name of a chunk.
pub const NAME: usize = 32;
/// Bytes at the end.
pub const TRAILER: usize = 64;
/// Bytes of what makes a pack another one than all with the same chunks.
pub const SALT: usize = 16;

/// The name of a pack: BLAKE3 of its trailer, and so of the names of its chunks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId([u8; 32]);

impl PackId {
    /// A name that was read.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name of its file.
    pub(crate) fn file_name(&self) -> String {
        format!("{self}.pack")
    }

    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        let hex = blake3::Hash::from_str(name.strip_suffix(".pack")?).ok()?;
        let id = Self(*hex.as_bytes());
        (id.file_name() == name).then_some(id)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

/// Where the chunk of a slot begins.
pub fn offset_of(slot: u32) -> u64 {
    HEADER as u64 + u64::from(slot) * CHUNK as u64
}

/// The slot whose chunk begins there.
pub(crate) fn slot_at(offset: u64) -> Option<u32> {
    let bytes = offset.checked_sub(HEADER as u64)?;
    let whole = bytes.is_multiple_of(CHUNK as u64);
    whole
        .then(|| u32::try_from(bytes / CHUNK as u64).ok())
        .flatten()
}

/// The names of a pack's chunks by slot. If they are damaged they are made of the chunks, and if those cannot be read there
/// are none: tables find their chunks by offset all the same.
pub(crate) fn names_of(path: &Path, id: PackId) -> Result<Vec<Option<ChunkName>>, FileError> {
    let failed = |source| FileError::new("read", path, source);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok(match read_names(&file, length, id) {
        Ok(Some(names)) => names,
        Ok(None) | Err(_) => make_names(&file, length).unwrap_or_default(),
    })
}

/// Reads until the slice is full or the file ends.
pub(crate) fn read_up_to(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The names at the end of a pack of this length and name, or `None` if that is not what is there.
fn read_names(file: &File, length: u64, id: PackId) -> io::Result<Option<Vec<Option<ChunkName>>>> {
    let each = (CHUNK + NAME) as u64;
    let slots = length.checked_sub((HEADER + TRAILER) as u64);
    let Some(slots) = slots.filter(|bytes| bytes.is_multiple_of(each)) else {
        return Ok(None);
    };
    let slots = slots / each;
    let Ok(slots) = u32::try_from(slots) else {
        return Ok(None);
    };
    let mut end = vec![0; slots as usize * NAME + TRAILER];
    file.read_exact_at(&mut end, offset_of(slots))?;
    let (names, trailer) = end.split_at(slots as usize * NAME);
    let salt = trailer.get(16..).and_then(|rest| rest.first_chunk());
    if salt.is_none_or(|salt| trailer != self::trailer(names, salt)) || id_of(trailer) != id {
        return Ok(None);
    }
    let names = names.as_chunks::<NAME>().0.iter();
    let name = |bytes: &[u8; NAME]| (*bytes != [0; NAME]).then(|| ChunkName::from_bytes(*bytes));
    Ok(Some(names.map(name).collect()))
}

/// The names of the whole chunks that are there. What is behind the last one hashes to something that nobody asks for.
fn make_names(file: &File, length: u64) -> io::Result<Vec<Option<ChunkName>>> {
    let mut names = Vec::new();
    let mut chunk = vec![0; CHUNK];
    for slot in 0..u32::MAX {
        if offset_of(slot) + CHUNK as u64 > length {
            break;
        }
        file.read_exact_at(&mut chunk, offset_of(slot))?;
        names.push((!crate::chunk::is_zero(&chunk)).then(|| ChunkName::of(&chunk)));
    }
    Ok(names)
}

fn trailer(names: &[u8], salt: &[u8; SALT]) -> Vec<u8> {
    let mut trailer = vec![0; TRAILER];
    trailer[..8].copy_from_slice(TRAILER_MAGIC);
    trailer[8..16].copy_from_slice(&((names.len() / NAME) as u64).to_le_bytes());
    trailer[16..32].copy_from_slice(salt);
    let mut hasher = blake3::Hasher::new();
    hasher.update(names).update(&trailer[..32]);
    trailer[32..].copy_from_slice(hasher.finalize().as_bytes());
    trailer
}

fn id_of(trailer: &[u8]) -> PackId {
    PackId(*blake3::hash(trailer).as_bytes())
}

/// A pack in the making.
pub(crate) struct PackWriter<'a> {
    file: NewFile<'a>,
    names: Vec<Option<ChunkName>>,
}

impl<'a> PackWriter<'a> {
    pub(crate) fn create(files: &'a Files, path: PathBuf) -> Result<Self, FileError> {
        let mut file = files.create(path)?;
        let mut header = vec![0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(CHUNK as u32).to_le_bytes());
        file.append(&header)?;
        Ok(Self {
            file,
            names: Vec::new(),
        })
    }

    /// Adds a chunk; its slot.
    pub(crate) fn add(&mut self, name: ChunkName, chunk: &[u8]) -> Result<u32, FileError> {
        let slot = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.file.append(chunk)?;
        self.names.push(Some(name));
        Ok(slot)
    }

    /// Lets go of a chunk that is elsewhere by now.
    pub(crate) fn forget(&mut self, slot: u32) -> Result<(), FileError> {
        self.file.punch(offset_of(slot), CHUNK as u64)?;
        if let Some(name) = self.names.get_mut(slot as usize) {
            *name = None;
        }
        Ok(())
    }

    /// The names by slot.
    pub(crate) fn names(&self) -> &[Option<ChunkName>] {
        &self.names
    }

    /// Whether it has no chunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.iter().all(Option::is_none)
    }

    /// Makes the chunks durable, which takes long, so that [`Self::finish`] does not.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        self.file.sync()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Writes the names; what the pack is called.
    pub(crate) fn finish(&mut self, salt: &[u8; SALT]) -> Result<PackId, FileError> {
        let names = self.names.iter();
        let mut end: Vec<u8> = names
            .flat_map(|name| name.map_or([0; NAME], |name| *name.as_bytes()))
            .collect();
        let trailer = trailer(&end, salt);
        let id = id_of(&trailer);
        end.extend(trailer);
        self.file.append(&end)?;
        self.file.sync()?;
        Ok(id)
    }
}
