//! The guest's page tables: identity mapping in 2 MiB pages that ring 3 may read, write and execute.
//!
//! 2 MiB rather than 1 GiB, because 1 GiB pages depend on a CPUID bit. RAM and the MMIO hole are mapped and nothing else, so a
//! wild access ends the VM instead of becoming a device access somewhere.

use crate::layout::{HOLE_END, HOLE_START, PAGE_DIRECTORIES, PDPT, ram_ranges};

/// Present, writable, user (SDM 3A §4.5).
const TABLE: u64 = 0b111;
/// The same, accessed and dirty already, so that the CPU never writes to the tables, and a 2 MiB page.
const LEAF: u64 = 0b1110_0111;
const HUGE_PAGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
const ENTRIES: u64 = 512;

/// The one entry of the top table.
pub(crate) const PML4_ENTRY: u64 = PDPT | TABLE;

/// The page directories that RAM of `ram_bytes` (a multiple of 2 MiB) needs, as (index of the GiB, entries). The address of
/// each is [`directory_at`] its index.
pub(crate) fn directories(ram_bytes: u64) -> impl Iterator<Item = (u64, Vec<u64>)> {
    let ranges = ram_ranges(ram_bytes);
    let top = ranges
        .into_iter()
        .fold(HOLE_END, |top, (_, end)| top.max(end));
    let mapped = move |address: u64| {
        (HOLE_START..HOLE_END).contains(&address)
            || ranges
                .into_iter()
                .any(|(first, end)| (first..end).contains(&address))
    };
    (0..top.div_ceil(GIB)).map(move |gib| {
        let pages = (0..ENTRIES).map(|index| gib * GIB + index * HUGE_PAGE);
        (
            gib,
            pages
                .map(|address| if mapped(address) { address | LEAF } else { 0 })
                .collect(),
        )
    })
}

/// Address of the page directory of a GiB.
pub(crate) const fn directory_at(gib: u64) -> u64 {
    PAGE_DIRECTORIES + gib * 8 * ENTRIES
}

/// The entry of the page-directory-pointer table for a GiB.
pub(crate) const fn pdpt_entry(gib: u64) -> u64 {
    directory_at(gib) | TABLE
}
