//! Writing the guest into its memory.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::entry::{VcpuEntry, gdt};
use crate::layout::{
    FREE_RAM, GDT, HOLE_END, HOLE_START, IMAGE, IMAGE_BYTES, IO_BITMAP_BYTES, MAPPED_TOP,
    MAX_VCPUS, MIN_RAM, PDPT, PML4, TSS, TSS_FIXED_BYTES,
};
use crate::page_table::{PML4_ENTRY, directories, directory_at, pdpt_entry};

/// The guest program: one flat piece whose first byte is the entry point.
static IMAGE_FILE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.bin"));
const _: () = assert!(IMAGE_FILE.len() as u64 <= IMAGE_BYTES);

/// Why the guest could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The size of RAM is not one that the guest can have.
    #[error("RAM of {ram_bytes} bytes is not a multiple of 2 MiB from {MIN_RAM} to {} bytes", MAPPED_TOP - HOLE_END + HOLE_START)]
    Ram {
        /// Bytes asked for.
        ram_bytes: u64,
    },
    /// The number of vCPUs is not one that the guest can have.
    #[error("{vcpus} vCPUs are not 1 to {MAX_VCPUS}")]
    Vcpus {
        /// vCPUs asked for.
        vcpus: u32,
    },
    /// The memory is not mapped where the guest needs it.
    #[error("guest memory at {address:#x} cannot be written")]
    Memory {
        /// Where.
        address: u64,
        /// What vm-memory said.
        #[source]
        source: GuestMemoryError,
    },
}

/// Writes image, tables and zeroed stacks and arenas below [`FREE_RAM`] and returns how each vCPU starts. RAM is mapped as
/// [`ram_ranges`](crate::layout::ram_ranges) of `ram_bytes` says; memory from [`FREE_RAM`] up is neither read nor written.
///
/// # Errors
/// A size or number out of range; memory that is not there.
pub fn load(
    memory: &GuestMemoryMmap,
    ram_bytes: u64,
    vcpus: u32,
) -> Result<Vec<VcpuEntry>, LoadError> {
    let most = MAPPED_TOP - HOLE_END + HOLE_START;
    if !(MIN_RAM..=most).contains(&ram_bytes) || !ram_bytes.is_multiple_of(FREE_RAM) {
        return Err(LoadError::Ram { ram_bytes });
    }
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(LoadError::Vcpus { vcpus });
    }
    // All of the guest's own memory in one write, so that nothing is left of what was there before.
    let mut low = Low {
        bytes: vec![0; FREE_RAM as usize],
    };
    low.put(IMAGE, IMAGE_FILE);
    low.put_words(GDT, &gdt());
    // A bitmap of zeroes allows all ports; its place is in bytes 102 and 103.
    low.put(
        TSS + TSS_FIXED_BYTES - 2,
        &(TSS_FIXED_BYTES as u16).to_le_bytes(),
    );
    low.put(TSS + TSS_FIXED_BYTES + IO_BITMAP_BYTES, &[0xff]);
    low.put_words(PML4, &[PML4_ENTRY]);
    for (gib, entries) in directories(ram_bytes) {
        low.put_words(PDPT + gib * 8, &[pdpt_entry(gib)]);
        low.put_words(directory_at(gib), &entries);
    }
    low.write(memory)?;
    Ok((0..vcpus)
        .map(|index| VcpuEntry { index, ram_bytes })
        .collect())
}

/// The memory below [`FREE_RAM`] as it shall be.
struct Low {
    bytes: Vec<u8>,
}

impl Low {
    fn put(&mut self, address: u64, bytes: &[u8]) {
        let start = address as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn put_words(&mut self, address: u64, words: &[u64]) {
        for (place, word) in (address..).step_by(8).zip(words) {
            self.put(place, &word.to_le_bytes());
        }
    }

    /// Writes page by page what is not zero, or does not hold zeroes yet: untouched memory stays untouched.
    fn write(&self, memory: &GuestMemoryMmap) -> Result<(), LoadError> {
        let mut present = [0; 4096];
        for (address, page) in (0..)
            .step_by(present.len())
            .zip(self.bytes.chunks(present.len()))
        {
            let failed = |source| LoadError::Memory { address, source };
            memory
                .read_slice(&mut present, GuestAddress(address))
                .map_err(failed)?;
            if present != *page {
                memory
                    .write_slice(page, GuestAddress(address))
                    .map_err(failed)?;
            }
        }
        Ok(())
    }
}
