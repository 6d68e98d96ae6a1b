//! Walking RAM from its first byte to its last, without touching what was never touched.
//!
//! ```text
//!  page table   private page   clean page of the image   no entry, in a sealed run   no entry elsewhere
//!  read from    memory         the memfd                 the memfd                   nowhere: it is zero
//! ```
//!
//! A read of memory that was never touched maps a page of zeros, which every later fork copies, and one of a clean page
//! of the image maps that. The kernel says which pages there are (man 5 proc_pid_pagemap); the file comes from outside,
//! because a jailed cell sees no /proc. Without it all of RAM is read from memory, which is slower, costs page tables
//! and finds the same bytes. Invariant: every vCPU is parked and no device works meanwhile, so what is walked is one
//! point in time. Unsafe: reads guest memory as a slice while nothing can write it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use crate::ram::{GuestRam, HUGE_PAGE};

const PAGE: u64 = 4096;
/// Pages of one unit.
const PAGES: usize = (HUGE_PAGE / PAGE) as usize;
/// Bytes of an entry of a pagemap.
const ENTRY: usize = 8;
/// man 5 proc_pid_pagemap: bits 61 to 63.
const FILE_OR_SHARED: u64 = 1 << 61;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// Why RAM could not be walked.
#[derive(Debug, thiserror::Error)]
pub enum WalkError<E: std::error::Error + 'static> {
    /// The kernel does not say which pages there are.
    #[error("cannot read which pages of RAM exist")]
    Pagemap(#[source] io::Error),
    /// The sealed image cannot be read.
    #[error("cannot read the sealed image")]
    Image(#[source] io::Error),
    /// Whoever was given the bytes did not take them.
    #[error(transparent)]
    Taker(E),
}

/// Where the bytes of a page are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Memory,
    Image,
    Nowhere,
}

impl GuestRam {
    /// Gives `take` the offset and the bytes of every span of RAM that may hold anything but zeros, in order, each of
    /// whole pages and at most 2 MiB. Every vCPU must be parked. `pagemap` is /proc/PID/pagemap of this process.
    ///
    /// # Errors
    /// RAM cannot be read, or `take` fails.
    pub fn walk<E: std::error::Error + 'static>(
        &self,
        pagemap: Option<&File>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), WalkError<E>> {
        let image = self
            .sealed()
            .map(|sealed| borrowed_file(sealed.fd()))
            .transpose()
            .map_err(WalkError::Image)?;
        let mut copy = Vec::new();
        for unit in (0..self.bytes()).step_by(HUGE_PAGE as usize) {
            let sources = match pagemap {
                Some(pagemap) => self.sources(pagemap, unit).map_err(WalkError::Pagemap)?,
                None => [Source::Memory; PAGES],
            };
            let mut at = unit;
            for run in sources.chunk_by(|one, next| one == next) {
                let bytes = run.len() * PAGE as usize;
                match (run.first(), &image) {
                    (Some(Source::Memory), _) => take(at, self.span(at, bytes)),
                    (Some(Source::Image), Some(image)) => {
                        copy.resize(bytes, 0);
                        image
                            .read_exact_at(&mut copy, at)
                            .map_err(WalkError::Image)?;
                        take(at, &copy)
                    }
                    _ => Ok(()),
                }
                .map_err(WalkError::Taker)?;
                at += bytes as u64;
            }
        }
        Ok(())
    }

    /// Where the pages of the unit at `offset` are.
    fn sources(&self, pagemap: &File, offset: u64) -> io::Result<[Source; PAGES]> {
        let mut entries = [0; PAGES * ENTRY];
        let first = (self.address() + offset) / PAGE;
        pagemap.read_exact_at(&mut entries, first * ENTRY as u64)?;
        // Runs of the image are whole units.
        let is_sealed = self.sealed().is_some_and(|sealed| {
            let holds = |start: u64, bytes| (start..start + bytes).contains(&offset);
            sealed.runs().iter().any(|run| holds(run.offset, run.bytes))
        });
        let mut sources = [Source::Nowhere; PAGES];
        for (source, entry) in sources.iter_mut().zip(entries.as_chunks::<ENTRY>().0) {
            let entry = u64::from_ne_bytes(*entry);
            let exists = entry & (PRESENT | SWAPPED) != 0;
            let is_clean = entry & FILE_OR_SHARED != 0;
            *source = match (exists, is_sealed) {
                (true, true) if is_clean => Source::Image,
                (true, _) => Source::Memory,
                (false, true) => Source::Image,
                (false, false) => Source::Nowhere,
            };
        }
        Ok(sources)
    }

    fn span(&self, offset: u64, bytes: usize) -> &[u8] {
        let start = self.base().wrapping_add(offset as usize);
        // SAFETY: the span lies inside the reservation, and with every vCPU parked nothing writes guest memory.
        unsafe { std::slice::from_raw_parts(start, bytes) }
    }
}

