//! Sealing: RAM written once to a memfd, made of huge pages, sealed, and mapped back privately.
//!
//! ```text
//!  before   anonymous pages ████████░░░░████░░░░       ░ all zero
//!  memfd                    [run 0 ]    [r1]           written, collapsed to 2 MiB pages, F_SEAL_WRITE
//!  after    private mapping ████████----████----       - fresh anonymous, never a hole of the memfd
//! ```
//!
//! A hole of a memfd allocates a shared page on any touch, so 2 MiB units that are all zero stay anonymous.
//! Invariant: every vCPU is parked from the first byte read to the last mapping replaced, so the image is one point
//! in time. Unsafe: reads guest memory as a slice while nothing can write it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ram::{GuestRam, HUGE_PAGE, RamError};

/// man 2 madvise: collapse to huge pages now, whatever the shmem policy is (Linux 6.1).
const MADV_COLLAPSE: i32 = 25;

/// A span of RAM held by the sealed memfd, at the same offset in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRun {
    /// Bytes from the start of RAM.
    pub offset: u64,
    /// Bytes, a multiple of 2 MiB.
    pub bytes: u64,
}

/// An immutable image of RAM that any number of machines map privately.
#[derive(Clone, Debug)]
pub struct SealedRam {
    fd: Arc<OwnedFd>,
    bytes: u64,
    runs: Vec<SealedRun>,
}

/// What a sealing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReport {
    /// Bytes written to the image.
    pub image_bytes: u64,
    /// Bytes of it that are huge pages.
    pub huge_bytes: u64,
}

/// Why RAM could not be sealed; RAM is unchanged unless [`SealError::Ram`] says so.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A call on the memfd failed; `ENOMEM` or `ENOSPC` mean that the host is out of memory.
    #[error("cannot seal guest RAM: {operation} failed")]
    Image {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The image is complete but could not be mapped back: the machine must not run on.
    #[error("cannot map the sealed image back")]
    Ram(#[from] RamError),
    /// An image received from elsewhere is not what it says.
    #[error("sealed image is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
}

impl SealedRam {
    /// An image made by another process: its descriptor and runs.
    ///
    /// # Errors
    /// Runs out of order or outside of the image, or an image that can still be written to.
    pub fn from_parts(fd: OwnedFd, bytes: u64, runs: Vec<SealedRun>) -> Result<Self, SealError> {
        let mut at = 0;
        for run in &runs {
            let aligned = run.offset % HUGE_PAGE == 0 && run.bytes % HUGE_PAGE == 0;
            let end = run.offset.saturating_add(run.bytes);
            if !aligned || run.bytes == 0 || run.offset < at || end > bytes {
                return Err(SealError::Malformed {
                    reason: "runs overlap, are out of order or leave the image",
                });
            }
            at = end;
        }
        // SAFETY: F_GET_SEALS takes no pointer.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        let wanted = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK;
        if seals < 0 || seals & wanted != wanted {
            return Err(SealError::Malformed {
                reason: "the memfd is not sealed against writing and shrinking",
            });
        }
        let held = fd
            .try_clone()
            .and_then(|fd| File::from(fd).metadata())
            .map_err(|source| SealError::Image {
                operation: "fstat of the image",
                source,
            })?;
        if held.len() < at {
            // A touch beyond its end would be SIGBUS.
            return Err(SealError::Malformed {
                reason: "the memfd is shorter than what it is said to hold",
            });
        }
        Ok(Self {
            fd: Arc::new(fd),
            bytes,
            runs,
        })
    }

    /// The sealed memfd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes of RAM it is the image of.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Spans the memfd holds; everything else is zero.
    pub fn runs(&self) -> &[SealedRun] {
        &self.runs
    }
}

impl GuestRam {
    /// Seals RAM as it is now and maps the image back privately. Every vCPU must be parked.
    ///
    /// # Errors
    /// The host is out of memory; RAM keeps its contents.
    pub fn seal(&mut self) -> Result<SealReport, SealError> {
        let file = create_memfd(self.bytes())?;
        let mut runs: Vec<SealedRun> = Vec::new();
        let mut report = SealReport {
            image_bytes: 0,
            huge_bytes: 0,
        };
        for offset in (0..self.bytes()).step_by(HUGE_PAGE as usize) {
            let unit = self.unit(offset);
            if is_zero(unit) {
                continue;
            }
            file.write_all_at(unit, offset)
                .map_err(|source| SealError::Image {
                    operation: "write to memfd",
                    source,
                })?;
            report.image_bytes += HUGE_PAGE;
            match runs.last_mut() {
                Some(run) if run.offset + run.bytes == offset => run.bytes += HUGE_PAGE,
                _ => runs.push(SealedRun {
                    offset,
                    bytes: HUGE_PAGE,
                }),
            }
        }
        for run in &runs {
            report.huge_bytes += collapse(&file, *run)?;
        }
        let seals =
            libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: F_ADD_SEALS takes no pointer.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(SealError::Image {
                operation: "F_ADD_SEALS",
                source: io::Error::last_os_error(),
            });
        }
        let sealed = SealedRam {
            fd: Arc::new(file.into()),
            bytes: self.bytes(),
            runs,
        };
        self.adopt(sealed)?;
        Ok(report)
    }

    fn unit(&self, offset: u64) -> &[u8] {
        let start = self.base().wrapping_add(offset as usize);
        // SAFETY: the unit lies inside the reservation, and with every vCPU parked nothing writes guest memory.
        unsafe { std::slice::from_raw_parts(start, HUGE_PAGE as usize) }
    }
}

