//! A snapshot on its way in.
//!
//! ```text
//!  begin ─► chunks, files (durable) ─► doubles given up, pack, manifest ─► pack has its name ─► snapshot has its name
//!           any number at a time        one at a time, from here on
//! ```
//!
//! Invariant: until the last step nothing of it can be seen, and one that is dropped before it is done takes all it wrote
//! with it, as far as the disk lets it; the next open sweeps the rest.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::PathBuf;

use brood_units::SnapshotId;

use super::layout::{Laid, lay_out};
use super::save::{SaveError, Saved};
use super::state::Place;
use super::{MANIFEST, SnapshotStore};
use crate::chunk::{CHUNK, ChunkName, is_zero};
use crate::files::FileError;
use crate::manifest::{FileRecord, Manifest, Record};
use crate::pack::{PackId, PackWriter};

/// The most packs of others that a snapshot refers to: each is a descriptor in the packet that a restore begins with. A
/// chunk in yet another is written again.
pub(super) const PACKS_MAX: usize = 128;

/// Where a chunk is for now.
#[derive(Clone, Copy)]
pub(super) enum Home {
    /// In the pack that is being written.
    Own(u32),
    /// In one that was there.
    Kept(Place),
}

/// How far it has come.
enum Stage {
    Hidden,
    PackNamed(PathBuf),
    Named,
    Done,
}

pub(super) struct Incoming<'a> {
    store: &'a SnapshotStore,
    id: SnapshotId,
    ram_bytes: u64,
    pack: Option<PackWriter<'a>>,
    own: HashMap<ChunkName, u32>,
    pinned: BTreeSet<PackId>,
    chunks: Vec<(u32, ChunkName, Home)>,
    working_set: Vec<u32>,
    /// Bytes of state, disks and manifest.
    written: u64,
    own_pack: Option<PackId>,
    stage: Stage,
}

impl<'a> Incoming<'a> {
    pub(super) fn begin(
        store: &'a SnapshotStore,
        id: SnapshotId,
        ram_bytes: u64,
    ) -> Result<Self, SaveError> {
        {
            let mut state = store.state();
            let there = state.snapshots.contains_key(&id) || state.unreadable.contains_key(&id);
            if there || !state.saving.insert(id) {
                return Err(SaveError::Exists(id));
            }
        }
        let incoming = Self {
            store,
            id,
            ram_bytes,
            pack: None,
            own: HashMap::new(),
            pinned: BTreeSet::new(),
            chunks: Vec::new(),
            working_set: Vec::new(),
            written: 0,
            own_pack: None,
            stage: Stage::Hidden,
        };
        // What an earlier one of this id could not remove.
        store.files.remove_directory(&incoming.directory())?;
        store.files.remove_file(&incoming.pack_path())?;
        store.files.create_directory(&incoming.directory())?;
        Ok(incoming)
    }

    fn directory(&self) -> PathBuf {
        self.store.incoming_path(&self.id.to_string())
    }

    fn pack_path(&self) -> PathBuf {
        self.store.incoming_path(&format!("{}.pack", self.id))
    }

