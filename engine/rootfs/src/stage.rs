//! A directory of the host in which an image is unpacked: first contents by number, then the tree that mke2fs(8) reads.
//!
//! Invariant: what lies here is owned by whoever runs this, has no set-id bit, no device and no extended attribute, and each
//! path that is written to consists of directories that were made here. Owners, modes, times, devices and attributes are
//! requests for debugfs(8), so that they are the same whoever runs this, and no root is needed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::entry::{Meta, NodeKind};
use crate::error::{At, UnpackError};
use crate::tree::{Content, Inode, Kind, Number, ROOT, Tree};

/// Bytes that are copied at once.
const PIECE: usize = 1 << 17;
/// inode(7)
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;

/// The directory.
pub(crate) struct Stage {
    directory: PathBuf,
    next: u64,
}

/// What a tree needs on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) inodes: u64,
    /// Blocks of 4096 bytes.
    pub(crate) blocks: u64,
}

impl Stage {
    /// Below `directory`, which is empty and nobody else's.
    pub(crate) fn new(directory: &Path) -> Result<Self, UnpackError> {
        let stage = Self {
            directory: directory.to_owned(),
            next: 0,
        };
        for part in ["content", "attribute"] {
            make_directory(&stage.directory.join(part))?;
        }
        Ok(stage)
    }

    /// The root of the tree, once it is planted.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The requests for debugfs, once it is planted.
    pub(crate) fn requests(&self) -> PathBuf {
        self.directory.join("requests")
    }

    fn content(&self, content: Content) -> PathBuf {
        self.directory.join("content").join(content.0.to_string())
    }

    /// Keeps `bytes` bytes of an entry's content.
    pub(crate) fn keep(
        &mut self,
        source: &mut impl Read,
        bytes: u64,
        at: At,
    ) -> Result<Content, UnpackError> {
        let content = Content(self.next);
        self.next += 1;
        let path = self.content(content);
        let mut file = create(&path)?;
        let mut left = bytes;
        let mut piece = vec![0; PIECE.min(usize::try_from(bytes).unwrap_or(PIECE))];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(piece.len());
            let room = piece.get_mut(..most).unwrap_or_default();
            let read = match source.read(room) {
                Ok(0) => return Err(at.read(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(at.read(error)),
            };
            let full = file.write_all(room.get(..read).unwrap_or_default());
            full.map_err(|source| failed(&path, source))?;
            left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        }
        Ok(content)
    }

    /// A content that nobody has a name for any more.
    pub(crate) fn forget(&self, content: Content) -> Result<(), UnpackError> {
        let path = self.content(content);
        fs::remove_file(&path).map_err(|source| failed(&path, source))
    }

    /// Makes the tree on the host, and the requests that make it what the image says.
    pub(crate) fn plant(&self, tree: &Tree) -> Result<Needs, UnpackError> {
        let requests = self.requests();
        let mut planting = Planting {
            stage: self,
            tree,
            requests: BufWriter::new(create(&requests)?),
            attributes: 0,
            first: HashMap::new(),
            needs: Needs::default(),
        };
        make_directory(&self.root())?;
        if let Some(root) = tree.inode(ROOT) {
            planting
                .describe(b"/", root)
                .map_err(|error| failed(&requests, error))?;
        }
        let mut left = vec![(ROOT, Vec::new())];
        while let Some((directory, path)) = left.pop() {
            planting.needs.blocks += directory_blocks(tree, directory);
            for (name, entry) in tree.names(directory).into_iter().flatten() {
                let mut path = path.clone();
                path.push(b'/');
                path.extend_from_slice(name);
                if planting.name(entry.inode, &path)? {
                    left.push((entry.inode, path));
                }
            }
        }
        let Planting {
            requests: mut written,
            needs,
            ..
        } = planting;
        written.flush().map_err(|error| failed(&requests, error))?;
        Ok(needs)
    }
}

/// A tree on its way to the host.
struct Planting<'a> {
    stage: &'a Stage,
    tree: &'a Tree,
    requests: BufWriter<File>,
    attributes: u64,
    /// The first path of each inode that has more names.
    first: HashMap<Number, PathBuf>,
    needs: Needs,
}

