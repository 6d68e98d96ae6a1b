//! Files of the guest. Invariant: paths are absolute in the guest, and contents travel in chunks of at most
//! [`crate::frame::CHUNK`] bytes, so a file of any size passes.

use serde::{Deserialize, Serialize};

/// An operation on a file, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileOp {
    /// Opening it.
    Open,
    /// Reading it.
    Read,
    /// Writing it.
    Write,
    /// Setting its mode.
    Chmod,
    /// Making its contents durable.
    Sync,
    /// Renaming the finished file over its target.
    Rename,
    /// Listing a directory.
    List,
    /// Asking for its metadata.
    Stat,
    /// Removing it.
    Remove,
    /// Making a directory.
    Mkdir,
}

/// What happens to bytes that are already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteAt {
    /// The file must not exist.
    CreateNew,
    /// The file is made or emptied.
    Truncate,
    /// The bytes go behind its end.
    Append,
    /// The bytes go to this offset, in bytes, of a file made if need be.
    Offset(u64),
}

/// Whether a reader may see half a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Atomicity {
    /// The file is written where it is.
    InPlace,
    /// The bytes go to a temporary file in the same directory, which is synchronised and renamed over the target
    /// (rename(2)). Only with [`WriteAt::Truncate`].
    Rename,
}

/// A file to write; chunks follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSpec {
    /// Its absolute path.
    pub path: String,
    /// Where the bytes go.
    pub at: WriteAt,
    /// Permission bits to set, `0o7777` at most; a file that exists keeps its own if none.
    pub mode: Option<u32>,
    /// Whether a reader may see half of it.
    pub atomicity: Atomicity,
}

impl WriteSpec {
    /// Replaces the file at `path` in one step, with permission bits `mode`.
    pub fn replace(path: impl Into<String>, mode: u32) -> Self {
        Self {
            path: path.into(),
            at: WriteAt::Truncate,
            mode: Some(mode),
            atomicity: Atomicity::Rename,
        }
    }
}

/// A part of a file to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSpec {
    /// Its absolute path. Only regular files are read.
    pub path: String,
    /// The first byte.
    pub offset: u64,
    /// At most so many bytes; to the end if none.
    pub len: Option<u64>,
}

/// How deep a removal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoveDepth {
    /// A file, a symbolic link or an empty directory.
    Single,
    /// A directory with all that is in it. Symbolic links are removed, not followed.
    Recursive,
}

/// Whether missing directories on the way are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MkdirParents {
    /// The parent must exist and the directory must not.
    Refuse,
    /// All missing directories are made, and an existing one is no error.
    Create,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

/// Metadata of a path; a symbolic link is not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of its contents, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Where a symbolic link points.
    pub link: Option<String>,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its name. Bytes that are no UTF-8 show as U+FFFD.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
}

/// Entries in one reply of a listing: as many names of 255 bytes, each shown as three, as surely fit in a frame.
pub const LIST_PAGE: usize = 256;

/// A page of a directory's entries, in the directory's own order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirPage {
    /// At most [`LIST_PAGE`] entries.
    pub entries: Vec<DirEntry>,
    /// Whether another page follows on this connection.
    pub rest: DirRest,
}

/// Whether a listing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirRest {
    /// Another page follows.
    More,
    /// This was the last.
    End,
}
