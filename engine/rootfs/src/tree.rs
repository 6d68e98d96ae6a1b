//! What is below an image's root, in memory: names, links, owners; contents are files of the host that only their numbers are
//! known of here.
//!
//! Invariant: a path is resolved in this tree and never by the host, so no link of an image can reach a file of the host. Names
//! of directories are followed through links as in a root of their own; one that climbs above the root is refused.

use std::collections::{BTreeMap, VecDeque};

use crate::entry::{Meta, NodeKind};
use crate::limits;

/// An inode's place in the tree's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Number(usize);

/// The number of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content(pub(crate) u64);

#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
    /// Names that it has.
    pub(crate) links: u32,
}

impl Inode {
    /// One that has no name yet.
    pub(crate) fn new(meta: Meta, kind: Kind) -> Self {
        Self {
            meta,
            kind,
            links: 0,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Directory(BTreeMap<Vec<u8>, Name>),
    /// Bytes; without any there is no content.
    File {
        bytes: u64,
        content: Option<Content>,
    },
    Symbolic(Vec<u8>),
    Node(NodeKind),
}

/// What a name stands for, and which layer said so last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) inode: Number,
    pub(crate) layer: usize,
}

/// Why a name is none of a place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("a name with '..' in it, which could lead out of the image: make the layer without")]
    Climbs,
    #[error("it lies behind a link that leads out of the image: make the layer without")]
    LeadsOut,
    #[error("it lies behind links that lead to each other")]
    Loops,
    #[error("a name of more than 255 bytes, or a path of more than 3000")]
    Long,
    #[error("a name with a zero, a line feed or a carriage return in it: rename the file")]
    Unwritable,
    #[error("it lies below something that is no directory")]
    NotADirectory,
    #[error("a directory has one name only")]
    IsADirectory,
    #[error("there is nothing of this name in this layer or those below")]
    Missing,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Option<Inode>>,
    /// Contents that have no name any more.
    forgotten: Vec<Content>,
}

/// Of directories that nobody described.
fn undescribed() -> Meta {
    Meta {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        attributes: BTreeMap::new(),
    }
}

pub(crate) const ROOT: Number = Number(0);

