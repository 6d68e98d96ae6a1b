//! Guest RAM: private memory at a fixed host address, in chunks.
//!
//! ```text
//!  host    base                                                    base + bytes
//!          |chunk 0|chunk 1|chunk 2|  …  each its own VMA  …  |chunk 31|
//!  guest   gpa 0 ────────────────► 3 GiB │ 4 GiB ─────────────► (one memory slot each)
//! ```
//!
//! fork(2) copies every page-table entry of a VMA once one of its pages is private, so RAM is cut into at most 32
//! chunks and a chunk nobody wrote to costs nothing. `MADV_DONTDUMP` on every other chunk keeps neighbours from
//! merging. Invariant: the reservation never moves and no byte of it is ever mapped shared and writable.
//! Unsafe: this module makes and replaces the mapping that guest memory lives in.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::fault_around::NoFaultAround;
use crate::seal::SealedRam;

/// Bytes of a huge page: the smallest chunk, and the unit of sealing and collapsing.
pub const HUGE_PAGE: u64 = 2 << 20;
/// The most chunks a guest has; beyond, fork pays for VMAs instead of pages.
const MAX_CHUNKS: u64 = 32;

/// A run of guest physical addresses backed by RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// First guest physical address.
    pub gpa: u64,
    /// Bytes, a multiple of 2 MiB.
    pub bytes: u64,
}

/// Why guest RAM could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// A region is empty or not made of 2 MiB units.
    #[error("RAM region at {gpa:#x} of {bytes} bytes is not a multiple of 2 MiB")]
    Shape {
        /// First guest physical address.
        gpa: u64,
        /// Bytes asked for.
        bytes: u64,
    },
    /// The host refused address space or memory.
    #[error(
        "cannot map {bytes} bytes of guest RAM; give the guest less memory or the host more address space (ulimit -v, vm.overcommit_memory)"
    )]
    Map {
        /// Bytes asked for.
        bytes: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The sealed image does not fit this layout.
    #[error("sealed RAM holds {sealed} bytes but the machine has {bytes}")]
    SealedSize {
        /// Bytes of the sealed image.
        sealed: u64,
        /// Bytes of the machine.
        bytes: u64,
    },
    /// No such 2 MiB of RAM.
    #[error("there is no unit {unit} of RAM, which has {units} of 2 MiB")]
    Unit {
        /// The one asked for.
        unit: u32,
        /// How many there are.
        units: u32,
    },
    /// The regions overlap or are not in order.
    #[error("RAM regions overlap or are out of order")]
    Regions,
}

/// The RAM of one guest.
#[derive(Debug)]
pub struct GuestRam {
    base: *mut u8,
    bytes: u64,
    chunk: u64,
    regions: Vec<RamRegion>,
    memory: GuestMemoryMmap,
    sealed: Option<SealedRam>,
    no_fault_around: Option<NoFaultAround>,
}

