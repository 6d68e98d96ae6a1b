//! Memory that is not Rust's: the workload's RAM, device arenas and MMIO, all reached through checked, volatile accesses.
//! Unsafe here: the raw loads and stores.
//!
//! Invariant: [`Span`] lies wholly in RAM above the guest's own 2 MiB, so no command can hit code, stack or tables.

use crate::Machine;
use crate::layout::{self, ARENAS, FREE_RAM, PAGE};
use crate::mailbox::Fault;

/// Loads a value from memory that no Rust object occupies.
pub fn load<T: Copy>(address: u64) -> T {
    // SAFETY: all memory is mapped readable, and every bit pattern of the integers used here is a value; an address outside
    // RAM and the MMIO hole ends the VM with a triple fault, which is what a wild access shall do. Callers keep natural alignment.
    unsafe { core::ptr::with_exposed_provenance::<T>(address as usize).read_volatile() }
}

/// Stores a value to memory that no Rust object occupies.
pub fn store<T: Copy>(address: u64, value: T) {
    if address < ARENAS {
        // Image, stacks or tables: a bug of this program.
        crate::port::triple_fault();
    }
    // SAFETY: at or above the arenas no Rust object lives, all memory is mapped writable, and callers keep natural alignment.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(address as usize).write_volatile(value) }
}

/// Fills an area of arenas with zero bytes; both arguments are multiples of 8.
pub fn clear(address: u64, bytes: u64) {
    for at in (address..address + bytes).step_by(8) {
        store(at, 0_u64);
    }
}

/// A range of the workload's RAM, in whole words and not empty.
#[derive(Clone, Copy)]
pub struct Span {
    start: u64,
    bytes: u64,
}

impl Span {
    /// The words of a range.
    pub fn words(machine: Machine, start: u64, bytes: u64) -> Result<Self, (Fault, u32)> {
        let end = start.checked_add(bytes).ok_or((Fault::BadRange, 0))?;
        let ranges = layout::ram_ranges(machine.ram_bytes);
        let in_ram = ranges
            .into_iter()
            .any(|(first, last)| start >= first && end <= last);
        if bytes == 0
            || !start.is_multiple_of(8)
            || !bytes.is_multiple_of(8)
            || start < FREE_RAM
            || !in_ram
        {
            return Err((Fault::BadRange, 0));
        }
        Ok(Self { start, bytes })
    }

    /// A range of whole pages.
    pub fn pages(machine: Machine, start: u64, bytes: u64) -> Result<Self, (Fault, u32)> {
        if !start.is_multiple_of(PAGE) || !bytes.is_multiple_of(PAGE) {
            return Err((Fault::BadRange, 0));
        }
        Self::words(machine, start, bytes)
    }

    /// Number of whole pages.
    pub fn page_count(self) -> u64 {
        self.bytes / PAGE
    }

    /// Number of words.
    pub fn word_count(self) -> u64 {
        self.bytes / 8
    }

    /// Address of a page, which must be below [`page_count`](Self::page_count).
    pub fn page(self, index: u64) -> u64 {
        self.start + index * PAGE
    }

    /// Addresses of all words, upwards.
    pub fn addresses(self) -> impl Iterator<Item = u64> {
        (0..self.word_count()).map(move |index| self.start + index * 8)
    }
}

/// Adds 1 to the word at `address`.
pub fn increment(address: u64) {
    store(address, load::<u64>(address).wrapping_add(1));
}