/// The parts of a path as an archive has it: a leading `/` or `./` says nothing.
pub(crate) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, PathError> {
    if path.len() > limits::PATH {
        return Err(PathError::Long);
    }
    // Requests of debugfs(8) are lines.
    if path.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r')) {
        return Err(PathError::Unwritable);
    }
    let parts: Vec<_> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err(PathError::Climbs);
    }
    if parts.iter().any(|part| part.len() > limits::NAME) {
        return Err(PathError::Long);
    }
    Ok(parts)
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Inode {
            meta: undescribed(),
            kind: Kind::Directory(BTreeMap::new()),
            links: 1,
        };
        Self {
            inodes: vec![Some(root)],
            forgotten: Vec::new(),
        }
    }

    pub(crate) fn inode(&self, number: Number) -> Option<&Inode> {
        self.inodes.get(number.0)?.as_ref()
    }

    pub(crate) fn inode_mut(&mut self, number: Number) -> Option<&mut Inode> {
        self.inodes.get_mut(number.0)?.as_mut()
    }

    /// The names in a directory; none in anything else.
    pub(crate) fn names(&self, number: Number) -> Option<&BTreeMap<Vec<u8>, Name>> {
        match &self.inode(number)?.kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        }
    }

    fn names_mut(&mut self, number: Number) -> Option<&mut BTreeMap<Vec<u8>, Name>> {
        match &mut self.inode_mut(number)?.kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        }
    }

    pub(crate) fn name(&self, directory: Number, name: &[u8]) -> Option<Name> {
        self.names(directory)?.get(name).copied()
    }

    /// The directory that `parts` lead to, links followed.
    ///
    /// With a layer, what is missing is made as of that layer.
    pub(crate) fn directory(
        &mut self,
        parts: &[&[u8]],
        make: Option<usize>,
    ) -> Result<Number, PathError> {
        let mut left: VecDeque<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        // The directories from the root to the present one.
        let mut way = vec![ROOT];
        let mut followed = 0;
        while let Some(part) = left.pop_front() {
            let here = *way.last().ok_or(PathError::LeadsOut)?;
            if part == b".." {
                way.pop();
                if way.is_empty() {
                    return Err(PathError::LeadsOut);
                }
                continue;
            }
            let found = self.name(here, &part).map(|name| name.inode);
            let inode = match (found, make) {
                (Some(inode), _) => inode,
                (None, Some(layer)) => {
                    let kind = Kind::Directory(BTreeMap::new());
                    self.put(here, &part, Inode::new(undescribed(), kind), layer)?
                }
                (None, None) => return Err(PathError::Missing),
            };
            match self.inode(inode).map(|inode| &inode.kind) {
                Some(Kind::Directory(_)) => way.push(inode),
                Some(Kind::Symbolic(target)) => {
                    followed += 1;
                    if followed > limits::FOLLOWED {
                        return Err(PathError::Loops);
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    let steps = target.split(|byte| *byte == b'/');
                    let steps = steps.filter(|step| !step.is_empty() && *step != b".");
                    for step in steps.rev() {
                        left.push_front(step.to_owned());
                    }
                }
                _ => return Err(PathError::NotADirectory),
            }
        }
        way.last().copied().ok_or(PathError::LeadsOut)
    }

    /// Gives `inode` a name; what had it before loses it.
    pub(crate) fn put(
        &mut self,
        directory: Number,
        name: &[u8],
        inode: Inode,
        layer: usize,
    ) -> Result<Number, PathError> {
        let number = Number(self.inodes.len());
        self.inodes.push(Some(inode));
        self.link(directory, name, number, layer)?;
        Ok(number)
    }

    /// Gives an inode of the tree one more name.
    pub(crate) fn link(
        &mut self,
        directory: Number,
        name: &[u8],
        inode: Number,
        layer: usize,
    ) -> Result<(), PathError> {
        if let Some(inode) = self.inode_mut(inode) {
            inode.links = inode.links.saturating_add(1);
        }
        let names = self.names_mut(directory).ok_or(PathError::NotADirectory)?;
        if let Some(before) = names.insert(name.to_owned(), Name { inode, layer }) {
            self.unlink(before.inode);
        }
        Ok(())
    }

    /// Takes a name away, with what is below it.
    pub(crate) fn remove(&mut self, directory: Number, name: &[u8]) {
        let removed = self
            .names_mut(directory)
            .and_then(|names| names.remove(name));
        if let Some(name) = removed {
            self.unlink(name.inode);
        }
    }

    /// A layer said a name again.
    pub(crate) fn touch(&mut self, directory: Number, name: &[u8], layer: usize) {
        let names = self.names_mut(directory);
        if let Some(name) = names.and_then(|names| names.get_mut(name)) {
            name.layer = layer;
        }
    }

    /// Takes a name away as far as lower layers made it: what `layer` itself put below it stays.
    pub(crate) fn hide(&mut self, directory: Number, name: &[u8], layer: usize) {
        let Some(there) = self.name(directory, name) else {
            return;
        };
        if self.names(there.inode).is_some() {
            self.purge(there.inode, layer);
        }
        let emptied = self.names(there.inode).is_none_or(BTreeMap::is_empty);
        if there.layer < layer && emptied {
            self.remove(directory, name);
        }
    }

    /// Takes away what lower layers put into a directory.
    pub(crate) fn purge(&mut self, directory: Number, layer: usize) {
        // Directories whose own content is still to be looked at, and those that may be empty afterwards.
        let mut left = vec![directory];
        let mut seen: Vec<(Number, Vec<u8>)> = Vec::new();
        while let Some(directory) = left.pop() {
            let names: Vec<_> = self
                .names(directory)
                .into_iter()
                .flatten()
                .map(|(name, entry)| (name.clone(), *entry))
                .collect();
            for (name, entry) in names {
                if self.names(entry.inode).is_some() {
                    left.push(entry.inode);
                    if entry.layer < layer {
                        seen.push((directory, name));
                    }
                } else if entry.layer < layer {
                    self.remove(directory, &name);
                }
            }
        }
        // The deepest first: one that this layer put nothing into goes.
        for (directory, name) in seen.into_iter().rev() {
            let inode = self.name(directory, &name).map(|entry| entry.inode);
            let empty = inode
                .and_then(|inode| self.names(inode))
                .is_some_and(BTreeMap::is_empty);
            if empty {
                self.remove(directory, &name);
            }
        }
    }

    /// An inode has a name less. One without names goes, and so does what is below it.
    fn unlink(&mut self, number: Number) {
        let mut gone = vec![number];
        while let Some(number) = gone.pop() {
            let Some(slot) = self.inodes.get_mut(number.0) else {
                continue;
            };
            let Some(inode) = slot else { continue };
            inode.links = inode.links.saturating_sub(1);
            if inode.links > 0 {
                continue;
            }
            match slot.take().map(|inode| inode.kind) {
                Some(Kind::Directory(names)) => {
                    gone.extend(names.into_values().map(|name| name.inode));
                }
                Some(Kind::File { content, .. }) => self.forgotten.extend(content),
                _ => {}
            }
        }
    }

    /// Contents that lost their last name since this was asked last.
    pub(crate) fn forgotten(&mut self) -> Vec<Content> {
        std::mem::take(&mut self.forgotten)
    }
}
