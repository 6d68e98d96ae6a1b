//! Names of images and disks. Invariant: a name stands for something whole, as it is written after that and at once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Session, Store, StoreError, failed, files};
use crate::digest::Digest;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefKind {
    /// A manifest, with all its content.
    Image,
    /// A root disk.
    Disk,
}

/// A name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As it was given.
    pub name: String,
    /// What it stands for: the digest of a manifest, or the key of a disk.
    pub target: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    target: String,
}

impl RefKind {
    fn directory(self) -> &'static str {
        match self {
            Self::Image => "refs/images",
            Self::Disk => "refs/disks",
        }
    }
}

impl Session {
    /// Gives a name, or moves it.
    ///
    /// # Errors
    /// There is no room.
    pub fn name(&self, kind: RefKind, name: &str, target: Digest) -> Result<(), StoreError> {
        let to = self.store.ref_path(kind, name);
        let from = self.scratch().join("name");
        let written = Written {
            name: name.to_owned(),
            target: target.to_string(),
        };
        let json = serde_json::to_vec(&written).map_err(|source| StoreError::Name {
            path: to.clone(),
            source,
        })?;
        let mut file = self.store.step("making", &from, || File::create(&from))?;
        self.store
            .step("writing", &from, || file.write_all(&json))?;
        self.store.settle(&file, &from, &to)
    }
}

impl Store {
    fn ref_path(&self, kind: RefKind, name: &str) -> PathBuf {
        // A name may be longer than that of a file, and may have slashes.
        let file = Digest::of(name.as_bytes()).hex();
        self.root.join(kind.directory()).join(file)
    }

    /// All names, by their files' names.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn names(&self, kind: RefKind) -> Result<Vec<Named>, StoreError> {
        let paths = files(&self.root.join(kind.directory()))?;
        let named = paths.into_iter().map(|path| self.read_name(path));
        // One that was taken away meanwhile is none.
        named.filter_map(Result::transpose).collect()
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// There is no such name.
    pub fn named(&self, kind: RefKind, name: &str) -> Result<Digest, StoreError> {
        let path = self.ref_path(kind, name);
        match self.read_name(path)? {
            Some(named) => Ok(named.target),
            None => Err(StoreError::NoSuchName {
                name: name.to_owned(),
            }),
        }
    }

    /// Takes a name away; what it stood for stays until garbage is collected. Says whether there was one.
    ///
    /// # Errors
    /// The host refuses.
    pub fn forget(&self, kind: RefKind, name: &str) -> Result<bool, StoreError> {
        let path = self.ref_path(kind, name);
        let removed = self.step("removing", &path, || match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        })?;
        self.sync_directory(&path)?;
        Ok(removed)
    }

    fn read_name(&self, path: PathBuf) -> Result<Option<Named>, StoreError> {
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("reading", &path, source)),
        };
        let wrong = |source| StoreError::Name {
            path: path.clone(),
            source,
        };
        let written: Written = serde_json::from_slice(&json).map_err(wrong)?;
        let target = written.target.parse::<Digest>();
        let target = target
            .map_err(|error| wrong(<serde_json::Error as serde::de::Error>::custom(error)))?;
        Ok(Some(Named {
            name: written.name,
            target,
        }))
    }
}
