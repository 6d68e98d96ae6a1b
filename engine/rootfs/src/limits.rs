//! How much an image may ask of the host. Invariant: whatever an image holds, unpacking it ends, and takes no more memory or
//! disk than these say.

/// Bytes of a path in an image. Longer ones do not fit into a request of debugfs(8) or into `PATH_MAX` below a directory of
/// the host.
pub(crate) const PATH: usize = 3000;
/// Bytes of one name: ext4's own limit.
pub(crate) const NAME: usize = 255;
/// Bytes of a symbolic link's target: `PATH_MAX` without its end.
pub(crate) const LINK: usize = 4095;
/// Bytes of one file's extended attributes, names and values: what surely fits into one block of ext4.
pub(crate) const ATTRIBUTES: usize = 3 << 10;
/// Bytes of a tar header's own data: PAX records, a long name.
pub(crate) const HEADER: u64 = 1 << 20;
/// Links that are followed to find one directory, as path_resolution(7) has it.
pub(crate) const FOLLOWED: usize = 40;

/// What an operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files of all layers. Default: 64 GiB.
    pub bytes: u64,
    /// Entries of all layers. Default: 2 million, which take about 1 GiB of memory while they are unpacked.
    pub entries: u64,
    /// Layers of one image. Default: 500; Docker itself makes 127.
    pub layers: usize,
    /// Bytes of one compressed layer. Default: 32 GiB.
    pub layer_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 2_000_000,
            layers: 500,
            layer_bytes: 32 << 30,
        }
    }
}
