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

use crate::ram::{GuestRam, HUGE_PAGE, RamError, reserve_aligned};

/// man 2 madvise, Linux 5.14: fault pages in now, writable.
const MADV_POPULATE_WRITE: libc::c_int = 23;

/// An empty huge page for one unit of RAM.
#[derive(Debug)]
pub struct EmptyUnit {
    page: *mut u8,
    unit: u32,
}

const BYTES: usize = HUGE_PAGE as usize;

impl Drop for EmptyUnit {
    fn drop(&mut self) {
        // SAFETY: the page is owned by this value, which is forgotten once the page has moved into RAM.
        let result = unsafe { libc::munmap(self.page.cast(), BYTES) };
        debug_assert_eq!(result, 0, "munmap of an owned page");
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
        let page = reserve_aligned(HUGE_PAGE, libc::PROT_READ | libc::PROT_WRITE)?;
        let empty = EmptyUnit { page, unit };
        for advice in [libc::MADV_HUGEPAGE, MADV_POPULATE_WRITE] {
            // SAFETY: the page reserved above, which nothing else uses.
            let result = unsafe { libc::madvise(page.cast(), BYTES, advice) };
            let error = io::Error::last_os_error();
            // Without transparent huge pages it stays small pages, and without the second advice faults come later:
            // no gain then, and correct.
            if result != 0 && error.raw_os_error() == Some(libc::ENOMEM) {
                return Err(RamError::Map {
                    bytes: HUGE_PAGE,
                    source: error,
                });
            }
        }
        Ok(empty)
    }

    /// Fills the huge page with what its unit of RAM holds and puts it there. Every vCPU must be parked.
    ///
    /// # Errors
    /// The host refuses the move; RAM is as it was.
    pub fn collapse(&self, empty: EmptyUnit) -> Result<(), RamError> {
        let target = self.base().wrapping_add(empty.unit as usize * BYTES);
        // SAFETY: both spans are mapped, do not overlap, and nothing writes either while vCPUs and devices stand still.
        unsafe { std::ptr::copy_nonoverlapping(target, empty.page, BYTES) };
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: replaces a span of the reservation that guest RAM owns by a page with the same contents.
        let moved = unsafe { libc::mremap(empty.page.cast(), BYTES, BYTES, flags, target) };
        if moved == libc::MAP_FAILED {
            return Err(RamError::Map {
                bytes: HUGE_PAGE,
                source: io::Error::last_os_error(),
            });
        }
        std::mem::forget(empty);
        Ok(())
    }
}