fn is_zero(unit: &[u8]) -> bool {
    unit.chunks_exact(4096)
        .all(|page| page.iter().fold(0, |bits, byte| bits | byte) == 0)
}

fn create_memfd(bytes: u64) -> Result<File, SealError> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string that lives for ever.
    let raw = unsafe { libc::memfd_create(c"brood-ram".as_ptr(), flags) };
    if raw < 0 {
        return Err(SealError::Image {
            operation: "memfd_create",
            source: io::Error::last_os_error(),
        });
    }
    // SAFETY: a descriptor just made and owned by nobody else.
    let file = unsafe { File::from_raw_fd(raw) };
    file.set_len(bytes).map_err(|source| SealError::Image {
        operation: "ftruncate",
        source,
    })?;
    Ok(file)
}

/// Makes huge pages of a run through a mapping of its own; how many bytes became huge.
///
/// The mapping is aligned to a huge page by hand: where shared memory is not huge by policy, the kernel aligns to
/// small ones and then refuses to collapse.
fn collapse(file: &File, run: SealedRun) -> Result<u64, SealError> {
    let failed = || SealError::Image {
        operation: "mmap of the image",
        source: io::Error::last_os_error(),
    };
    let (length, offset) = (run.bytes as usize, run.offset as libc::off_t);
    let reserved = length + HUGE_PAGE as usize;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let hint = std::ptr::null_mut();
    // SAFETY: a new inaccessible mapping at an address of the kernel's choice.
    let raw = unsafe { libc::mmap(hint, reserved, libc::PROT_NONE, flags, -1, 0) };
    if raw == libc::MAP_FAILED {
        return Err(failed());
    }
    let aligned = raw.wrapping_byte_add((raw as usize).wrapping_neg() % HUGE_PAGE as usize);
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: the span lies inside the reservation made above, which nothing uses.
    let mapped = unsafe {
        libc::mmap(
            aligned,
            length,
            libc::PROT_READ,
            flags,
            file.as_raw_fd(),
            offset,
        )
    };
    // SAFETY: the span is the mapping made above, if it was made; collapsing keeps its bytes.
    let collapsed = unsafe { libc::madvise(aligned, length, MADV_COLLAPSE) };
    let failure = (mapped == libc::MAP_FAILED).then(failed);
    // SAFETY: the reservation made above, not used after this line.
    let unmapped = unsafe { libc::munmap(raw, reserved) };
    debug_assert_eq!(unmapped, 0, "munmap of an owned reservation");
    match failure {
        Some(failure) => Err(failure),
        // A kernel that cannot collapse leaves small pages: more page tables, same bytes.
        None => Ok(if collapsed == 0 { run.bytes } else { 0 }),
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::ram::RamRegion;

    const MIB: u64 = 1 << 20;

    fn ram() -> GuestRam {
        GuestRam::new(&[RamRegion {
            gpa: 0,
            bytes: 64 * MIB,
        }])
        .expect("64 MiB")
    }

    fn blocks(ram: &GuestRam) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let fd = ram
            .sealed()
            .expect("sealed")
            .fd()
            .try_clone_to_owned()
            .expect("dup");
        File::from(fd).metadata().expect("fstat").blocks()
    }

    #[test]
    fn sealed_ram_keeps_every_byte_and_stays_writable() {
        let mut ram = ram();
        ram.memory()
            .write_obj(7_u64, GuestAddress(5 * MIB))
            .expect("write");
        ram.memory()
            .write_obj(9_u64, GuestAddress(63 * MIB))
            .expect("write");
        let report = ram.seal().expect("seal");
        assert_eq!(report.image_bytes, 4 * MIB);
        assert_eq!(
            ram.memory()
                .read_obj::<u64>(GuestAddress(5 * MIB))
                .expect("read"),
            7
        );
        ram.memory()
            .write_obj(8_u64, GuestAddress(5 * MIB))
            .expect("write");
        assert_eq!(
            ram.memory()
                .read_obj::<u64>(GuestAddress(5 * MIB))
                .expect("read"),
            8
        );
        assert_eq!(
            ram.memory()
                .read_obj::<u64>(GuestAddress(63 * MIB))
                .expect("read"),
            9
        );
    }

    #[test]
    fn a_single_huge_page_is_collapsed_wherever_the_kernel_maps() {
        for at in [3, 7, 11, 21, 45] {
            let mut ram = ram();
            ram.memory()
                .write_obj(7_u64, GuestAddress(at * MIB))
                .expect("write");
            let report = ram.seal().expect("seal");
            assert_eq!((report.image_bytes, report.huge_bytes), (2 * MIB, 2 * MIB));
        }
    }

    #[test]
    fn touching_every_page_never_grows_the_image() {
        let mut ram = ram();
        ram.memory()
            .write_obj(7_u64, GuestAddress(5 * MIB))
            .expect("write");
        ram.seal().expect("seal");
        let before = blocks(&ram);
        for page in (0..64 * MIB).step_by(4096) {
            let value: u64 = ram.memory().read_obj(GuestAddress(page)).expect("read");
            ram.memory()
                .write_obj(value + 1, GuestAddress(page))
                .expect("write");
        }
        assert_eq!(blocks(&ram), before);
    }

    #[test]
    fn a_second_machine_maps_the_image_and_does_not_see_later_writes() {
        let mut mother = ram();
        mother
            .memory()
            .write_obj(7_u64, GuestAddress(5 * MIB))
            .expect("write");
        mother.seal().expect("seal");
        mother
            .memory()
            .write_obj(8_u64, GuestAddress(5 * MIB))
            .expect("write");
        let sealed = mother.sealed().expect("sealed").clone();
        let fd = sealed.fd().try_clone_to_owned().expect("dup");
        let sealed =
            SealedRam::from_parts(fd, sealed.bytes(), sealed.runs().to_vec()).expect("parts");
        let daughter = GuestRam::from_sealed(mother.regions(), sealed).expect("daughter");
        assert_eq!(
            daughter
                .memory()
                .read_obj::<u64>(GuestAddress(5 * MIB))
                .expect("read"),
            7
        );
    }

    #[test]
    fn sealing_again_takes_the_private_pages_along_and_zeroes_what_became_zero() {
        let mut ram = ram();
        ram.memory()
            .write_obj(7_u64, GuestAddress(5 * MIB))
            .expect("write");
        ram.seal().expect("seal");
        ram.memory()
            .write_obj(0_u64, GuestAddress(5 * MIB))
            .expect("write");
        ram.memory()
            .write_obj(3_u64, GuestAddress(9 * MIB))
            .expect("write");
        let report = ram.seal().expect("seal again");
        assert_eq!(report.image_bytes, 2 * MIB);
        assert_eq!(
            ram.memory()
                .read_obj::<u64>(GuestAddress(5 * MIB))
                .expect("read"),
            0
        );
        assert_eq!(
            ram.memory()
                .read_obj::<u64>(GuestAddress(9 * MIB))
                .expect("read"),
            3
        );
    }

    #[test]
    fn an_image_that_can_still_change_is_refused() {
        let file = create_memfd(4 * MIB).expect("memfd");
        let refused = SealedRam::from_parts(file.into(), 4 * MIB, Vec::new());
        assert!(matches!(refused, Err(SealError::Malformed { .. })));
    }
}
