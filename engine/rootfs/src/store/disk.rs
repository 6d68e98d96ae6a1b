//! Root disks of images. Invariant: a disk's key says all that its bytes depend on, so one with that key is the one; two who
//! want it make it once.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;

use super::{Image, Session, Store, StoreError, failed};
use crate::build::{DiskOptions, PackedLayer, build};
use crate::digest::Digest;

/// A root disk in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What it is called: a digest of its layers and options.
    pub key: Digest,
    /// The file, read-only; who has it open keeps it although it is collected.
    pub path: PathBuf,
}

/// The first line of what a key is the digest of: another one where another disk is made of the same.
const KIND: &str = "brood root disk 1";

fn key(image: &Image, options: DiskOptions) -> Digest {
    let mut text = format!("{KIND}\nfree {}\n", options.free);
    for layer in &image.layers {
        text.push_str(&format!("{}\n", layer.diff_id));
    }
    Digest::of(text.as_bytes())
}

impl Store {
    fn disk_path(&self, key: &Digest) -> PathBuf {
        self.root.join("disks").join(format!("{}.ext4", key.hex()))
    }

    /// A disk by its key.
    ///
    /// # Errors
    /// There is none.
    pub fn disk(&self, key: &Digest) -> Result<Disk, StoreError> {
        let path = self.disk_path(key);
        if path.is_file() {
            return Ok(Disk { key: *key, path });
        }
        Err(StoreError::Missing { digest: *key })
    }
}

impl Session {
    /// The root disk of an image: the one that is there, or one that is made now. It is garbage until it has a name.
    ///
    /// # Errors
    /// A layer is refused or missing, or there is no room.
    pub fn disk(&self, image: &Image, options: DiskOptions) -> Result<Disk, StoreError> {
        let key = key(image, options);
        if let Ok(disk) = self.store.disk(&key) {
            return Ok(disk);
        }
        let _lock = self.lock(&format!("disk-{}", key.hex()))?;
        if let Ok(disk) = self.store.disk(&key) {
            return Ok(disk);
        }
        let layers = image.layers.iter().map(|layer| {
            let file = self.blob(&layer.blob)?;
            Ok(PackedLayer {
                packed: Box::new(BufReader::with_capacity(1 << 16, file)),
                diff_id: Some(layer.diff_id),
            })
        });
        let made = self.scratch().join("disk");
        let limits = self.store.limits;
        self.store.step("making", &made, || Ok(()))?;
        build::<StoreError>(layers, limits, options, self.scratch(), &made)?;
        let path = self.store.disk_path(&key);
        let file = File::open(&made).map_err(|source| failed("opening", &made, source))?;
        self.store.settle(&file, &made, &path)?;
        Ok(Disk { key, path })
    }
}

impl Disk {
    /// Bytes that it takes on the host.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn host_bytes(&self) -> Result<u64, StoreError> {
        let metadata = fs::metadata(&self.path);
        let metadata = metadata.map_err(|source| failed("looking at", &self.path, source))?;
        Ok(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
    }
}