    /// Sees to it that a chunk is kept.
    pub(super) fn keep(&mut self, name: ChunkName, bytes: &[u8]) -> Result<Home, FileError> {
        if let Some(slot) = self.own.get(&name) {
            return Ok(Home::Own(*slot));
        }
        let found = self
            .store
            .state()
            .find_and_pin(&name, &mut self.pinned, PACKS_MAX);
        if let Some(place) = found {
            return Ok(Home::Kept(place));
        }
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => none.insert(PackWriter::create(
                &self.store.files,
                self.store.incoming_path(&format!("{}.pack", self.id)),
            )?),
        };
        let slot = pack.add(name, bytes)?;
        self.own.insert(name, slot);
        Ok(Home::Own(slot))
    }

    /// Chunk `chunk` of RAM is the one of this name.
    pub(super) fn set(&mut self, chunk: u32, name: ChunkName, home: Home) {
        self.chunks.push((chunk, name, home));
    }

    /// What is fetched first when it is restored.
    pub(super) fn working_set(&mut self, chunks: Vec<u32>) {
        self.working_set = chunks;
    }

    /// Writes a file of the snapshot, durably. Blocks of zeros take no space.
    pub(super) fn file(
        &mut self,
        file_name: &str,
        label: &str,
        mut source: impl Read,
    ) -> Result<FileRecord, CopyError> {
        let mut file = self.store.files.create(self.directory().join(file_name))?;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; CHUNK];
        loop {
            let read = fill(&mut source, &mut block).map_err(CopyError::Source)?;
            let part = block.get(..read).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            hasher.update(part);
            if is_zero(part) {
                file.skip(part.len() as u64)?;
            } else {
                file.append(part)?;
            }
        }
        file.sync()?;
        self.written += file.length();
        Ok(FileRecord {
            label: label.to_owned(),
            bytes: file.length(),
            digest: *hasher.finalize().as_bytes(),
        })
    }

    /// Makes it a snapshot.
    pub(super) fn publish(&mut self, record: Record) -> Result<Saved, SaveError> {
        if let Some(pack) = &self.pack {
            pack.sync()?;
        }
        let store = self.store;
        let _publishing = store.publishing();
        self.give_up_doubles()?;
        let own = match self.pack.as_mut().filter(|pack| !pack.is_empty()) {
            Some(pack) => Some(pack.finish(self.id.as_bytes())?),
            None => None,
        };
        self.own_pack = own;
        let chunks: Vec<_> = self.laid(own).collect();
        let (packs, table) = lay_out(self.ram_bytes, &chunks, &self.working_set)?;
        let manifest = Manifest {
            id: self.id,
            record,
            packs,
            table,
        };
        let directory = self.directory();
        let bytes = manifest.to_bytes()?;
        let mut file = store.files.create(directory.join(MANIFEST))?;
        file.append(&bytes)?;
        file.sync()?;
        self.written += bytes.len() as u64;
        store.files.sync_directory(&directory)?;
        self.name_pack()?;
        let snapshots = store.directory.join("snapshots");
        store
            .files
            .rename(&directory, &store.snapshot_path(self.id))?;
        self.stage = Stage::Named;
        store.files.sync_directory(&snapshots)?;
        self.stage = Stage::Done;
        let mut state = store.state();
        if let (Some(pack), Some(writer)) = (own, &self.pack) {
            state.add_pack(pack, writer.names());
        }
        state.adopt(self.id, manifest.packs.clone());
        drop(state);
        Ok(self.saved(&manifest))
    }

    fn saved(&self, manifest: &Manifest) -> Saved {
        let names = self.pack.iter().flat_map(PackWriter::names);
        let new = names.flatten().count() as u64 * CHUNK as u64;
        Saved {
            id: self.id,
            ram_bytes: self.ram_bytes,
            nonzero_bytes: self.chunks.len() as u64 * CHUNK as u64,
            new_bytes: new,
            other_bytes: self.written,
            packs: manifest.packs.len(),
        }
    }

    /// Another save may have brought the same chunks since.
    fn give_up_doubles(&mut self) -> Result<(), FileError> {
        let Some(pack) = &mut self.pack else {
            return Ok(());
        };
        let mut elsewhere = HashMap::new();
        for (name, slot) in &self.own {
            let found = self
                .store
                .state()
                .find_and_pin(name, &mut self.pinned, PACKS_MAX);
            if let Some(place) = found {
                pack.forget(*slot)?;
                elsewhere.insert(*slot, place);
            }
        }
        for (_, _, home) in &mut self.chunks {
            if let Home::Own(slot) = home
                && let Some(place) = elsewhere.get(slot)
            {
                *home = Home::Kept(*place);
            }
        }
        Ok(())
    }

    fn laid(&self, own: Option<PackId>) -> impl Iterator<Item = Laid> {
        self.chunks.iter().filter_map(move |(chunk, name, home)| {
            let place = match *home {
                Home::Kept(place) => place,
                Home::Own(slot) => Place { pack: own?, slot },
            };
            Some(Laid::at(*chunk, *name, place))
        })
    }

    /// Gives the pack its name, if there is one.
    fn name_pack(&mut self) -> Result<(), FileError> {
        let store = self.store;
        let (Some(id), Some(writer)) = (self.own_pack, &self.pack) else {
            return store.files.remove_file(&self.pack_path());
        };
        let path = store.pack_path(id);
        store.files.rename(writer.path(), &path)?;
        self.stage = Stage::PackNamed(path);
        store.files.sync_directory(&store.directory.join("packs"))
    }

    /// Takes back what was done, and says no more of it than the disk lets happen: the first error is the caller's.
    fn undo(&self) -> Result<(), FileError> {
        let files = &self.store.files;
        let pack = match &self.stage {
            Stage::Done => return Ok(()),
            Stage::Hidden => None,
            Stage::PackNamed(path) => Some(path.clone()),
            Stage::Named => {
                // As long as it has its name it is whole, so its pack goes after it.
                files.rename(&self.store.snapshot_path(self.id), &self.directory())?;
                files.sync_directory(&self.store.directory.join("snapshots"))?;
                self.own_pack.map(|id| self.store.pack_path(id))
            }
        };
        let removed = files.remove_directory(&self.directory());
        files.remove_file(&self.pack_path())?;
        if let Some(path) = pack {
            files.remove_file(&path)?;
        }
        removed
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        // Its caller has the error that brought it here; what stays is swept by the next open.
        let undone = self.undo();
        {
            let mut state = self.store.state();
            state.saving.remove(&self.id);
            // A snapshot whose name could not be taken back is there at the next open, and its packs with it.
            if undone.is_ok() || !matches!(self.stage, Stage::Named) {
                state.unpin(&self.pinned);
            }
        }
        // What was removed meanwhile and counted on until now. What cannot be deleted is swept by the next open.
        let publishing = self.store.publishing();
        self.store.collect(&publishing).ok();
    }
}

/// A file cannot be copied into the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("cannot be read")]
    Source(#[source] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Reads until the block is full or the source ends.
fn fill(source: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = block.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
