//! Removing a snapshot, and packs that nobody needs.
//!
//! Invariant: the snapshot is gone when its directory has another name; machines that were restored of it go on, as they
//! have descriptors of its packs.

use std::sync::MutexGuard;

use brood_units::SnapshotId;

use super::SnapshotStore;
use crate::files::FileError;

/// A snapshot is not removed, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error("there is no snapshot {0}")]
    Absent(SnapshotId),
    /// It is there as it was.
    #[error("the snapshot cannot be removed")]
    File(#[from] FileError),
    /// It is gone, and some of its files are not.
    #[error("the snapshot is removed, and some of its space is given back only at the next start")]
    Leftover(#[source] FileError),
}

impl SnapshotStore {
    /// Removes a snapshot, one whose manifest is damaged too, and each pack that nobody names any more. Space of chunks in
    /// packs that others name is given back by [`Self::compact`].
    ///
    /// # Errors
    /// There is no such snapshot, or the disk does not let it go; see [`RemoveError`].
    pub fn remove(&self, id: SnapshotId) -> Result<(), RemoveError> {
        let publishing = self.publishing();
        let there = {
            let state = self.state();
            state.snapshots.contains_key(&id) || state.unreadable.contains_key(&id)
        };
        if !there {
            return Err(RemoveError::Absent(id));
        }
        let removed = self.incoming_path(&format!("removed-{id}"));
        // What an earlier one of this id could not delete.
        self.files.remove_directory(&removed)?;
        let path = self.snapshot_path(id);
        self.files.rename(&path, &removed)?;
        let synced = self.files.sync_directory(&self.directory.join("snapshots"));
        if let Err(error) = synced {
            // Nobody knows whether it would be gone after a loss of power: it is better there.
            self.files.rename(&removed, &path)?;
            return Err(error.into());
        }
        self.state().release(id);
        self.files
            .remove_directory(&removed)
            .map_err(RemoveError::Leftover)?;
        self.collect(&publishing).map_err(RemoveError::Leftover)
    }

    /// Deletes the packs that nobody names or counts on.
    pub(super) fn collect(&self, _publishing: &MutexGuard<'_, ()>) -> Result<(), FileError> {
        let unused = self.state().take_unused();
        let mut result = Ok(());
        for pack in unused {
            if let Err(error) = self.files.remove_file(&self.pack_path(pack)) {
                self.state().undeleted.insert(pack);
                result = Err(error);
            }
        }
        result
    }
}
