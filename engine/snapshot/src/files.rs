//! Everything that changes the disk.
//!
//! Invariant: what is created is new and readable by this user alone, since it is the memory of a machine; a file is
//! written from its beginning to its end and never again. Tests put a gate before each step to have it fail or to kill
//! the process there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// A file or directory of the store cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No space.
    #[error(
        "no space is left for {}: free space on the disk of the snapshots and try again", path.display()
    )]
    Full {
        /// What was written.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        if full.contains(&source.raw_os_error()) {
            Self::Full { path, source }
        } else {
            Self::Io {
                action,
                path,
                source,
            }
        }
    }
}

/// A step that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    CreateDirectory,
    Create,
    Write,
    Sync,
    SyncDirectory,
    Rename,
    Remove,
}

#[cfg(test)]
pub(crate) type Gate = Box<dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync>;

/// The way to the disk.
#[derive(Default)]
pub(crate) struct Files {
    #[cfg(test)]
    pub(crate) gate: Option<Gate>,
}

impl Files {
    #[cfg(test)]
    fn pass(&self, step: Step, path: &Path) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate(step, path))
    }

    #[cfg(not(test))]
    fn pass(&self, _: Step, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn step(
        &self,
        step: Step,
        path: &Path,
        action: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), FileError> {
        let words = match step {
            Step::CreateDirectory | Step::Create => "create",
            Step::Write => "write",
            Step::Sync | Step::SyncDirectory => "sync",
            Step::Rename => "rename",
            Step::Remove => "remove",
        };
        let done = self.pass(step, path).and_then(|()| action());
        done.map_err(|source| FileError::new(words, path, source))
    }

    /// Creates a directory that is not there.
    pub(crate) fn create_directory(&self, path: &Path) -> Result<(), FileError> {
        self.step(Step::CreateDirectory, path, || {
            DirBuilder::new().mode(0o700).create(path)
        })
    }

    /// Creates a directory unless it is there.
    pub(crate) fn ensure_directory(&self, path: &Path) -> Result<(), FileError> {
        if path.is_dir() {
            return Ok(());
        }
        self.step(Step::CreateDirectory, path, || {
            DirBuilder::new().mode(0o700).recursive(true).create(path)
        })
    }

    /// Creates a file that is not there.
    pub(crate) fn create(&self, path: PathBuf) -> Result<NewFile<'_>, FileError> {
        let mut made = None;
        self.step(Step::Create, &path, || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            made = Some(options.open(&path)?);
            Ok(())
        })?;
        let never = || FileError::new("create", &path, io::ErrorKind::NotFound.into());
        let file = made.ok_or_else(never)?;
        Ok(NewFile {
            files: self,
            file,
            path,
            length: 0,
        })
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_directory(&self, path: &Path) -> Result<(), FileError> {
        self.step(Step::SyncDirectory, path, || File::open(path)?.sync_all())
    }

    /// Gives a file or directory another name, in place of what has it.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.step(Step::Rename, to, || std::fs::rename(from, to))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        self.step(Step::Remove, path, || or_absent(std::fs::remove_file(path)))
    }

    /// Removes a directory and all that is in it, if it is there.
    pub(crate) fn remove_directory(&self, path: &Path) -> Result<(), FileError> {
        self.step(Step::Remove, path, || {
            or_absent(std::fs::remove_dir_all(path))
        })
    }
}

fn or_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A file in the making, written from its beginning to its end.
pub(crate) struct NewFile<'a> {
    files: &'a Files,
    file: File,
    path: PathBuf,
    length: u64,
}

impl NewFile<'_> {
    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.files.step(Step::Write, &self.path, || {
            self.file.write_all_at(bytes, self.length)
        })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Goes on so many bytes further; what lies between reads as zeros and takes no space.
    pub(crate) fn skip(&mut self, bytes: u64) -> Result<(), FileError> {
        let length = self.length + bytes;
        self.files
            .step(Step::Write, &self.path, || self.file.set_len(length))?;
        self.length = length;
        Ok(())
    }

    /// Gives the space of a range back, which reads as zeros then.
    pub(crate) fn punch(&self, offset: u64, bytes: u64) -> Result<(), FileError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.files.step(Step::Write, &self.path, || {
            match fallocate(&self.file, flags, offset, bytes) {
                // A file system without holes keeps the bytes, which nobody refers to.
                Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        })
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        self.files
            .step(Step::Sync, &self.path, || self.file.sync_data())
    }
}