impl Planting<'_> {
    /// Makes one name; says whether it is a directory's.
    fn name(&mut self, number: Number, path: &[u8]) -> Result<bool, UnpackError> {
        let Some(inode) = self.tree.inode(number) else {
            return Ok(false);
        };
        let mut host = self.stage.root().into_os_string();
        host.push(OsStr::from_bytes(path));
        let host = PathBuf::from(host);
        let on_host = |source| failed(&host, source);
        let is_node = matches!(inode.kind, Kind::Node(_));
        // Two nodes of one device are one device.
        if inode.links > 1 && !is_node {
            if let Some(first) = self.first.get(&number) {
                fs::hard_link(first, &host).map_err(on_host)?;
                return Ok(false);
            }
            self.first.insert(number, host.clone());
        }
        match &inode.kind {
            Kind::Directory(_) => make_directory(&host)?,
            Kind::File { content, .. } => match content {
                Some(content) => {
                    fs::rename(self.stage.content(*content), &host).map_err(on_host)?;
                }
                None => drop(create(&host)?),
            },
            Kind::Symbolic(target) => {
                symlink(OsStr::from_bytes(target), &host).map_err(on_host)?;
            }
            Kind::Node(node) => self
                .node(path, *node)
                .map_err(|error| failed(&self.stage.requests(), error))?,
        }
        self.describe(path, inode)
            .map_err(|error| failed(&self.stage.requests(), error))?;
        Ok(matches!(inode.kind, Kind::Directory(_)))
    }

    /// debugfs makes a node in its own working directory only.
    fn node(&mut self, path: &[u8], node: NodeKind) -> io::Result<()> {
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (directory, name) = path.split_at(slash);
        let directory = if directory.is_empty() {
            b"/"
        } else {
            directory
        };
        let name = name.strip_prefix(b"/").unwrap_or(name);
        self.request(b"cd", directory, "")?;
        let what = match node {
            NodeKind::Character { major, minor } => format!("c {major} {minor}"),
            NodeKind::Block { major, minor } => format!("b {major} {minor}"),
            NodeKind::Fifo => "p".to_owned(),
        };
        self.request(b"mknod", name, &what)?;
        self.request(b"cd", b"/", "")
    }

    /// Owner, mode, times and attributes.
    fn describe(&mut self, path: &[u8], inode: &Inode) -> io::Result<()> {
        let Meta {
            mode,
            uid,
            gid,
            mtime,
            attributes,
        } = &inode.meta;
        let (kind, blocks) = match &inode.kind {
            Kind::Directory(_) => (DIRECTORY, 0),
            Kind::File { bytes, .. } => (REGULAR, file_blocks(*bytes)),
            Kind::Symbolic(_) => (SYMBOLIC, 1),
            Kind::Node(NodeKind::Character { .. }) => (CHARACTER, 0),
            Kind::Node(NodeKind::Block { .. }) => (BLOCK, 0),
            Kind::Node(NodeKind::Fifo) => (FIFO, 0),
        };
        self.needs.inodes += 1;
        self.needs.blocks += blocks + u64::from(!attributes.is_empty());
        self.request(b"sif", path, &format!("mode 0{:o}", kind | mode))?;
        self.request(b"sif", path, &format!("uid {uid}"))?;
        self.request(b"sif", path, &format!("gid {gid}"))?;
        for (name, value) in attributes {
            let file = self.stage.directory.join("attribute");
            let file = file.join(self.attributes.to_string());
            self.attributes += 1;
            fs::write(&file, value)?;
            let mut request = b"ea_set -f ".to_vec();
            quote(&mut request, file.as_os_str().as_bytes());
            let name = String::from_utf8_lossy(name);
            self.request(&request, path, &name)?;
        }
        // The last: each of the requests above is a change of the inode.
        for field in ["atime", "ctime", "mtime"] {
            self.request(b"sif", path, &format!("{field} @{mtime}"))?;
        }
        Ok(())
    }

    fn request(&mut self, request: &[u8], path: &[u8], rest: &str) -> io::Result<()> {
        let mut line = request.to_vec();
        line.push(b' ');
        quote(&mut line, path);
        line.push(b' ');
        line.extend_from_slice(rest.as_bytes());
        line.push(b'\n');
        self.requests.write_all(&line)
    }
}

/// A word of libss: a quote in quotes is doubled, and nothing else means anything there.
fn quote(line: &mut Vec<u8>, word: &[u8]) {
    line.push(b'"');
    for byte in word {
        if *byte == b'"' {
            line.push(b'"');
        }
        line.push(*byte);
    }
    line.push(b'"');
}

/// Blocks of a file: its bytes, and where its extents no longer fit into the inode a tree of them.
fn file_blocks(bytes: u64) -> u64 {
    // An extent of ext4 has at most 32768 blocks; four are in the inode, a block has 340.
    let blocks = bytes.div_ceil(4096);
    let extents = blocks.div_ceil(32768);
    blocks
        + if extents > 4 {
            extents.div_ceil(340) + 1
        } else {
            0
        }
}

/// Blocks of a directory. An entry takes 8 bytes and its name, in fours; the end of each block is left for a checksum and
/// what did not fit.
fn directory_blocks(tree: &Tree, directory: Number) -> u64 {
    let names = tree.names(directory).into_iter().flatten();
    let bytes: usize = names
        .map(|(name, _)| 8 + name.len().next_multiple_of(4))
        .sum();
    u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(3800) + 1
}

fn make_directory(path: &Path) -> Result<(), UnpackError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| failed(path, source))
}

fn create(path: &Path) -> Result<File, UnpackError> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Stage {
        path: path.to_owned(),
        source,
    }
}
