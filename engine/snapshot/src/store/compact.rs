//! Moving the chunks that are in use out of packs that are mostly not.
//!
//! ```text
//!  chunks copied to a new pack, durable ─► each snapshot's manifest replaced ─► old packs deleted
//! ```
//!
//! Invariant: at each step every manifest names packs that are there. A chunk that is not what its name says is not moved,
//! and its pack stays: a damaged chunk never gets a second home under a good name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use brood_units::SnapshotId;

use super::layout::{Laid, LayoutError, laid, lay_out};
use super::snapshot::ReadError;
use super::state::Place;
use super::usage::slot;
use super::{RewriteError, SnapshotStore};
use crate::chunk::{CHUNK, ChunkName};
use crate::files::FileError;
use crate::manifest::{Manifest, ManifestError};
use crate::pack::{PackId, PackWriter, SALT, offset_of, read_up_to};

/// A snapshot that refers to more packs than this has its smallest ones put together.
const PACKS_MANY: usize = 64;

/// What a compaction came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Packs whose chunks were moved.
    pub packs: usize,
    /// Bytes that were moved.
    pub moved_bytes: u64,
}

/// Not everything was moved. What was is whole.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// Nobody knows which packs the snapshot names.
    #[error("snapshot {0} cannot be read, and until it is removed no space of packs is given back")]
    Unreadable(SnapshotId),
    /// A snapshot cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A table cannot be made.
    #[error("the snapshot's table cannot be made anew")]
    Layout(#[from] LayoutError),
    /// A manifest cannot be made.
    #[error("the snapshot's manifest cannot be made anew")]
    Manifest(#[from] ManifestError),
    /// The disk fails.
    #[error("chunks cannot be moved")]
    File(#[from] FileError),
}

impl From<RewriteError> for CompactError {
    fn from(error: RewriteError) -> Self {
        match error {
            RewriteError::File(error) => error.into(),
            RewriteError::Manifest(error) => error.into(),
        }
    }
}

/// Chunks in a pack of their own, and the slots there of the places they were in.
struct Copied<'a> {
    writer: PackWriter<'a>,
    moved: HashMap<Place, u32>,
}

/// How full a pack is.
#[derive(Clone, Copy, Debug)]
struct Fill {
    slots: usize,
    live: usize,
}

impl SnapshotStore {
    /// Gives space back: packs of which less than half is in use are put together into one, as are the smallest of a
    /// snapshot that refers to many. It copies what is in use in them; saves go on meanwhile and wait only to be published.
    ///
    /// # Errors
    /// See [`CompactError`].
    pub fn compact(&self) -> Result<Compacted, CompactError> {
        let publishing = self.publishing();
        if let Some(id) = self.state().unreadable.keys().next() {
            return Err(CompactError::Unreadable(*id));
        }
        let mut live = self.slots::<bool>();
        for id in self.list() {
            let manifest = self.read_manifest(id)?;
            self.settle(&manifest)?;
            for place in laid(&manifest).filter_map(|laid| laid.place()) {
                if let Some(live) = slot(&mut live, place) {
                    *live = true;
                }
            }
        }
        self.collect(&publishing)?;
        let victims = self.victims(&live);
        let Some(Copied { writer, moved }) = self.copy(&victims)? else {
            return Ok(Compacted::default());
        };
        let compacted = Compacted {
            packs: victims.len(),
            moved_bytes: moved.len() as u64 * CHUNK as u64,
        };
        let new = self.admit(writer, &victims)?;
        let result = self.point_to(new, &moved);
        self.state().unpin(&BTreeSet::from([new]));
        self.collect(&publishing)?;
        result.map(|()| compacted)
    }

    /// An earlier compaction that failed may have left the packs of two manifests named, as nobody knew which one lasts.
    fn settle(&self, manifest: &Manifest) -> Result<(), FileError> {
        let known = self.state().snapshots.get(&manifest.id) == Some(&manifest.packs);
        if !known {
            self.files
                .sync_directory(&self.snapshot_path(manifest.id))?;
            self.state().adopt(manifest.id, manifest.packs.clone());
        }
        Ok(())
    }

    fn victims(&self, live: &HashMap<PackId, Vec<bool>>) -> BTreeSet<PackId> {
        let fill = |slots: &Vec<bool>| Fill {
            slots: slots.len(),
            live: slots.iter().filter(|live| **live).count(),
        };
        let fills = live.iter().map(|(id, slots)| (*id, fill(slots)));
        let state = self.state();
        let lists = state.snapshots.values();
        let mut victims = choose(&fills.collect(), lists);
        // A save that counts on a pack keeps it from going, so moving would only double it.
        victims.retain(|id| state.packs.get(id).is_some_and(|pack| pack.pins == 0));
        victims
    }

    /// Writes what is in use in the victims into a pack of its own; `None` if that is nothing.
    fn copy(&self, victims: &BTreeSet<PackId>) -> Result<Option<Copied<'_>>, CompactError> {
        if victims.is_empty() {
            return Ok(None);
        }
        let path = self.incoming_path("compact.pack");
        self.files.remove_file(&path)?;
        let mut writer = PackWriter::create(&self.files, path)?;
        let mut moved = HashMap::new();
        let copied = self.copy_into(&mut writer, victims, &mut moved);
        if copied.is_ok() && !moved.is_empty() {
            return Ok(Some(Copied { writer, moved }));
        }
        self.files.remove_file(writer.path())?;
        copied.map(|()| None)
    }

    fn copy_into(
        &self,
        writer: &mut PackWriter<'_>,
        victims: &BTreeSet<PackId>,
        moved: &mut HashMap<Place, u32>,
    ) -> Result<(), CompactError> {
        // A pack that cannot be opened keeps what it has, as a damaged one does.
        let packs = victims.iter();
        let packs: HashMap<_, _> = packs.map(|id| (*id, self.open_pack(*id).ok())).collect();
        let mut slots: HashMap<ChunkName, u32> = HashMap::new();
        let mut chunk = vec![0; CHUNK];
        for (place, name) in self.names_in(victims)? {
            let slot = match slots.get(&name) {
                Some(slot) => *slot,
                None => {
                    let pack = packs.get(&place.pack).and_then(Option::as_ref);
                    let read = pack.map(|pack| read_up_to(pack, offset_of(place.slot), &mut chunk));
                    if !matches!(read, Some(Ok(CHUNK))) || ChunkName::of(&chunk) != name {
                        continue;
                    }
                    let slot = writer.add(name, &chunk)?;
                    slots.insert(name, slot);
                    slot
                }
            };
            moved.insert(place, slot);
        }
        Ok(())
    }

    /// Chunks in use of these packs, by the names that snapshots know them by, in the order in which they lie.
    fn names_in(&self, packs: &BTreeSet<PackId>) -> Result<Vec<(Place, ChunkName)>, CompactError> {
        let mut found = BTreeMap::new();
        for id in self.list() {
            for laid in laid(&self.read_manifest(id)?) {
                if let Some(place) = laid.place().filter(|place| packs.contains(&place.pack)) {
                    found.insert((place.pack, place.slot), (place, laid.name));
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Makes the new pack durable and known, pinned.
    fn admit(
        &self,
        mut writer: PackWriter<'_>,
        victims: &BTreeSet<PackId>,
    ) -> Result<PackId, CompactError> {
        let mut hasher = blake3::Hasher::new();
        for victim in victims {
            hasher.update(victim.as_bytes());
        }
        let mut salt = [0; SALT];
        hasher.finalize_xof().fill(&mut salt);
        let id = match self.name_compacted(&mut writer, &salt) {
            Ok(id) => id,
            Err(error) => {
                // The next open sweeps it if it stays; the first error is the one to tell.
                self.files.remove_file(writer.path()).ok();
                return Err(error.into());
            }
        };
        let mut state = self.state();
        state.add_pack(id, writer.names());
        state.pin(id);
        Ok(id)
    }

    fn name_compacted(
        &self,
        writer: &mut PackWriter<'_>,
        salt: &[u8; SALT],
    ) -> Result<PackId, FileError> {
        let id = writer.finish(salt)?;
        let path = self.pack_path(id);
        self.files.rename(writer.path(), &path)?;
        let synced = self.files.sync_directory(&self.directory.join("packs"));
        if synced.is_err() {
            // Nobody names it yet.
            self.files.remove_file(&path)?;
        }
        synced.map(|()| id)
    }

    /// Has every snapshot refer to the new pack where its chunks were moved there.
    fn point_to(&self, new: PackId, moved: &HashMap<Place, u32>) -> Result<(), CompactError> {
        for id in self.list() {
            let mut manifest = self.read_manifest(id)?;
            let mut changed = false;
            let mut chunks: Vec<Laid> = laid(&manifest).collect();
            for chunk in &mut chunks {
                if let Some(slot) = chunk.place().and_then(|place| moved.get(&place)) {
                    chunk.pack = new;
                    chunk.offset = offset_of(*slot);
                    changed = true;
                }
            }
            if changed {
                let order: Vec<_> = manifest.table.working_set().collect();
                let ram_bytes = manifest.table.ram_bytes();
                let before = manifest.packs.clone();
                (manifest.packs, manifest.table) = lay_out(ram_bytes, &chunks, &order)?;
                let written = self.rewrite_manifest(&manifest);
                let packs = match &written {
                    Ok(()) => manifest.packs,
                    // Either manifest may be there: the packs of both stay.
                    Err(_) => before.into_iter().chain(manifest.packs).collect(),
                };
                self.state().adopt(id, packs);
                written?;
            }
        }
        Ok(())
    }
}

/// Which packs to empty.
fn choose<'a>(
    fills: &BTreeMap<PackId, Fill>,
    snapshots: impl Iterator<Item = &'a Vec<PackId>>,
) -> BTreeSet<PackId> {
    let half_empty = fills.iter().filter(|(_, fill)| fill.live * 2 < fill.slots);
    let mut victims: BTreeSet<_> = half_empty.map(|(id, _)| *id).collect();
    for packs in snapshots.filter(|packs| packs.len() > PACKS_MANY) {
        let mut by_size: Vec<_> = packs
            .iter()
            .filter_map(|id| Some((fills.get(id)?.live, *id)))
            .collect();
        by_size.sort_unstable();
        // One more, as the new pack is one too.
        by_size.truncate(packs.len() - PACKS_MANY / 2 + 1);
        victims.extend(by_size.into_iter().map(|(_, id)| id));
    }
    victims
}
