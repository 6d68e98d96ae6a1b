//! Why a kernel cannot be booted: what is wrong, where, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::{Compression, MAX_IMAGE, MAX_VMLINUX};
use crate::boot::layout;

/// Why a kernel file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is no such file.
    #[error("kernel {} does not exist: give the path of a vmlinuz", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("kernel {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The file cannot be booted.
    #[error("kernel {} cannot be booted", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ImageError,
    },
}

/// Why the bytes of a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the file is empty: install or copy the kernel again")]
    Empty,
    /// More bytes than any kernel has.
    #[error("the file is larger than {} MiB: this is no kernel", MAX_IMAGE >> 20)]
    TooBig,
    /// Neither of the two formats.
    #[error(
        "neither a bzImage (no \"HdrS\" at 0x202) nor an ELF file: give the vmlinuz of a linux-image package for amd64, or an uncompressed vmlinux"
    )]
    NotAKernel,
    /// The file ends too early.
    #[error(
        "the file is truncated: {part} ends at byte {needed}, but there are only {bytes}; copy or install it again"
    )]
    Truncated {
        /// What lies beyond the end.
        part: &'static str,
        /// Where that part ends, bytes.
        needed: u64,
        /// Bytes present.
        bytes: u64,
    },
    /// A bzImage older than the boot protocol that describes its payload.
    #[error(
        "boot protocol {}.{:02} is too old: 2.08 is needed, which is Linux 2.6.26 or later",
        version >> 8,
        version & 0xff
    )]
    OldProtocol {
        /// The version field of the setup header.
        version: u16,
    },
    /// A known compression without a decoder here.
    #[error(
        "the payload is compressed with {compression}, which is not supported: use a kernel built with gzip, xz, zstd or lz4, or ask for the 64-bit boot protocol, where the guest decompresses it"
    )]
    UnsupportedCompression {
        /// How the payload is compressed.
        compression: Compression,
    },
    /// A payload of no known format.
    #[error("the payload starts with bytes {magic:02x?}, which no known compression does")]
    UnknownCompression {
        /// The first bytes.
        magic: Vec<u8>,
    },
    /// The payload claims to be larger than any kernel.
    #[error(
        "the payload says it unpacks to {bytes} bytes, more than {} MiB: the file is damaged",
        MAX_VMLINUX >> 20
    )]
    PayloadTooBig {
        /// What the payload says.
        bytes: u64,
    },
    /// The payload does not unpack.
    #[error("the {compression} payload is damaged: copy or install the kernel again")]
    Corrupt {
        /// How the payload is compressed.
        compression: Compression,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// The ELF file is not well formed.
    #[error(
        "the ELF file is damaged or not 64-bit little-endian: copy or install the kernel again"
    )]
    Elf {
        /// What the parser said.
        #[source]
        source: elf::ParseError,
    },
    /// An ELF file of another machine.
    #[error("ELF machine {machine} is not x86-64 (62): give a kernel for amd64")]
    Machine {
        /// The `e_machine` field.
        machine: u16,
    },
    /// A segment that cannot be loaded where it wants to be.
    #[error(
        "a segment wants {bytes} bytes at {address:#x}: kernels load between {:#x} and 4 GiB",
        layout::HIGH_MEMORY.0
    )]
    Segment {
        /// Guest physical address.
        address: u64,
        /// Bytes in memory.
        bytes: u64,
    },
    /// Nothing to load.
    #[error("the ELF file has no segment to load")]
    NoSegments,
    /// The kernel cannot be entered in the way asked for.
    #[error(
        "the kernel has neither a PVH entry (built with CONFIG_PVH=y or CONFIG_XEN_PVH=y) nor, as a bzImage, a 64-bit entry: use a distribution's cloud kernel"
    )]
    NoEntry,
}
