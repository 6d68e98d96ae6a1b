//! A kernel, out of the file a distribution ships, ready to be written into guest memory.
//!
//! A bzImage is taken apart on the host: its payload, an ELF vmlinux, is decompressed here and entered through PVH,
//! so the guest runs no decompressor. It therefore has no KASLR, which the decompressor would do; daughters of one
//! template share their addresses anyway. Without a PVH entry the bzImage is entered by the 64-bit boot protocol.
//! Invariant: bytes are parsed once; a [`Kernel`] holds only ranges that were checked.

mod bzimage;
mod error;
mod payload;
#[cfg(test)]
mod tests;
mod vmlinux;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use error::{ImageError, KernelError};
pub use payload::Compression;

pub(super) use bzimage::BzImage;
pub(super) use vmlinux::Vmlinux;

/// The largest kernel file, bytes.
const MAX_IMAGE: u64 = 256 << 20;
/// The largest decompressed kernel, bytes.
const MAX_VMLINUX: u64 = 512 << 20;

/// How the boot CPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootProtocol {
    /// 32-bit entry named by an ELF note (Xen's PVH ABI, x86/HVM direct boot).
    Pvh,
    /// The bzImage's 64-bit entry (Linux: Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Linux64,
}

/// A kernel that can be booted. It owns the decompressed image, some 60 MB: drop it once it is loaded.
#[derive(Debug)]
pub struct Kernel(Image);

#[derive(Debug)]
pub(super) enum Image {
    Pvh(Vmlinux),
    Linux64(BzImage),
}

impl Kernel {
    /// The kernel in the file at `path`: a vmlinuz (bzImage) or an uncompressed ELF vmlinux.
    ///
    /// # Errors
    /// The file is missing, unreadable, empty, truncated, no kernel, compressed in an unsupported way, or has no
    /// entry that we can use.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let bytes = read(path)?;
        Self::parse(bytes).map_err(|source| KernelError::Image {
            path: path.to_owned(),
            source,
        })
    }

    /// The kernel in `bytes`, entered through PVH where it can be, else by the 64-bit boot protocol.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ImageError> {
        if is_elf(&bytes) {
            let vmlinux = Vmlinux::parse(bytes)?.ok_or(ImageError::NoEntry)?;
            return Ok(Self(Image::Pvh(vmlinux)));
        }
        let image = BzImage::parse(bytes)?;
        match Vmlinux::parse(image.vmlinux()?)? {
            Some(vmlinux) => Ok(Self(Image::Pvh(vmlinux))),
            None => Self::linux64(image),
        }
    }

    /// The bzImage in `bytes`, entered by the 64-bit boot protocol: the guest decompresses it, with KASLR, in any
    /// compression. Slower, and for kernels that [`Self::parse`] refuses.
    ///
    /// # Errors
    /// The bytes are no bzImage, truncated, or have no 64-bit entry.
    pub fn parse_linux64(bytes: Vec<u8>) -> Result<Self, ImageError> {
        Self::linux64(BzImage::parse(bytes)?)
    }

    fn linux64(image: BzImage) -> Result<Self, ImageError> {
        if image.has_64bit_entry() {
            Ok(Self(Image::Linux64(image)))
        } else {
            Err(ImageError::NoEntry)
        }
    }

    /// How the boot CPU enters this kernel.
    pub const fn protocol(&self) -> BootProtocol {
        match self.0 {
            Image::Pvh(_) => BootProtocol::Pvh,
            Image::Linux64(_) => BootProtocol::Linux64,
        }
    }

    /// The decompressed ELF file, where the kernel is entered through PVH. Written to a file it is a kernel that
    /// [`Self::open`] takes without decompressing anything.
    pub fn vmlinux(&self) -> Option<&[u8]> {
        match &self.0 {
            Image::Pvh(vmlinux) => Some(vmlinux.bytes()),
            Image::Linux64(_) => None,
        }
    }

    /// The first address past everything the kernel occupies before it looks at its memory map.
    pub(super) fn end(&self) -> u64 {
        match &self.0 {
            Image::Pvh(vmlinux) => vmlinux.end(),
            Image::Linux64(image) => image.end(),
        }
    }

    pub(super) const fn image(&self) -> &Image {
        &self.0
    }
}

fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Reads a file of bounded size.
fn read(path: &Path) -> Result<Vec<u8>, KernelError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KernelError::NotFound {
            path: path.to_owned(),
        },
        _ => KernelError::Read {
            path: path.to_owned(),
            source,
        },
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let mut bounded = file.take(MAX_IMAGE + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_IMAGE {
        return Err(KernelError::Image {
            path: path.to_owned(),
            source: ImageError::TooBig,
        });
    }
    Ok(bytes)
}
