//! A snapshot as one file, to be carried to another host.
//!
//! ```text
//!  0 ┌ magic "BROODEXP" ┬ version u32 ┬ zeros ┬ manifest bytes u64 ┬ zeros ┐  64 bytes
//!    ├ manifest, see [`crate::manifest`]: its one pack, of name zero, is this file                      ┤
//!    ├ state ┬ disk 0 ┬ disk 1 ...                                                                       ┤
//!    ├ zeros up to a page                                                                                ┤
//!    └ each chunk once, 65536 bytes, in the order in which memory has it first                           ┘
//! ```
//!
//! It is written and read from its beginning to its end, so a pipe will do. Invariant: an import is a save: nothing of it
//! can be seen before every byte was checked by a digest of the manifest and the manifest by its own. The file names no
//! path: what is written is named by this store alone.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use brood_units::SnapshotId;

use super::incoming::{CopyError, Home, Incoming};
use super::layout::{Laid, LayoutError, laid, lay_out};
use super::save::{FromStart, SaveError, Saved, disk_name};
use super::snapshot::{ReadError, Snapshot};
use super::{STATE, SnapshotStore};
use crate::chunk::{CHUNK, ChunkName, PAGE, RAM_MAX, is_zero};
use crate::files::FileError;
use crate::manifest::{self, FileRecord, Manifest, ManifestError, Record};
use crate::pack::{PackId, read_up_to};
use crate::table;

/// The first bytes.
pub(crate) const MAGIC: &[u8; 8] = b"BROODEXP";
/// The version written and read here.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the header.
pub(crate) const HEADER: usize = 64;
/// The file itself, as a pack.
const ITSELF: PackId = PackId::from_bytes([0; 32]);
/// The most bytes of a table of so much RAM: its entries, all of them in the working set.
const fn table_bytes(ram_bytes: u64) -> u64 {
    table::HEADER as u64 + ram_bytes.div_ceil(CHUNK as u64) * (table::ENTRY as u64 + 4)
}

