//! Removing what no name leads to. Invariant: nothing is removed while there is a session, or if one name cannot be followed to
//! its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{RefKind, Store, StoreError, failed, files};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs, and parts of some.
    pub blobs: u64,
    /// Disks.
    pub disks: u64,
    /// Bytes that both took on the host.
    pub bytes: u64,
}

impl Store {
    /// Removes what no name leads to.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while somebody adds; a name that leads to something that is not there.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        let Some(_exclusive) = self.exclusively()? else {
            return Err(StoreError::Busy);
        };
        let mut kept = BTreeSet::new();
        for named in self.names(RefKind::Image)? {
            let image = self.image(&named.target)?;
            kept.insert(self.blob_path(&named.target));
            kept.insert(self.config_path(&named.target)?);
            kept.extend(image.layers.iter().map(|layer| self.blob_path(&layer.blob)));
        }
        for named in self.names(RefKind::Disk)? {
            kept.insert(self.disk(&named.target)?.path);
        }
        let mut collected = Collected::default();
        for (part, is_disk) in [("blobs", false), ("partial", false), ("disks", true)] {
            for path in files(&self.root.join(part))? {
                if kept.contains(&path) {
                    continue;
                }
                let looked = fs::metadata(&path);
                let metadata = looked.map_err(|source| failed("looking at", &path, source))?;
                self.step("removing", &path, || fs::remove_file(&path))?;
                collected.bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
                if is_disk {
                    collected.disks += 1;
                } else {
                    collected.blobs += 1;
                }
            }
        }
        // Whoever holds one of these is in a session.
        for path in files(&self.root.join("locks"))? {
            self.step("removing", &path, || fs::remove_file(&path))?;
        }
        self.sweep()?;
        Ok(collected)
    }

    fn config_path(&self, manifest: &crate::Digest) -> Result<PathBuf, StoreError> {
        use crate::manifest::{Document, ManifestError};
        match Document::parse(&self.document(manifest)?)? {
            Document::Manifest(manifest) => Ok(self.blob_path(&manifest.config.digest)),
            Document::Elsewhere(_) => Err(ManifestError::Neither.into()),
        }
    }
}
