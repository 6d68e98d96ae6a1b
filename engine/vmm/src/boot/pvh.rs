//! The PVH way in: segments of the vmlinux, and a start info with module list and memory map.
//!
//! Xen: public/arch-x86/hvm/start_info.h, version 1; docs/misc/pvh.pandoc for the register state.

use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, GuestAddress};

use super::entry::Entry;
use super::kernel::{BootProtocol, Vmlinux};
use super::layout::{self, RamLayout};
use super::load::{Initramfs, LoadError, Writer};

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The version that has a memory map.
const VERSION: u32 = 1;

pub(super) fn load(
    writer: Writer<'_>,
    vmlinux: &Vmlinux,
    ram: RamLayout,
    initramfs: Initramfs,
) -> Result<Entry, LoadError> {
    // Memory is fresh, so what a segment has beyond its bytes is zero already.
    for (segment, bytes) in vmlinux.segments() {
        writer.bytes("the kernel", GuestAddress(segment.address), bytes)?;
    }
    let map = memory_map(ram);
    let bytes: Vec<u8> = map.iter().flat_map(|it| it.as_slice().to_vec()).collect();
    writer.bytes("the memory map", layout::MEMORY_MAP, &bytes)?;
    let mut info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        cmdline_paddr: layout::CMDLINE_ADDRESS.0,
        rsdp_paddr: layout::ACPI_TABLES.0,
        memmap_paddr: layout::MEMORY_MAP.0,
        // At most six entries.
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    if initramfs.bytes > 0 {
        let module = hvm_modlist_entry {
            paddr: initramfs.address.0,
            size: initramfs.bytes,
            ..hvm_modlist_entry::default()
        };
        writer.bytes("the module list", layout::MODULE_LIST, module.as_slice())?;
        info.nr_modules = 1;
        info.modlist_paddr = layout::MODULE_LIST.0;
    }
    writer.bytes("the start info", layout::START_INFO, info.as_slice())?;
    Ok(Entry {
        protocol: BootProtocol::Pvh,
        rip: vmlinux.entry().into(),
        argument: layout::START_INFO,
    })
}

fn memory_map(ram: RamLayout) -> Vec<hvm_memmap_table_entry> {
    let entries = ram.memory_map().into_iter();
    let convert = |entry: layout::MapEntry| hvm_memmap_table_entry {
        addr: entry.start,
        size: entry.bytes,
        type_: entry.kind.number(),
        reserved: 0,
    };
    entries.map(convert).collect()
}