/// A snapshot is not written out, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It cannot be opened.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is in the store is not what was written to it.
    #[error("{0} is damaged: verify the snapshot")]
    Damaged(String),
    /// A table or manifest cannot be made.
    #[error("the export has no table")]
    Layout(#[from] LayoutError),
    /// The same.
    #[error("the export has no manifest")]
    Manifest(#[from] ManifestError),
    /// A file of the store cannot be read.
    #[error("the store cannot be read")]
    File(#[from] FileError),
    /// The other end does not take it.
    #[error("the export cannot be written")]
    Write(#[source] io::Error),
}

/// What came is no snapshot, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Something else.
    #[error("this is no exported snapshot: it does not begin with BROODEXP")]
    Magic,
    /// Another version.
    #[error("the export has version {0}, and this engine reads {VERSION}")]
    Version(u32),
    /// A field that this version does not have.
    #[error("bytes of the export that this version leaves zero are not")]
    Reserved,
    /// More than any snapshot has.
    #[error("the export says that its manifest has {found} bytes, and none has more than {most}")]
    Size {
        /// What it says.
        found: u64,
        /// The most.
        most: u64,
    },
    /// A larger machine than is wanted.
    #[error("the export is of a machine with {found} bytes of RAM, and at most {most} are taken")]
    Ram {
        /// Its RAM.
        found: u64,
        /// The most that is wanted.
        most: u64,
    },
    /// Its manifest is damaged, or of another format.
    #[error("the export's manifest cannot be read")]
    Manifest(#[from] ManifestError),
    /// Its table points out of the file.
    #[error("chunk {0} of the export is not where it must be")]
    Place(u32),
    /// A part is not what the manifest says.
    #[error("{0} of the export is damaged: its digest is not the manifest's")]
    Damaged(String),
    /// It goes on.
    #[error("there is more behind the end of the export")]
    Trailing,
    /// It breaks off.
    #[error("the export breaks off in its {part}")]
    Read {
        /// Where.
        part: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be kept.
    #[error(transparent)]
    Save(#[from] SaveError),
}

/// An export whose manifest was read and checked; the rest is still to come.
#[derive(Debug)]
pub struct Portable<R> {
    manifest: Manifest,
    rest: R,
    /// Where memory begins in the file.
    memory: u64,
    /// Bytes up to which it was read.
    position: u64,
}

impl<R: Read> Portable<R> {
    /// Reads the beginning of an export, up to what is large: what it is can be looked at before it is taken.
    ///
    /// # Errors
    /// It is no export that this engine reads.
    pub fn begin(source: R) -> Result<Self, ImportError> {
        Self::begin_within(source, RAM_MAX)
    }

    /// The same of a machine with at most that many bytes of RAM. No more memory is used than the table of so much takes,
    /// 832 bytes for each MiB and twice that while it is checked.
    ///
    /// # Errors
    /// It is no export that this engine reads, or of a larger machine.
    pub fn begin_within(mut source: R, most_ram: u64) -> Result<Self, ImportError> {
        let mut header = [0; HEADER];
        let read = source.read_exact(&mut header);
        read.map_err(|source| broken("header", source))?;
        if !header.starts_with(MAGIC) {
            return Err(ImportError::Magic);
        }
        let mut version = [0; 4];
        version.copy_from_slice(&header[8..12]);
        match u32::from_le_bytes(version) {
            VERSION => {}
            other => return Err(ImportError::Version(other)),
        }
        if !is_zero(&header[12..16]) || !is_zero(&header[24..]) {
            return Err(ImportError::Reserved);
        }
        let mut length = [0; 8];
        length.copy_from_slice(&header[16..24]);
        let found = u64::from_le_bytes(length);
        let most = manifest::most_bytes(table_bytes(most_ram.min(RAM_MAX)));
        if found > most {
            return Err(ImportError::Size { found, most });
        }
        // It grows with what comes, not with what was said.
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut source)
            .take(found)
            .read_to_end(&mut bytes);
        read.map_err(|source| broken("manifest", source))?;
        let manifest = Manifest::parse(&bytes)?;
        let (found_ram, most) = (manifest.table.ram_bytes(), most_ram);
        if found_ram > most {
            let found = found_ram;
            return Err(ImportError::Ram { found, most });
        }
        let position = HEADER as u64 + found;
        let memory = memory_of(position, &manifest.record);
        let portable = Self {
            manifest,
            rest: source,
            memory,
            position,
        };
        portable.check_places()?;
        Ok(portable)
    }

    /// The id it was exported under.
    pub fn id(&self) -> SnapshotId {
        self.manifest.id
    }

    /// Bytes of its machine's RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.manifest.table.ram_bytes()
    }

    /// What was said of it, and its files.
    pub fn record(&self) -> &Record {
        &self.manifest.record
    }

    /// Chunks lie one behind the other in the order in which memory has them first, and nowhere else.
    fn check_places(&self) -> Result<(), ImportError> {
        let mut next = self.memory;
        for laid in laid(&self.manifest) {
            let before = laid.offset < next
                && laid.offset >= self.memory
                && (laid.offset - self.memory).is_multiple_of(CHUNK as u64);
            let wrong = laid.pack != ITSELF || laid.offset > next;
            if wrong || !(before || laid.offset == next) {
                return Err(ImportError::Place(laid.chunk));
            }
            if laid.offset == next {
                next += CHUNK as u64;
            }
        }
        Ok(())
    }

    fn read_memory(&mut self, incoming: &mut Incoming<'_>) -> Result<(), ImportError> {
        let mut bytes = vec![0; CHUNK];
        let mut homes: HashMap<u64, (ChunkName, Home)> = HashMap::new();
        for laid in laid(&self.manifest) {
            let known = homes.get(&laid.offset).copied();
            let (name, home) = match known {
                Some(known) => known,
                None => {
                    let part = || format!("chunk {} of memory", laid.chunk);
                    let read = self.rest.read_exact(&mut bytes);
                    read.map_err(|source| broken(&part(), source))?;
                    let name = ChunkName::of(&bytes);
                    let home = incoming.keep(name, &bytes).map_err(SaveError::from)?;
                    homes.insert(laid.offset, (name, home));
                    (name, home)
                }
            };
            if name != laid.name {
                return Err(ImportError::Damaged(format!(
                    "chunk {} of memory",
                    laid.chunk
                )));
            }
            incoming.set(laid.chunk, name, home);
        }
        Ok(())
    }

    fn read_file(
        &mut self,
        incoming: &mut Incoming<'_>,
        name: &str,
        record: &FileRecord,
    ) -> Result<(), ImportError> {
        let source = Read::by_ref(&mut self.rest).take(record.bytes);
        let copied = incoming.file(name, &record.label, source);
        let copied = copied.map_err(|error| match error {
            CopyError::Source(source) => broken(name, source),
            CopyError::File(error) => SaveError::from(error).into(),
        })?;
        self.position += copied.bytes;
        if copied.bytes < record.bytes {
            return Err(broken(name, io::ErrorKind::UnexpectedEof.into()));
        }
        if copied.digest != record.digest {
            return Err(ImportError::Damaged(name.to_owned()));
        }
        Ok(())
    }
}

/// Where memory begins, behind a manifest that ends at `after` and the files.
fn memory_of(after: u64, record: &Record) -> u64 {
    let disks = record.disks.iter().map(|disk| disk.bytes);
    let end = disks.fold(after + record.state.bytes, u64::saturating_add);
    end.checked_next_multiple_of(PAGE as u64).unwrap_or(end)
}

fn broken(part: &str, source: io::Error) -> ImportError {
    ImportError::Read {
        part: part.to_owned(),
        source,
    }
}

impl SnapshotStore {
    /// Writes a snapshot out as one file; how many bytes. Each part is checked on its way.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or the other end does not take it. What was written then is no whole export.
    pub fn export(&self, id: SnapshotId, mut to: impl Write) -> Result<u64, ExportError> {
        let snapshot = self.snapshot(id)?;
        let (manifest, chunks) = portable_manifest(&snapshot)?;
        let mut packs = HashMap::new();
        for pack in snapshot.packs() {
            let failed = |source| FileError::new("open", &self.pack_path(*pack), source);
            packs.insert(*pack, self.open_pack(*pack).map_err(failed)?);
        }
        let bytes = manifest.to_bytes()?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        to.write_all(&header).map_err(ExportError::Write)?;
        to.write_all(&bytes).map_err(ExportError::Write)?;
        let mut position = (HEADER + bytes.len()) as u64;
        let memory = memory_of(position, &manifest.record);
        for (name, file, record) in snapshot.files() {
            position += record.bytes;
            let mut source = HashingReader {
                inner: FromStart(file, 0).take(record.bytes),
                hasher: blake3::Hasher::new(),
            };
            io::copy(&mut source, &mut to).map_err(ExportError::Write)?;
            if source.hasher.finalize().as_bytes() != &record.digest {
                return Err(ExportError::Damaged(name));
            }
        }
        let padding = usize::try_from(memory.saturating_sub(position)).unwrap_or(0);
        to.write_all(&vec![0; padding])
            .map_err(ExportError::Write)?;
        let mut bytes = vec![0; CHUNK];
        for laid in &chunks {
            let pack = packs.get(&laid.pack);
            let read = pack.map(|pack| read_up_to(pack, laid.offset, &mut bytes));
            if !matches!(read, Some(Ok(CHUNK))) || ChunkName::of(&bytes) != laid.name {
                let what = format!("chunk {} of memory", laid.chunk);
                return Err(ExportError::Damaged(what));
            }
            to.write_all(&bytes).map_err(ExportError::Write)?;
        }
        to.flush().map_err(ExportError::Write)?;
        Ok(memory + chunks.len() as u64 * CHUNK as u64)
    }

    /// Takes an export as snapshot `id`, which may be its own.
    ///
    /// # Errors
    /// See [`ImportError`]; nothing of it is kept then.
    pub fn import<R: Read>(
        &self,
        mut portable: Portable<R>,
        id: SnapshotId,
    ) -> Result<Saved, ImportError> {
        let mut incoming = Incoming::begin(self, id, portable.ram_bytes())?;
        let record = portable.record().clone();
        portable.read_file(&mut incoming, STATE, &record.state)?;
        for (index, disk) in record.disks.iter().enumerate() {
            portable.read_file(&mut incoming, &disk_name(index), disk)?;
        }
        let padding =
            usize::try_from(portable.memory.saturating_sub(portable.position)).unwrap_or(0);
        let mut zeros = vec![0; padding];
        let read = portable.rest.read_exact(&mut zeros);
        read.map_err(|source| broken("padding", source))?;
        if !is_zero(&zeros) {
            return Err(ImportError::Reserved);
        }
        portable.read_memory(&mut incoming)?;
        match portable.rest.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(ImportError::Trailing),
            Err(source) => return Err(broken("end", source)),
        }
        incoming.working_set(portable.manifest.table.working_set().collect());
        Ok(incoming.publish(record)?)
    }
}

/// The manifest of the export, and each chunk once with the place it has in the store.
fn portable_manifest(snapshot: &Snapshot) -> Result<(Manifest, Vec<Laid>), ExportError> {
    let mut manifest = snapshot.manifest.clone();
    let ram_bytes = manifest.table.ram_bytes();
    let order: Vec<_> = manifest.table.working_set().collect();
    let mut numbers: HashMap<ChunkName, u64> = HashMap::new();
    let mut once = Vec::new();
    let mut chunks: Vec<Laid> = laid(&manifest).collect();
    for laid in &mut chunks {
        let next = once.len() as u64;
        let number = *numbers.entry(laid.name).or_insert(next);
        if number == next {
            once.push(*laid);
        }
        laid.pack = ITSELF;
        laid.offset = number * CHUNK as u64;
    }
    // The manifest has the same length wherever memory begins.
    (manifest.packs, manifest.table) = lay_out(ram_bytes, &chunks, &order)?;
    let length = manifest.to_bytes()?.len() as u64;
    let memory = memory_of(HEADER as u64 + length, &manifest.record);
    for laid in &mut chunks {
        laid.offset += memory;
    }
    (manifest.packs, manifest.table) = lay_out(ram_bytes, &chunks, &order)?;
    Ok((manifest, once))
}

/// Hashes what it reads.
struct HashingReader<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hasher.update(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}
