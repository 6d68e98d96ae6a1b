//! A tar file whose members are read by name. Invariant: a name leads to bytes of the archive; links in it are followed in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::SourceError;
use crate::entry::{Entries, EntryKind};
use crate::error::At;

/// Members that an archive may have.
const MOST: usize = 100_000;
/// Links from one member to another that are followed.
const FOLLOWED: usize = 8;

/// An archive, or a directory that looks like one.
pub(super) enum Members {
    Directory(PathBuf),
    Archive(PathBuf, BTreeMap<String, Member>),
}

pub(super) enum Member {
    At { offset: u64, bytes: u64 },
    Link(String),
}

impl Members {
    /// Those of an archive.
    pub(super) fn of(path: &Path) -> Result<Self, SourceError> {
        let read = |source| SourceError::Read {
            path: path.to_owned(),
            source,
        };
        let shape = |what: String| SourceError::Shape {
            path: path.to_owned(),
            what,
        };
        let mut file = BufReader::new(File::open(path).map_err(read)?);
        let mut first = [0; 2];
        if file.read(&mut first).map_err(read)? == 2 && first == [0x1f, 0x8b] {
            let what =
                "it is packed with gzip: unpack it first, as its members are read in any order";
            return Err(shape(what.to_owned()));
        }
        file.rewind().map_err(read)?;
        let mut entries = Entries::new(file, At(1));
        let mut members = BTreeMap::new();
        while let Some(entry) = entries.next().map_err(|error| shape(error.to_string()))? {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            let member = match entry.kind {
                EntryKind::File => Member::At {
                    offset: entries.position(),
                    bytes: entry.size,
                },
                EntryKind::Symbolic(target) => {
                    let target = String::from_utf8_lossy(&target);
                    Member::Link(beside(&name, &target))
                }
                EntryKind::Hard(target) => {
                    Member::Link(String::from_utf8_lossy(&target).into_owned())
                }
                _ => continue,
            };
            members.insert(name, member);
            if members.len() > MOST {
                return Err(shape(format!("it has more than {MOST} members")));
            }
        }
        Ok(Self::Archive(path.to_owned(), members))
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive(path, _) => path,
        }
    }

    /// Opens one.
    pub(super) fn open(&self, name: &str) -> Result<Box<dyn Read>, SourceError> {
        let read = |path: PathBuf| move |source| SourceError::Read { path, source };
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                let file = File::open(&path).map_err(read(path))?;
                Ok(Box::new(file))
            }
            Self::Archive(path, members) => {
                let (offset, bytes) = find(members, name).ok_or_else(|| SourceError::Shape {
                    path: path.clone(),
                    what: format!(
                        "it has no '{}': it is cut, or of another kind",
                        name.escape_debug()
                    ),
                })?;
                let mut file = File::open(path).map_err(read(path.clone()))?;
                file.seek(SeekFrom::Start(offset))
                    .map_err(read(path.clone()))?;
                Ok(Box::new(file.take(bytes)))
            }
        }
    }

    /// All of a small one.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let longest = crate::manifest::LONGEST;
        let mut bytes = Vec::new();
        let read = self.open(name)?.take(longest + 1).read_to_end(&mut bytes);
        let read = read.map_err(|source| SourceError::Read {
            path: self.path().join(name),
            source,
        })?;
        if u64::try_from(read).unwrap_or(u64::MAX) > longest {
            return Err(SourceError::Shape {
                path: self.path().to_owned(),
                what: format!("'{name}' has more than {longest} bytes"),
            });
        }
        Ok(bytes)
    }
}

fn find(members: &BTreeMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = name.strip_prefix("./").unwrap_or(name);
    for _ in 0..FOLLOWED {
        match members.get(name)? {
            Member::At { offset, bytes } => return Some((*offset, *bytes)),
            Member::Link(target) => name = target,
        }
    }
    None
}

/// A link's target, seen from the root of the archive; one that leads out of it names nothing in it.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A reader that fails where it ends before `bytes` bytes.
pub(super) struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Exactly<R> {
    pub(super) fn new(inner: R, bytes: u64) -> Self {
        Self { inner, left: bytes }
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        if room.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(room)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self
            .left
            .saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}