// SAFETY: the raw pointer names a mapping that lives as long as the value; guest memory is only reached through
// vm-memory's volatile accessors or through raw copies made while every vCPU is parked.
unsafe impl Send for GuestRam {}
// SAFETY: as above; shared references never create references into guest memory.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// Fresh, zeroed RAM: anonymous, transparent huge pages asked for.
    ///
    /// # Errors
    /// A shape that is not made of 2 MiB units, or the host's refusal.
    pub fn new(regions: &[RamRegion]) -> Result<Self, RamError> {
        let ram = Self::reserve(regions)?;
        ram.map_anonymous(0, ram.bytes)?;
        Ok(ram)
    }

    /// RAM that starts as a private copy of a sealed image; nothing is read or copied before the guest touches it.
    ///
    /// # Errors
    /// An image of another size, or the host's refusal.
    pub fn from_sealed(regions: &[RamRegion], sealed: SealedRam) -> Result<Self, RamError> {
        let mut ram = Self::reserve(regions)?;
        if sealed.bytes() != ram.bytes {
            return Err(RamError::SealedSize {
                sealed: sealed.bytes(),
                bytes: ram.bytes,
            });
        }
        ram.adopt(sealed)?;
        Ok(ram)
    }

    /// The regions, in guest physical order.
    pub fn regions(&self) -> &[RamRegion] {
        &self.regions
    }

    /// All bytes of RAM.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of one chunk.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunk
    }

    /// The view devices use.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The sealed image below this RAM, if it has one.
    pub fn sealed(&self) -> Option<&SealedRam> {
        self.sealed.as_ref()
    }

    /// Host address of the first byte in this process, which every daughter shares.
    pub fn address(&self) -> u64 {
        self.base as u64
    }

    /// Host address of the first byte.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Each region with the host address it starts at.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (RamRegion, u64)> + '_ {
        let base = self.base as u64;
        self.regions.iter().scan(0, move |offset, region| {
            let host = base + *offset;
            *offset += region.bytes;
            Some((*region, host))
        })
    }

    /// Replaces RAM by private mappings of `sealed`, whose bytes equal the present ones (or define them).
    ///
    /// What the image leaves out is zero and is mapped anew as well: looking for zeroes has touched it, and a
    /// chunk that was touched costs every later fork.
    pub(crate) fn adopt(&mut self, sealed: SealedRam) -> Result<(), RamError> {
        let mut at = 0;
        for run in sealed.runs() {
            if run.offset > at {
                self.map_anonymous(at, run.offset - at)?;
            }
            self.map_sealed(sealed.fd(), run.offset, run.bytes)?;
            at = run.offset + run.bytes;
        }
        if at < self.bytes {
            self.map_anonymous(at, self.bytes - at)?;
        }
        self.sealed = Some(sealed);
        self.keep_clean_pages_unmapped();
        Ok(())
    }

    /// In a forked child: lets go of what belongs to the mother.
    pub fn forget_inherited(&mut self) {
        if let Some(mothers) = self.no_fault_around.take() {
            mothers.forget();
        }
    }

    /// Keeps reads from filling page tables with clean pages that every later fork would copy. A kernel that
    /// refuses leaves forks slower and correct.
    pub fn keep_clean_pages_unmapped(&mut self) {
        let Some(sealed) = &self.sealed else { return };
        self.no_fault_around = NoFaultAround::new().ok().filter(|guard| {
            let base = self.base as u64;
            sealed
                .runs()
                .iter()
                .all(|run| guard.cover(base + run.offset, run.bytes).is_ok())
        });
    }

    fn reserve(regions: &[RamRegion]) -> Result<Self, RamError> {
        for region in regions {
            if region.bytes == 0 || region.bytes % HUGE_PAGE != 0 || region.gpa % HUGE_PAGE != 0 {
                return Err(RamError::Shape {
                    gpa: region.gpa,
                    bytes: region.bytes,
                });
            }
        }
        let bytes: u64 = regions.iter().map(|region| region.bytes).sum();
        let base = reserve_aligned(bytes, libc::PROT_NONE)?;
        Ok(Self {
            base,
            bytes,
            chunk: chunk_bytes(bytes),
            regions: regions.to_vec(),
            memory: view(base, regions)?,
            sealed: None,
            no_fault_around: None,
        })
    }

    fn map_anonymous(&self, offset: u64, bytes: u64) -> Result<(), RamError> {
        for (offset, bytes) in self.pieces(offset, bytes) {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            self.map(offset, bytes, flags, None)?;
            self.advise(offset, bytes, libc::MADV_HUGEPAGE)?;
        }
        Ok(())
    }

    fn map_sealed(&self, fd: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<(), RamError> {
        for (offset, bytes) in self.pieces(offset, bytes) {
            let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
            self.map(offset, bytes, flags, Some(fd))?;
        }
        Ok(())
    }

    /// Cuts a span at chunk borders.
    fn pieces(&self, offset: u64, bytes: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (chunk, end) = (self.chunk, offset + bytes);
        let mut at = offset;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let next = ((at / chunk + 1) * chunk).min(end);
                let piece = (at, next - at);
                at = next;
                piece
            })
        })
    }

    fn map(
        &self,
        offset: u64,
        bytes: u64,
        flags: i32,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), RamError> {
        let address = self.base.wrapping_add(offset as usize).cast();
        let (raw, file_offset) = fd.map_or((-1, 0), |fd| (fd.as_raw_fd(), offset as libc::off_t));
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the span lies inside the reservation this value owns, and MAP_FIXED replaces only that; every
        // user of the old pages goes through the same addresses and sees equal or newly defined bytes.
        let mapped = unsafe {
            libc::mmap(
                address,
                bytes as usize,
                prot,
                flags | libc::MAP_FIXED,
                raw,
                file_offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(RamError::Map {
                bytes,
                source: io::Error::last_os_error(),
            });
        }
        if (offset / self.chunk) % 2 == 1 {
            self.advise(offset, bytes, libc::MADV_DONTDUMP)?;
        }
        Ok(())
    }

    fn advise(&self, offset: u64, bytes: u64, advice: i32) -> Result<(), RamError> {
        let address = self.base.wrapping_add(offset as usize).cast();
        // SAFETY: the span lies inside the reservation; these advices change neither contents nor protection.
        let result = unsafe { libc::madvise(address, bytes as usize, advice) };
        // A kernel without transparent huge pages answers EINVAL: small pages then, which is slower and correct.
        if result != 0 && advice != libc::MADV_HUGEPAGE {
            return Err(RamError::Map {
                bytes,
                source: io::Error::last_os_error(),
            });
        }
        Ok(())
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        // SAFETY: the reservation is owned by this value and nothing else maps into it.
        let result = unsafe { libc::munmap(self.base.cast(), self.bytes as usize) };
        debug_assert_eq!(result, 0, "munmap of an owned reservation");
    }
}

