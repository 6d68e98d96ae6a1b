//! Collapsing: 2 MiB of RAM whose small pages are mostly private become one private huge page.
//!
//! ```text
//!  before   sealed ████ private small pages ▒▒▒▒▒▒▒▒ sealed ████      fork(2) copies every ▒
//!  after    sealed ████[one private huge page      ] sealed ████      fork(2) copies one entry
//! ```
//!
//! fork(2) pays about 0.1 µs for each private small page and 0.5 µs for a huge one. MADV_COLLAPSE does not touch private
//! pages of a file mapping, so the huge page is made beside RAM, filled while every vCPU stands still, and moved in.
//! Invariant: between copy and move nothing writes guest memory, so no write is lost. Unsafe: makes and moves mappings.

use std::io;

use crate::ram::{GuestRam, HUGE_PAGE, RamError};

/// man 2 madvise, Linux 5.14: fault pages in now, writable.
const MADV_POPULATE_WRITE: libc::c_int = 23;

/// An empty huge page for one unit of RAM.
#[derive(Debug)]
pub struct EmptyUnit {
    reservation: *mut u8,
    unit: u32,
}

/// Bytes reserved so that an aligned huge page fits.
const RESERVED: usize = 2 * HUGE_PAGE as usize;

impl EmptyUnit {
    fn page(&self) -> *mut u8 {
        let start = self.reservation as usize;
        self.reservation
            .wrapping_add(start.next_multiple_of(HUGE_PAGE as usize) - start)
    }
}

impl Drop for EmptyUnit {
    fn drop(&mut self) {
        // SAFETY: the reservation is owned by this value; a page that was moved into RAM is no longer part of it.
        let result = unsafe { libc::munmap(self.reservation.cast(), RESERVED) };
        debug_assert_eq!(result, 0, "munmap of an owned reservation");
    }
}

impl GuestRam {
    /// Makes a huge page for `unit`, the 2 MiB of RAM at that multiple; the guest may run meanwhile.
    ///
    /// # Errors
    /// A unit outside of RAM, or the host has no memory.
    pub fn prepare_collapse(&self, unit: u32) -> Result<EmptyUnit, RamError> {
        let offset = u64::from(unit) * HUGE_PAGE;
        if offset >= self.bytes() {
            return Err(RamError::Unit {
                unit,
                units: (self.bytes() / HUGE_PAGE) as u32,
            });
        }
        let refused = || RamError::Map {
            bytes: HUGE_PAGE,
            source: io::Error::last_os_error(),
        };
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping at an address of the kernel's choice.
        let raw = unsafe { libc::mmap(std::ptr::null_mut(), RESERVED, prot, flags, -1, 0) };
        if raw == libc::MAP_FAILED {
            return Err(refused());
        }
        let empty = EmptyUnit {
            reservation: raw.cast(),
            unit,
        };
        for advice in [libc::MADV_HUGEPAGE, MADV_POPULATE_WRITE] {
            let (page, bytes) = (empty.page().cast(), HUGE_PAGE as usize);
            // SAFETY: inside the reservation made above, which nothing else uses.
            let result = unsafe { libc::madvise(page, bytes, advice) };
            // Without transparent huge pages it stays small pages, and without the second advice faults come later:
            // no gain then, and correct.
            if result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOMEM) {
                return Err(refused());
            }
        }
        Ok(empty)
    }

    /// Fills the huge page with what its unit of RAM holds and puts it there. Every vCPU must be parked.
    ///
    /// # Errors
    /// The host refuses the move; RAM is as it was.
    pub fn collapse(&self, empty: EmptyUnit) -> Result<(), RamError> {
        let bytes = HUGE_PAGE as usize;
        let target = self.base().wrapping_add(empty.unit as usize * bytes);
        let page = empty.page();
        // SAFETY: both spans are mapped, do not overlap, and nothing writes either while vCPUs and devices stand still.
        unsafe { std::ptr::copy_nonoverlapping(target, page, bytes) };
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: replaces a span of the reservation that guest RAM owns by a page with the same contents.
        let moved = unsafe { libc::mremap(page.cast(), bytes, bytes, flags, target) };
        if moved == libc::MAP_FAILED {
            return Err(RamError::Map {
                bytes: HUGE_PAGE,
                source: io::Error::last_os_error(),
            });
        }
        Ok(())
    }
}
