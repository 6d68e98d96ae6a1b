//! One layer onto a tree, as the OCI image specification has it (image-spec, layer.md, "Applying Changesets").
//!
//! Invariant: a whiteout takes away what lower layers have and nothing of its own layer, in whatever order they come; whoever
//! replaces a name replaces all of it, and only a directory that meets a directory keeps what is below.

use std::io::{self, BufRead, BufReader, Read};

use crate::compression;
use crate::digest::{Digest, Hashing};
use crate::entry::{End, Entries, Entry, EntryKind, Meta};
use crate::error::{At, UnpackError};
use crate::limits::{self, Limits};
use crate::stage::Stage;
use crate::tree::{Inode, Kind, Number, PathError, Tree, parts};

/// image-spec, layer.md, "Whiteouts"
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept for itself.
const OWN: &[u8] = b".wh..wh.";

/// Where ext4 keeps attributes under a short prefix; it has no others (fs/ext4/xattr.h).
const ATTRIBUTES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Applies layers, the lowest first.
pub(crate) struct Layers<'a> {
    limits: Limits,
    stage: &'a mut Stage,
    tree: Tree,
    layer: usize,
    bytes: u64,
    entries: u64,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(stage: &'a mut Stage, limits: Limits) -> Self {
        Self {
            limits,
            stage,
            tree: Tree::new(),
            layer: 0,
            bytes: 0,
            entries: 0,
        }
    }

    /// What all of them make together.
    pub(crate) fn tree(self) -> Tree {
        self.tree
    }

    /// Applies one. `wanted` is its digest before it was packed; without it, it has to end as a tar file must.
    pub(crate) fn apply(
        &mut self,
        packed: impl BufRead,
        wanted: Option<Digest>,
    ) -> Result<(), UnpackError> {
        self.layer += 1;
        let at = At(self.layer);
        if self.layer > self.limits.layers {
            let limit = u64::try_from(self.limits.layers).unwrap_or(u64::MAX);
            return Err(at.limit(b"", "layers", limit));
        }
        let unpacked = compression::unpacked(packed).map_err(|error| at.read(error))?;
        let hashing = Hashing::new(BufReader::with_capacity(1 << 16, unpacked));
        let mut entries = Entries::new(hashing, at);
        while let Some(entry) = entries.next()? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(at.limit(&entry.name, "entries", self.limits.entries));
            }
            self.entry(entry, &mut entries)?;
            for content in self.tree.forgotten() {
                self.stage.forget(content)?;
            }
        }
        let end = entries.end();
        let mut rest = entries.into_source();
        // What follows the end counts in the digest, and is nothing that an archiver would write much of.
        let most = self.limits.bytes.saturating_sub(self.bytes);
        let drained = io::copy(&mut rest.by_ref().take(most), &mut io::sink());
        if drained.map_err(|error| at.read(error))? >= most {
            return Err(at.limit(b"", "bytes", self.limits.bytes));
        }
        let found = rest.digest();
        match wanted {
            Some(wanted) if wanted != found => Err(UnpackError::Digest {
                layer: self.layer,
                wanted,
                found,
            }),
            None if end != Some(End::Marked) => {
                Err(at.read(io::Error::new(io::ErrorKind::UnexpectedEof, UNMARKED)))
            }
            _ => Ok(()),
        }
    }

    fn entry<R: Read>(
        &mut self,
        entry: Entry,
        content: &mut Entries<R>,
    ) -> Result<(), UnpackError> {
        let at = At(self.layer);
        let name = entry.name.clone();
        let refused = |error: PathError| at.entry(&name, error.to_string());
        let path = parts(&entry.name).map_err(refused)?;
        let Some((last, parents)) = path.split_last() else {
            return self.root(&entry);
        };
        if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(at.entry(&name, "it lies below a whiteout, which is no directory"));
        }
        if last.starts_with(WHITEOUT) {
            return self.whiteout(parents, last).map_err(refused);
        }
        check_attributes(at, &entry)?;
        let directory = self
            .tree
            .directory(parents, Some(self.layer))
            .map_err(refused)?;
        let kind = match entry.kind {
            EntryKind::Directory => {
                let there = self.tree.name(directory, last);
                let merged = there.filter(|there| self.tree.names(there.inode).is_some());
                if let Some(there) = merged {
                    return self.describe(directory, last, there.inode, entry.meta);
                }
                Kind::Directory(Default::default())
            }
            EntryKind::Hard(target) => {
                let inode = self.target(&target).map_err(|error| {
                    let target = crate::error::shown(&target);
                    at.entry(&name, format!("a hard link to '{target}': {error}"))
                })?;
                let linked = self.tree.link(directory, last, inode, self.layer);
                return linked.map_err(refused);
            }
            EntryKind::Symbolic(target) => {
                if target.is_empty() || target.len() > limits::LINK || target.contains(&0) {
                    return Err(at.entry(&name, "a link to nothing, or to more than 4095 bytes"));
                }
                Kind::Symbolic(target)
            }
            EntryKind::Node(node) => Kind::Node(node),
            EntryKind::File => {
                self.bytes = self.bytes.saturating_add(entry.size);
                if self.bytes > self.limits.bytes {
                    return Err(at.limit(&name, "bytes", self.limits.bytes));
                }
                let kept = match entry.size {
                    0 => None,
                    bytes => Some(self.stage.keep(content, bytes, at)?),
                };
                Kind::File {
                    bytes: entry.size,
                    content: kept,
                }
            }
        };
        let inode = Inode::new(entry.meta, kind);
        let put = self.tree.put(directory, last, inode, self.layer);
        put.map(drop).map_err(refused)
    }

    /// An entry for the root itself describes it.
    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let at = At(self.layer);
        if entry.kind != EntryKind::Directory {
            return Err(at.entry(&entry.name, "the root of an image is a directory"));
        }
        check_attributes(at, entry)?;
        if let Some(root) = self.tree.inode_mut(crate::tree::ROOT) {
            root.meta = entry.meta.clone();
        }
        Ok(())
    }

    /// A directory over a directory.
    fn describe(
        &mut self,
        directory: Number,
        name: &[u8],
        inode: Number,
        meta: Meta,
    ) -> Result<(), UnpackError> {
        if let Some(there) = self.tree.inode_mut(inode) {
            there.meta = meta;
        }
        self.tree.touch(directory, name, self.layer);
        Ok(())
    }

    /// What a hard link names.
    fn target(&mut self, target: &[u8]) -> Result<Number, PathError> {
        let path = parts(target)?;
        let (last, parents) = path.split_last().ok_or(PathError::Missing)?;
        let directory = self.tree.directory(parents, None)?;
        let name = self.tree.name(directory, last).ok_or(PathError::Missing)?;
        if self.tree.names(name.inode).is_some() {
            return Err(PathError::IsADirectory);
        }
        Ok(name.inode)
    }

    fn whiteout(&mut self, parents: &[&[u8]], last: &[u8]) -> Result<(), PathError> {
        let directory = match self.tree.directory(parents, None) {
            Ok(directory) => directory,
            // Nothing is there to be taken away.
            Err(PathError::Missing) => return Ok(()),
            Err(error) => return Err(error),
        };
        if last == OPAQUE {
            self.tree.purge(directory, self.layer);
        } else if !last.starts_with(OWN) {
            let hidden = last.strip_prefix(WHITEOUT).unwrap_or_default();
            self.tree.hide(directory, hidden, self.layer);
        }
        Ok(())
    }
}

const UNMARKED: &str =
    "the archive ends without the zeros that end one, so something may be missing";

fn check_attributes(at: At, entry: &Entry) -> Result<(), UnpackError> {
    let attributes = &entry.meta.attributes;
    let bytes: usize = attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > limits::ATTRIBUTES {
        let what = "more than 3072 bytes of extended attributes, for which ext4 has no room";
        return Err(at.entry(&entry.name, what));
    }
    for name in attributes.keys() {
        let known = LISTS.contains(&name.as_slice())
            || ATTRIBUTES.iter().any(|prefix| {
                name.strip_prefix(*prefix)
                    .is_some_and(|rest| !rest.is_empty())
            });
        let writable = name.len() <= limits::NAME && name.iter().all(u8::is_ascii_graphic);
        if !known || !writable || name.contains(&b'"') {
            let name = crate::error::shown(name);
            let what = format!("an extended attribute '{name}' that ext4 does not have");
            return Err(at.entry(&entry.name, what));
        }
    }
    Ok(())
}
