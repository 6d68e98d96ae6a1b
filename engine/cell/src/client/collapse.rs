//! Which parts of a machine's RAM are worth a private huge page, and the asking for it.
//!
//! A fork's pause grows with the small pages a mother has written since she was sealed. Where a quarter of a 2 MiB unit
//! or more is such pages, one huge page in their place makes the pause shorter and costs the rest of the unit in memory.
//! The engine looks, because a jailed cell sees no /proc; the cell acts.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use brood_vmm::HUGE_PAGE;

use super::{Cell, CellError};
use crate::protocol::{MAX_UNITS, Reply, Request};

/// Small pages in a unit.
const PAGES: u64 = HUGE_PAGE / PAGE;
const PAGE: u64 = 4096;
/// A unit is collapsed when this many of its 512 pages are private: a quarter, so that memory grows at most fourfold.
const DENSE: u64 = PAGES / 4;
/// The most units of one call: 128 MiB.
const MOST: usize = 64;

/// What collapsing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collapsed {
    /// Nanoseconds the vCPUs stood still, once for each unit.
    pub paused_nanos: Vec<u64>,
}

/// `struct pm_scan_arg`, include/uapi/linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`, Linux 6.7.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_HUGE: u64 = 1 << 6;
const REGIONS: usize = 512;

impl Cell {
    /// Gives densely written parts of RAM private huge pages, so that the next fork pauses shorter; in the background
    /// of a mother that will be forked again. The guest runs on but for a fraction of a millisecond for each unit.
    ///
    /// # Errors
    /// The cell refuses, or this host does not say which pages are private (before Linux 6.7, or without the right to
    /// look at another process): forks pause longer then, and are correct.
    pub fn collapse(&mut self) -> Result<Collapsed, CellError> {
        let stats = self.stats()?;
        let mut collapsed = Collapsed::default();
        let unknown = |source| CellError::Call {
            operation: "PAGEMAP_SCAN",
            source,
        };
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid())).map_err(unknown)?;
        let units = dense_units(&pagemap, stats.ram_address, stats.ram_bytes).map_err(unknown)?;
        for units in units.chunks(MAX_UNITS) {
            let units = units.to_vec();
            match self.request(Request::Collapse { units }, &[])? {
                (Reply::Collapsed { paused_nanos }, _) => {
                    collapsed.paused_nanos.extend(paused_nanos);
                }
                (other, _) => return Err(CellError::Confused(format!("{other:?}"))),
            }
        }
        Ok(collapsed)
    }
}

/// Units of RAM of which at least [`DENSE`] pages are private small ones, the densest first.
fn dense_units(pagemap: &File, address: u64, bytes: u64) -> io::Result<Vec<u32>> {
    let mut private = vec![0_u64; usize::try_from(bytes / HUGE_PAGE).unwrap_or(0)];
    let mut regions = [Region::default(); REGIONS];
    let (mut at, end) = (address, address + bytes);
    while at != end {
        let mut scan = Scan {
            size: std::mem::size_of::<Scan>() as u64,
            start: at,
            end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS as u64,
            category_inverted: PAGE_IS_FILE | PAGE_IS_HUGE,
            category_mask: PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_HUGE,
            return_mask: PAGE_IS_PRESENT,
            ..Scan::default()
        };
        // SAFETY: the argument is the struct this ioctl reads and writes, and its vector a live local of that length.
        let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
        let found = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
        if scan.walk_end <= at {
            break;
        }
        for region in regions.iter().take(found) {
            count(&mut private, region.start - address, region.end - address);
        }
        at = scan.walk_end;
    }
    let mut dense: Vec<_> = (0_u32..)
        .zip(private)
        .filter(|(_, pages)| *pages >= DENSE)
        .collect();
    dense.sort_by_key(|(_, pages)| std::cmp::Reverse(*pages));
    dense.truncate(MOST);
    Ok(dense.into_iter().map(|(unit, _)| unit).collect())
}

/// Adds the pages of a span of RAM to the units they lie in.
fn count(private: &mut [u64], from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let next = ((at / HUGE_PAGE + 1) * HUGE_PAGE).min(to);
        let unit = usize::try_from(at / HUGE_PAGE).ok();
        if let Some(pages) = unit.and_then(|unit| private.get_mut(unit)) {
            *pages += (next - at) / PAGE;
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_counted_in_every_unit_it_touches() {
        let mut private = [0; 3];
        count(&mut private, HUGE_PAGE - 2 * PAGE, 2 * HUGE_PAGE + PAGE);
        assert_eq!(private, [2, 512, 1]);
    }
}
