//! Blobs on their way in. Invariant: a blob gets its name once its digest is what its name says, and what was fetched of it
//! stays for the next attempt unless it is known to be wrong.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Session, StoreError, failed};
use crate::digest::{Digest, Hashing};
use crate::manifest::Descriptor;

/// Bytes that are copied at once.
const PIECE: usize = 1 << 17;

/// A blob of a known digest that is being fetched, by nobody else.
pub(crate) struct Incoming<'a> {
    session: &'a Session,
    wanted: Descriptor,
    path: PathBuf,
    file: Hashing<File>,
    _lock: File,
}

impl Session {
    /// Whether there is such a blob.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.store.blob_path(digest).is_file()
    }

    /// Begins or goes on to fetch a blob; waits for whoever does. None if it is there.
    pub(crate) fn incoming(&self, wanted: &Descriptor) -> Result<Option<Incoming<'_>>, StoreError> {
        if self.has(&wanted.digest) {
            return Ok(None);
        }
        let limit = self.store.limits.layer_bytes;
        if wanted.size > limit {
            return Err(StoreError::Limit {
                bytes: wanted.size,
                limit,
            });
        }
        let lock = self.lock(&format!("blob-{}", wanted.digest.hex()))?;
        if self.has(&wanted.digest) {
            return Ok(None);
        }
        let path = self.store.root.join("partial").join(wanted.digest.hex());
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let file = self.store.step("making", &path, || options.open(&path))?;
        let mut incoming = Incoming {
            session: self,
            wanted: wanted.clone(),
            path,
            file: Hashing::new(file),
            _lock: lock,
        };
        incoming.reread()?;
        Ok(Some(incoming))
    }

    /// Adds what `source` has, whatever it is.
    pub(crate) fn add(&self, mut source: impl Read) -> Result<Descriptor, StoreError> {
        let path = self.scratch().join("blob");
        let mut file = self.store.step("making", &path, || File::create(&path))?;
        let mut hashing = Hashing::new(&mut source);
        let limit = self.store.limits.layer_bytes;
        copy(
            self,
            &mut (&mut hashing).take(limit.saturating_add(1)),
            &mut file,
            &path,
        )?;
        let size = hashing.count();
        if size > limit {
            return Err(StoreError::Limit { bytes: size, limit });
        }
        let digest = hashing.digest();
        let wanted = Descriptor { digest, size };
        if !self.has(&digest) {
            let to = self.store.blob_path(&digest);
            self.store.step("sealing", &path, || read_only(&file))?;
            self.store.settle(&file, &path, &to)?;
        }
        Ok(wanted)
    }

    /// Opens a blob.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<File, StoreError> {
        self.store.blob(digest)
    }
}

impl super::Store {
    pub(super) fn blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { digest: *digest },
            _ => failed("opening", &path, source),
        })
    }

    /// A small blob, whose digest is checked.
    pub(super) fn document(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let longest = crate::manifest::LONGEST;
        let file = self.blob(digest)?;
        let read = file.take(longest).read_to_end(&mut bytes);
        read.map_err(|source| failed("reading", &self.blob_path(digest), source))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(StoreError::Digest {
                wanted: *digest,
                found,
            });
        }
        Ok(bytes)
    }
}

impl Incoming<'_> {
    /// Bytes that are there already.
    pub(crate) fn have(&self) -> u64 {
        self.file.count()
    }

    /// Takes the digest of what an earlier attempt left.
    fn reread(&mut self) -> Result<(), StoreError> {
        let copied = io::copy(&mut self.file, &mut io::sink());
        copied.map_err(|source| failed("reading", &self.path, source))?;
        if self.have() > self.wanted.size {
            self.begin_anew()?;
        }
        Ok(())
    }

    /// Throws away what is there, for a source that does not go on in the middle.
    pub(crate) fn begin_anew(&mut self) -> Result<(), StoreError> {
        let (store, path) = (&self.session.store, &self.path);
        let file = self.file.inner_mut();
        store.step("emptying", path, || {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0)).map(drop)
        })?;
        self.file.forget();
        Ok(())
    }

    /// Adds what `source` has. What was written stays when it fails.
    pub(crate) fn take(
        &mut self,
        source: impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<(), TakeError> {
        // A byte more than is due shows that there is more.
        let most = (self.wanted.size - self.have().min(self.wanted.size)).saturating_add(1);
        let mut source = source.take(most);
        let mut piece = vec![0; PIECE];
        loop {
            let read = match source.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TakeError::Source(error)),
            };
            let bytes = piece.get(..read).unwrap_or_default();
            let (store, path) = (&self.session.store, &self.path);
            let file = self.file.inner_mut();
            store.step("writing", path, || file.write_all(bytes))?;
            self.file.seen(bytes);
            progress(self.have());
        }
    }

    /// Gives it its name. What is wrong is thrown away.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        let found = self.have();
        let store = &self.session.store;
        let Descriptor { digest, size } = self.wanted;
        let (file, is) = self.file.finish();
        let wrong = if found != size {
            Some(StoreError::Size {
                digest,
                wanted: size,
                found,
            })
        } else if is != digest {
            Some(StoreError::Digest {
                wanted: digest,
                found: is,
            })
        } else {
            None
        };
        if let Some(wrong) = wrong {
            store.step("removing", &self.path, || fs::remove_file(&self.path))?;
            return Err(wrong);
        }
        store.step("sealing", &self.path, || read_only(&file))?;
        store.settle(&file, &self.path, &store.blob_path(&digest))
    }
}

/// Why no more was taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// Where it comes from failed.
    #[error("the source failed")]
    Source(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn read_only(file: &File) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(0o444))
}

fn copy(
    session: &Session,
    source: &mut impl Read,
    file: &mut File,
    path: &std::path::Path,
) -> Result<(), StoreError> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("reading what becomes", path, error)),
        };
        let bytes = piece.get(..read).unwrap_or_default();
        session
            .store
            .step("writing", path, || file.write_all(bytes))?;
    }
}
