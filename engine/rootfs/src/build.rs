//! Layers into a root disk. Invariant: equal layers and options give equal bytes, whoever runs this, and wherever.
//!
//! ```text
//!  layers ─► tree in memory ─► stage: a harmless tree, requests ─► mke2fs -d ─► debugfs ─► disk
//!            contents by number ──────┘
//! ```
//!
//! The root of the host is not needed and gives nothing: files are made as whoever runs this, and owners, modes, set-id bits,
//! devices and attributes are written into the file system by debugfs(8). ext4 adds `lost+found`.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use brood_image::disk::{self, BLOCK, DiskError, Ext4Spec, MAX_DISK, MIN_DISK};

use crate::digest::Digest;
use crate::error::UnpackError;
use crate::layer::Layers;
use crate::limits::Limits;
use crate::stage::{Needs, Stage};

/// Blocks of an ext4 group: as many as a block has bits.
const GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode.
const INODE: u64 = 256;
/// Free bytes for each free inode, as mke2fs(8) has it by default.
const BYTES_PER_INODE: u64 = 16 << 10;

/// What a disk is besides its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Bytes that are free on it for the guest, at least. Default: 1 GiB. They are holes in the file and cost nothing
    /// until a guest writes there, which is then in its own overlay.
    pub free: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { free: 1 << 30 }
    }
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A layer was refused.
    #[error("the image cannot be unpacked")]
    Unpack(#[from] UnpackError),
    /// No directory to unpack in.
    #[error("no directory can be made in {}", path.display())]
    Scratch {
        /// Where.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
    /// It does not fit on any disk.
    #[error("{bytes} bytes are more than a disk can have: ask for less free space")]
    Size {
        /// What it would have to have.
        bytes: u64,
    },
    /// mke2fs or debugfs failed.
    #[error("the disk cannot be made")]
    Disk(#[from] DiskError),
}

/// A layer for [`build`].
pub struct PackedLayer<'a> {
    /// Its bytes: a tar file, packed with gzip or zstd or not at all.
    pub packed: Box<dyn BufRead + 'a>,
    /// Its digest before it was packed, if the image says it.
    pub diff_id: Option<Digest>,
}

/// Makes a root disk at `image` of `layers`, the lowest first. What is unpacked lies in a directory of its own in `scratch`,
/// which should be on the file system of `image`, and is gone afterwards.
///
/// # Errors
/// A layer is refused, no room on the host, or no mke2fs.
pub fn build<'a, E: From<BuildError>>(
    layers: impl IntoIterator<Item = Result<PackedLayer<'a>, E>>,
    limits: Limits,
    options: DiskOptions,
    scratch: &Path,
    image: &Path,
) -> Result<(), E> {
    let directory = tempfile::Builder::new()
        .prefix("unpack-")
        .tempdir_in(scratch)
        .map_err(|source| BuildError::Scratch {
            path: scratch.to_owned(),
            source,
        })?;
    let mut stage = Stage::new(directory.path()).map_err(BuildError::from)?;
    let mut applied = Layers::new(&mut stage, limits);
    for layer in layers {
        let PackedLayer { packed, diff_id } = layer?;
        applied.apply(packed, diff_id).map_err(BuildError::from)?;
    }
    let tree = applied.tree();
    let needs = stage.plant(&tree).map_err(BuildError::from)?;
    drop(tree);
    let requests = stage.requests();
    let inodes = inodes(needs, options);
    let spec = Ext4Spec {
        directory: &stage.root(),
        bytes: size(needs, inodes, options)?,
        inodes: Some(inodes),
        requests: Some(&requests),
    };
    Ok(disk::make(&spec, image).map_err(BuildError::from)?)
}

/// Inodes of a disk: those of the tree, ext4's own, and some for the free bytes.
fn inodes(needs: Needs, options: DiskOptions) -> u64 {
    (needs.inodes + options.free / BYTES_PER_INODE + 64).next_multiple_of(16)
}

/// Bytes of a disk that holds what is needed.
fn size(needs: Needs, inodes: u64, options: DiskOptions) -> Result<u64, BuildError> {
    let table = (inodes * INODE).div_ceil(BLOCK);
    let free = options.free.div_ceil(BLOCK);
    let data = needs.blocks.saturating_add(table).saturating_add(free);
    let groups = data / (GROUP - 8) + 1;
    // Each group has two bitmaps, and rounds its inodes up to a block; some have a copy of the superblock and of all group
    // descriptors, of which a block has 64. `lost+found` has four blocks; what else there may be is in the last of these.
    let copies = 2 * (groups.ilog(3) + groups.ilog(5) + groups.ilog(7)) as u64 + 4;
    let overhead = groups * 4 + copies * (1 + groups.div_ceil(64)) + 64;
    let blocks = data.saturating_add(overhead);
    let bytes = blocks.saturating_mul(BLOCK);
    if bytes > MAX_DISK {
        return Err(BuildError::Size { bytes });
    }
    Ok(bytes.max(MIN_DISK))
}
