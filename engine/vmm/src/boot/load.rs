//! Writes a machine's first contents into its RAM. Invariant: everything is placed and checked before the first byte
//! is written, and lands in RAM of the layout, clear of everything else.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::acpi::AcpiConfig;
use super::cmdline::Cmdline;
use super::entry::{self, Entry};
use super::kernel::{Image, Kernel};
use super::layout::{self, RAM_GRANULE, RamLayout};
use super::{linux64, pvh};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// What a machine starts from.
#[derive(Clone, Copy, Debug)]
pub struct BootSpec<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Its command line.
    pub cmdline: &'a Cmdline,
    /// Its initramfs, a cpio archive in any compression the kernel knows; empty for none.
    pub initramfs: &'a [u8],
    /// Where RAM lies.
    pub layout: RamLayout,
    /// The devices to describe.
    pub acpi: AcpiConfig,
}

/// Why a machine cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Kernel and initramfs do not fit below the end of low RAM.
    #[error(
        "the kernel needs RAM up to {} MiB and the initramfs {} MiB more, but only {} MiB of guest RAM lie below 3 GiB: {}",
        kernel_end.div_ceil(MIB),
        initramfs.div_ceil(MIB),
        low_ram >> 20,
        advice(*needed)
    )]
    DoesNotFit {
        /// First address past the kernel.
        kernel_end: u64,
        /// Bytes of the initramfs.
        initramfs: u64,
        /// Bytes of RAM below the hole.
        low_ram: u64,
        /// The least RAM that holds both, bytes.
        needed: u64,
    },
    /// Guest memory refused a write: it is not the memory of this layout.
    #[error("cannot write {what} at {:#x}: guest memory does not match its layout", address.0)]
    Write {
        /// What was being written.
        what: &'static str,
        /// Where.
        address: GuestAddress,
        /// What guest memory said.
        #[source]
        source: GuestMemoryError,
    },
}

fn advice(needed: u64) -> String {
    if needed > layout::HOLE_START.0 {
        return "make the initramfs smaller".to_owned();
    }
    let mib = needed.div_ceil(MIB);
    format!("give the guest at least {mib} MiB, and more to work with")
}

/// Where the initramfs lies; empty if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initramfs {
    pub(super) address: GuestAddress,
    pub(super) bytes: u64,
}

/// Writes kernel, initramfs, command line, ACPI tables and what the boot protocol asks for into `memory`, which must
/// be fresh: all zero, with the regions of `spec.layout`.
///
/// # Errors
/// Kernel and initramfs do not fit into RAM, or `memory` has other regions.
pub fn load(memory: &GuestMemoryMmap, spec: &BootSpec<'_>) -> Result<Entry, LoadError> {
    let initramfs = place_initramfs(spec)?;
    let writer = Writer(memory);
    writer.bytes("the initramfs", initramfs.address, spec.initramfs)?;
    let cmdline = spec.cmdline.to_guest_bytes();
    writer.bytes("the command line", layout::CMDLINE_ADDRESS, &cmdline)?;
    writer.bytes("the ACPI tables", layout::ACPI_TABLES, &spec.acpi.tables())?;
    let descriptors = entry::descriptors(spec.kernel.protocol());
    writer.words("the descriptor table", layout::GDT, &descriptors)?;
    match spec.kernel.image() {
        Image::Pvh(vmlinux) => pvh::load(writer, vmlinux, spec.layout, initramfs),
        Image::Linux64(image) => linux64::load(writer, image, spec.layout, initramfs),
    }
}

/// The initramfs goes to the top of low RAM, out of the way of the kernel, which unpacks and then frees it.
fn place_initramfs(spec: &BootSpec<'_>) -> Result<Initramfs, LoadError> {
    let bytes = spec.initramfs.len() as u64;
    let kernel_end = spec.kernel.end();
    let low_ram = spec.layout.low_end().0;
    let needed = kernel_end
        .saturating_add(bytes)
        .saturating_add(PAGE)
        .checked_next_multiple_of(RAM_GRANULE)
        .unwrap_or(u64::MAX);
    if needed > low_ram {
        return Err(LoadError::DoesNotFit {
            kernel_end,
            initramfs: bytes,
            low_ram,
            needed,
        });
    }
    let start = low_ram - bytes;
    Ok(Initramfs {
        address: GuestAddress(start - start % PAGE),
        bytes,
    })
}

/// Guest memory, with errors that say what was being written.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a>(&'a GuestMemoryMmap);

impl Writer<'_> {
    pub(super) fn bytes(
        self,
        what: &'static str,
        address: GuestAddress,
        bytes: &[u8],
    ) -> Result<(), LoadError> {
        let written = self.0.write_slice(bytes, address);
        written.map_err(|source| LoadError::Write {
            what,
            address,
            source,
        })
    }

    /// Writes 64-bit words, little-endian.
    pub(super) fn words(
        self,
        what: &'static str,
        address: GuestAddress,
        words: &[u64],
    ) -> Result<(), LoadError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.bytes(what, address, &bytes)
    }
}
