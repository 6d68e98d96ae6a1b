//! The 64-bit boot protocol: the bzImage as it is, a zero page with the e820 map, and identity page tables.
//!
//! Linux: Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"; Documentation/arch/x86/zero-page.rst.

use linux_loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{ByteValued, GuestAddress};

use super::entry::Entry;
use super::kernel::{BootProtocol, BzImage};
use super::layout::{self, RamLayout};
use super::load::{Initramfs, LoadError, Writer};

/// `type_of_loader`: a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// Present and writable.
const TABLE: u64 = 0b11;
/// Present, writable, a 2 MiB page.
const HUGE_PAGE: u64 = 0b1000_0011;
const ENTRIES: u64 = 512;
const PAGE: u64 = 4096;
/// One page directory maps 1 GiB; four map everything below 4 GiB.
const DIRECTORIES: u64 = 4;

pub(super) fn load(
    writer: Writer<'_>,
    image: &BzImage,
    ram: RamLayout,
    initramfs: Initramfs,
) -> Result<Entry, LoadError> {
    let address = GuestAddress(image.load_address());
    writer.bytes("the kernel", address, image.code())?;
    let tables = page_tables();
    writer.words("the page tables", layout::PAGE_TABLES, &tables)?;
    let zero_page = zero_page(image, ram, initramfs);
    writer.bytes("the zero page", layout::ZERO_PAGE, zero_page.as_slice())?;
    Ok(Entry {
        protocol: BootProtocol::Linux64,
        rip: image.entry(),
        argument: layout::ZERO_PAGE,
    })
}

fn zero_page(image: &BzImage, ram: RamLayout, initramfs: Initramfs) -> boot_params {
    let mut header = image.header();
    header.type_of_loader = LOADER_UNDEFINED;
    // All of these lie below 4 GiB.
    header.cmd_line_ptr = layout::CMDLINE_ADDRESS.0 as u32;
    if initramfs.bytes > 0 {
        header.ramdisk_image = initramfs.address.0 as u32;
        header.ramdisk_size = initramfs.bytes as u32;
    }
    let mut params = boot_params {
        hdr: header,
        acpi_rsdp_addr: layout::ACPI_TABLES.0,
        ..boot_params::default()
    };
    let map = ram.memory_map();
    // At most six entries.
    params.e820_entries = map.len() as u8;
    let mut table = params.e820_table;
    for (slot, entry) in table.iter_mut().zip(map) {
        *slot = boot_e820_entry {
            addr: entry.start,
            size: entry.bytes,
            r#type: entry.kind.number(),
        };
    }
    params.e820_table = table;
    params
}

/// PML4, PDPT and page directories, one after the other: the first 4 GiB one to one.
fn page_tables() -> Vec<u64> {
    let base = layout::PAGE_TABLES.0;
    let table = |entries: Vec<u64>| {
        let empty = std::iter::repeat_n(0, ENTRIES as usize - entries.len());
        entries.into_iter().chain(empty).collect::<Vec<_>>()
    };
    let pml4 = table(vec![(base + PAGE) | TABLE]);
    let directory = |index: u64| (base + (2 + index) * PAGE) | TABLE;
    let pdpt = table((0..DIRECTORIES).map(directory).collect());
    let pages = (0..DIRECTORIES * ENTRIES).map(|page| page << 21 | HUGE_PAGE);
    pml4.into_iter().chain(pdpt).chain(pages).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as the CPU does.
    fn translate(tables: &[u64], address: u64) -> Option<u64> {
        let entry = |table: u64, index: u64| {
            let first = (table - layout::PAGE_TABLES.0) / 8;
            let entry = *tables.get((first + index) as usize)?;
            (entry & 1 == 1).then_some(entry)
        };
        let frame = |entry: u64| entry & 0x000f_ffff_ffff_f000;
        let pml4 = entry(layout::PAGE_TABLES.0, address >> 39 & 0x1ff)?;
        let pdpt = entry(frame(pml4), address >> 30 & 0x1ff)?;
        let page = entry(frame(pdpt), address >> 21 & 0x1ff)?;
        assert_ne!(page & 0x80, 0, "a huge page");
        Some(frame(page) | address & 0x1f_ffff)
    }

    #[test]
    fn page_tables_map_the_first_four_gib_one_to_one_and_no_more() {
        let tables = page_tables();
        for address in [0, 0x7000, 0x100_0200, 0xbfff_ffff, 0xfee0_0000, 0xffff_ffff] {
            assert_eq!(translate(&tables, address), Some(address));
        }
        assert_eq!(translate(&tables, 1 << 32), None);
        assert_eq!(translate(&tables, 1 << 39), None);
    }

    #[test]
    fn page_tables_end_before_the_command_line() {
        let end = layout::PAGE_TABLES.0 + page_tables().len() as u64 * 8;
        assert!(end <= layout::CMDLINE_ADDRESS.0);
    }
}
