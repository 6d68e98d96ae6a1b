//! What there is: chunks, packs, snapshots.
//!
//! Invariant: each place in the index is in a pack that is in `packs`; a pack leaves it only when it has neither users nor
//! pins, so that a save which has found a chunk there can count on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use brood_units::SnapshotId;

use crate::chunk::ChunkName;
use crate::pack::PackId;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) pack: PackId,
    pub(super) slot: u32,
}

pub(super) struct PackState {
    pub(super) slots: u32,
    /// Snapshots whose manifest names it.
    pub(super) users: BTreeSet<SnapshotId>,
    /// Saves and compactions that count on it.
    pub(super) pins: u32,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) index: HashMap<ChunkName, Place>,
    pub(super) packs: HashMap<PackId, PackState>,
    /// Snapshots and the packs they name.
    pub(super) snapshots: BTreeMap<SnapshotId, Vec<PackId>>,
    /// Snapshots whose manifest cannot be read, and why.
    pub(super) unreadable: BTreeMap<SnapshotId, String>,
    /// Packs that nobody needs and that could not be deleted yet.
    pub(super) undeleted: BTreeSet<PackId>,
    /// Ids of saves under way.
    pub(super) saving: BTreeSet<SnapshotId>,
}

impl State {
    /// A snapshot is there, with these packs from now on.
    pub(super) fn adopt(&mut self, id: SnapshotId, packs: Vec<PackId>) {
        self.release(id);
        for pack in &packs {
            if let Some(state) = self.packs.get_mut(pack) {
                state.users.insert(id);
            }
        }
        self.snapshots.insert(id, packs);
    }

    /// A snapshot is there no more.
    pub(super) fn release(&mut self, id: SnapshotId) {
        self.unreadable.remove(&id);
        for pack in self.snapshots.remove(&id).unwrap_or_default() {
            if let Some(state) = self.packs.get_mut(&pack) {
                state.users.remove(&id);
            }
        }
    }

    /// A pack is there, with chunks of these names by slot. Where a chunk is known elsewhere it is looked for here now.
    pub(super) fn add_pack(&mut self, id: PackId, names: &[Option<ChunkName>]) {
        for (slot, name) in (0..).zip(names) {
            if let Some(name) = name {
                self.index.insert(*name, Place { pack: id, slot });
            }
        }
        let users = self.snapshots.iter();
        let users = users.filter(|(_, packs)| packs.contains(&id));
        let state = PackState {
            slots: u32::try_from(names.len()).unwrap_or(u32::MAX),
            users: users.map(|(user, _)| *user).collect(),
            pins: self.packs.get(&id).map_or(0, |before| before.pins),
        };
        self.packs.insert(id, state);
        self.undeleted.remove(&id);
    }

    /// Where a chunk is, in a pack that is pinned by `pinned` or can be, as long as that has at most `most`.
    pub(super) fn find_and_pin(
        &mut self,
        name: &ChunkName,
        pinned: &mut BTreeSet<PackId>,
        most: usize,
    ) -> Option<Place> {
        let place = *self.index.get(name)?;
        if !pinned.contains(&place.pack) {
            if pinned.len() >= most {
                return None;
            }
            self.packs.get_mut(&place.pack)?.pins += 1;
            pinned.insert(place.pack);
        }
        Some(place)
    }

    pub(super) fn pin(&mut self, pack: PackId) {
        if let Some(state) = self.packs.get_mut(&pack) {
            state.pins += 1;
        }
    }

    pub(super) fn unpin(&mut self, packs: &BTreeSet<PackId>) {
        for pack in packs {
            if let Some(state) = self.packs.get_mut(pack) {
                state.pins = state.pins.saturating_sub(1);
            }
        }
    }

    /// Takes out all packs that nobody names or counts on, and those that could not be deleted before.
    pub(super) fn take_unused(&mut self) -> BTreeSet<PackId> {
        // A manifest that cannot be read may name any of them.
        if !self.unreadable.is_empty() {
            return BTreeSet::new();
        }
        let unused = |state: &PackState| state.users.is_empty() && state.pins == 0;
        let packs = self.packs.iter().filter(|(_, state)| unused(state));
        let mut packs: BTreeSet<_> = packs.map(|(id, _)| *id).collect();
        if !packs.is_empty() {
            self.packs.retain(|id, _| !packs.contains(id));
            self.index.retain(|_, place| !packs.contains(&place.pack));
        }
        packs.append(&mut self.undeleted);
        packs
    }
}
