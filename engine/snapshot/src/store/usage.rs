//! What takes how much space.
//!
//! Invariant: `alone` is what removing a snapshot and compacting would give back; each chunk in use counts once, for the
//! one snapshot that has it alone or as shared.

use std::collections::HashMap;

use brood_units::SnapshotId;

use super::layout::laid;
use super::snapshot::ReadError;
use super::state::Place;
use super::{MANIFEST, SnapshotStore};
use crate::chunk::CHUNK;
use crate::files::FileError;
use crate::pack::PackId;

/// Space of one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotUsage {
    /// Which.
    pub id: SnapshotId,
    /// Bytes of RAM of its machine.
    pub ram_bytes: u64,
    /// Bytes of chunks that no other snapshot has.
    pub alone: u64,
    /// Bytes of chunks that others have too.
    pub shared: u64,
    /// Bytes of manifest, state and disks; holes in disks count.
    pub files: u64,
}

/// Space of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each snapshot that can be read.
    pub snapshots: Vec<SnapshotUsage>,
    /// Bytes of chunks in packs, in use or not.
    pub packed: u64,
    /// Bytes of chunks in packs that no snapshot has.
    pub unused: u64,
}

/// Who has the chunk of a slot.
#[derive(Clone, Copy, Default)]
enum Owner {
    #[default]
    None,
    One(usize),
    Many,
}

impl SnapshotStore {
    /// Counts all of it. It reads every manifest.
    ///
    /// # Errors
    /// A manifest cannot be read; one that is removed meanwhile is left out.
    pub fn usage(&self) -> Result<Usage, ReadError> {
        let _publishing = self.publishing();
        let mut owners = self.slots::<Owner>();
        let ids = self.list();
        for (number, id) in ids.iter().enumerate() {
            self.for_each_slot(*id, |place| {
                if let Some(owner) = slot(&mut owners, place) {
                    *owner = match *owner {
                        Owner::None => Owner::One(number),
                        Owner::One(other) if other == number => Owner::One(number),
                        Owner::One(_) | Owner::Many => Owner::Many,
                    };
                }
            })?;
        }
        let mut usage = Usage::default();
        for (number, id) in ids.iter().enumerate() {
            usage.snapshots.push(self.usage_of(*id, number, &owners)?);
        }
        let all = owners.values().flatten();
        let (mut slots, mut unused) = (0, 0);
        for owner in all {
            slots += CHUNK as u64;
            unused += u64::from(matches!(owner, Owner::None)) * CHUNK as u64;
        }
        (usage.packed, usage.unused) = (slots, unused);
        Ok(usage)
    }

    fn usage_of(
        &self,
        id: SnapshotId,
        number: usize,
        owners: &HashMap<PackId, Vec<Owner>>,
    ) -> Result<SnapshotUsage, ReadError> {
        let manifest = self.read_manifest(id)?;
        let path = self.snapshot_path(id).join(MANIFEST);
        let length = std::fs::metadata(&path);
        let length = length.map_err(|source| FileError::new("read", &path, source))?;
        let record = &manifest.record;
        let files: u64 = record.disks.iter().map(|disk| disk.bytes).sum();
        let mut usage = SnapshotUsage {
            id,
            ram_bytes: manifest.table.ram_bytes(),
            alone: 0,
            shared: 0,
            files: files + record.state.bytes + length.len(),
        };
        let mut places: Vec<_> = laid(&manifest).filter_map(|laid| laid.place()).collect();
        places.sort_unstable_by_key(|place| (place.pack, place.slot));
        places.dedup();
        for place in places {
            let owner = owners.get(&place.pack);
            match owner.and_then(|slots| slots.get(place.slot as usize)) {
                Some(Owner::One(one)) if *one == number => usage.alone += CHUNK as u64,
                Some(_) => usage.shared += CHUNK as u64,
                None => {}
            }
        }
        Ok(usage)
    }

    /// Something for each slot of each pack.
    pub(super) fn slots<T: Clone + Default>(&self) -> HashMap<PackId, Vec<T>> {
        let state = self.state();
        let packs = state.packs.iter();
        packs
            .map(|(id, state)| (*id, vec![T::default(); state.slots as usize]))
            .collect()
    }

    /// Every slot that a snapshot refers to, some more than once.
    pub(super) fn for_each_slot(
        &self,
        id: SnapshotId,
        mut each: impl FnMut(Place),
    ) -> Result<(), ReadError> {
        let manifest = self.read_manifest(id)?;
        laid(&manifest)
            .filter_map(|laid| laid.place())
            .for_each(&mut each);
        Ok(())
    }
}

/// What there is for a slot.
pub(super) fn slot<T>(slots: &mut HashMap<PackId, Vec<T>>, place: Place) -> Option<&mut T> {
    slots.get_mut(&place.pack)?.get_mut(place.slot as usize)
}