fn borrowed_file(fd: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from(fd.as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::os::unix::fs::MetadataExt;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::ram::RamRegion;

    const MIB: u64 = 1 << 20;
    const RAM: u64 = 64 * MIB;

    fn ram() -> GuestRam {
        GuestRam::new(&[RamRegion { gpa: 0, bytes: RAM }]).expect("64 MiB")
    }

    fn pagemap() -> File {
        File::open("/proc/self/pagemap").expect("this process may look at itself")
    }

    fn put(ram: &GuestRam, at: u64, value: u64) {
        let written = ram.memory().write_obj(value, GuestAddress(at));
        written.expect("write");
    }

    /// What a walk finds, as (offset, word) of every word that is not zero, and how many bytes it was given.
    fn found(ram: &GuestRam, pagemap: Option<&File>) -> (Vec<(u64, u64)>, usize) {
        let (mut words, mut bytes) = (Vec::new(), 0);
        ram.walk(pagemap, |at, span| {
            bytes += span.len();
            for (index, word) in (0..).zip(span.as_chunks::<8>().0) {
                let word = u64::from_ne_bytes(*word);
                if word != 0 {
                    words.push((at + 8 * index, word));
                }
            }
            Ok::<_, Infallible>(())
        })
        .expect("walk");
        (words, bytes)
    }

    /// Pages that exist of the span.
    fn existing(ram: &GuestRam) -> usize {
        let mut entries = vec![0; (RAM / PAGE) as usize * ENTRY];
        let first = ram.address() / PAGE * ENTRY as u64;
        pagemap().read_exact_at(&mut entries, first).expect("read");
        let entries = entries.as_chunks::<ENTRY>().0.iter();
        entries
            .filter(|entry| u64::from_ne_bytes(**entry) & (PRESENT | SWAPPED) != 0)
            .count()
    }

    #[test]
    fn a_walk_finds_private_pages_and_those_of_the_image_and_touches_neither_holes_nor_the_image() {
        let mut ram = ram();
        put(&ram, 5 * MIB, 5);
        put(&ram, 9 * MIB, 9);
        put(&ram, 9 * MIB + 8192, 10);
        ram.seal().expect("seal");
        put(&ram, 9 * MIB, 0);
        put(&ram, 33 * MIB + 8, 33);
        // A clean page of the image is mapped by a read.
        let read: u64 = ram
            .memory()
            .read_obj(GuestAddress(9 * MIB + 8192))
            .expect("read");
        assert_eq!(read, 10);
        let image = borrowed_file(ram.sealed().expect("sealed").fd()).expect("dup");
        let blocks = || image.metadata().expect("fstat").blocks();
        let before = (existing(&ram), blocks());
        let (words, _) = found(&ram, Some(&pagemap()));
        assert_eq!(
            words,
            [(5 * MIB, 5), (9 * MIB + 8192, 10), (33 * MIB + 8, 33)]
        );
        assert_eq!((existing(&ram), blocks()), before);
    }

    #[test]
    fn memory_nobody_touched_is_not_given_out() {
        let ram = ram();
        assert_eq!(found(&ram, Some(&pagemap())), (Vec::new(), 0));
        assert_eq!(existing(&ram), 0);
    }

    #[test]
    fn without_a_pagemap_a_walk_finds_the_same_bytes() {
        let mut ram = ram();
        put(&ram, 5 * MIB, 5);
        ram.seal().expect("seal");
        put(&ram, 5 * MIB + 4096, 6);
        put(&ram, 33 * MIB, 33);
        let known = found(&ram, Some(&pagemap())).0;
        assert_eq!(found(&ram, None).0, known);
        assert_eq!(known.len(), 3);
    }

    #[test]
    fn a_huge_page_that_took_the_place_of_a_unit_of_the_image_is_read_from_memory() {
        let mut ram = ram();
        put(&ram, 4 * MIB, 4);
        put(&ram, 5 * MIB, 5);
        ram.seal().expect("seal");
        put(&ram, 4 * MIB, 44);
        let empty = ram.prepare_collapse(2).expect("a unit");
        ram.collapse(empty).expect("collapse");
        let words = found(&ram, Some(&pagemap())).0;
        assert_eq!(words, [(4 * MIB, 44), (5 * MIB, 5)]);
    }
}