/// RAM / 64, at least 2 MiB, in whole huge pages.
fn chunk_bytes(bytes: u64) -> u64 {
    (bytes / MAX_CHUNKS)
        .max(HUGE_PAGE)
        .next_multiple_of(HUGE_PAGE)
}

/// Private memory of `bytes` with protection `prot`, aligned to 2 MiB so that huge pages fit.
pub(crate) fn reserve_aligned(bytes: u64, prot: libc::c_int) -> Result<*mut u8, RamError> {
    let refused = |source| RamError::Map { bytes, source };
    let length = bytes as usize + HUGE_PAGE as usize;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let raw = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, flags, -1, 0) };
    if raw == libc::MAP_FAILED {
        return Err(refused(io::Error::last_os_error()));
    }
    let start = raw as usize;
    let base = start.next_multiple_of(HUGE_PAGE as usize);
    let (head, tail) = (base - start, HUGE_PAGE as usize - (base - start));
    for (at, bytes) in [(start, head), (base + bytes as usize, tail)] {
        if bytes > 0 {
            // SAFETY: both ends belong to the mapping made above and are outside of what is returned.
            let result = unsafe { libc::munmap(at as *mut _, bytes) };
            debug_assert_eq!(result, 0, "munmap of an owned end");
        }
    }
    Ok(base as *mut u8)
}

fn view(base: *mut u8, regions: &[RamRegion]) -> Result<GuestMemoryMmap, RamError> {
    let mut offset = 0;
    let mut views = Vec::with_capacity(regions.len());
    for region in regions {
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        );
        let host = base.wrapping_add(offset as usize);
        // SAFETY: the span is part of the reservation, which outlives the view: both are fields of one value.
        let mapping = unsafe { MmapRegion::build_raw(host, region.bytes as usize, prot, flags) }
            .map_err(|error| RamError::Map {
                bytes: region.bytes,
                source: io::Error::other(error.to_string()),
            })?;
        views.push(
            GuestRegionMmap::new(mapping, GuestAddress(region.gpa)).ok_or(RamError::Regions)?,
        );
        offset += region.bytes;
    }
    GuestMemoryMmap::from_regions(views).map_err(|_| RamError::Regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_huge_pages_and_at_most_32() {
        for mib in [64_u64, 128, 130, 256, 2048, 6144] {
            let bytes = mib << 20;
            let chunk = chunk_bytes(bytes);
            assert_eq!(chunk % HUGE_PAGE, 0);
            assert!(bytes.div_ceil(chunk) <= MAX_CHUNKS, "{mib} MiB");
        }
    }

    #[test]
    fn regions_that_are_not_huge_pages_are_refused() {
        let region = RamRegion {
            gpa: 0,
            bytes: (64 << 20) + 4096,
        };
        assert!(matches!(
            GuestRam::new(&[region]),
            Err(RamError::Shape { .. })
        ));
    }
}
