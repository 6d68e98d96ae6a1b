//! Lazy RAM: whoever touches a page that is not there waits until somebody has put it there.
//!
//! ```text
//!  guest, device ── touch ──► kernel ── fault ──► MissingPages::next_fault
//!                      ◄───── page ◄──────────── MissingPages::fill
//! ```
//!
//! userfaultfd(2) in its missing mode, with faults of the kernel, because KVM touches guest memory there. Invariant: RAM
//! that is not whole stays guarded: only [`MissingPages::finish`] lets go of it, so that nobody ever reads zeros in the
//! place of what is still to come. It is not inherited over fork(2), so a machine is whole before it is forked. Unsafe:
//! the ioctls of userfaultfd.

use std::fs::File;
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mm::{UserfaultfdFlags, userfaultfd};

use crate::ram::GuestRam;

const PAGE: u64 = 4096;

/// `struct uffdio_api`, include/uapi/linux/userfaultfd.h.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    len: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct Zero {
    range: Range,
    mode: u64,
    zeroed: i64,
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
const UFFDIO_WAKE: libc::c_ulong = 0x8010_aa02;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const MODE_MISSING: u64 = 1 << 0;
/// `struct uffd_msg` has 32 bytes: the event in the first, a fault's address at 16.
const MESSAGE: usize = 32;
const EVENT_PAGEFAULT: u8 = 0x12;

/// Why pages cannot be put into RAM.
#[derive(Debug, thiserror::Error)]
pub enum LazyError {
    /// The kernel gives this process no userfaultfd for faults of the kernel.
    #[error("the kernel gives this process no userfaultfd(2)")]
    Refused(#[source] io::Error),
    /// A call on it failed.
    #[error("{operation} failed")]
    Call {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A span that does not lie in RAM.
    #[error("{bytes} bytes at byte {offset} are not in RAM")]
    Outside {
        /// Where it begins.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
}

/// A userfaultfd without RAM yet. It needs a privilege (vm.unprivileged_userfaultfd), so it is made before a jail.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

impl Userfault {
    /// One that hears the faults of KVM as well.
    ///
    /// # Errors
    /// The kernel refuses it to this process.
    pub fn new() -> Result<Self, LazyError> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: a userfaultfd without registrations changes nothing.
        let fd = unsafe { userfaultfd(flags) }.map_err(|error| LazyError::Refused(error.into()))?;
        let mut api = Api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: the argument is the struct this ioctl reads and writes.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut api) };
        checked("UFFDIO_API", result)?;
        Ok(Self(fd))
    }
}

/// RAM whose pages are still to come.
#[derive(Debug)]
pub struct MissingPages {
    fd: ManuallyDrop<File>,
    all: Range,
}

impl GuestRam {
    /// From now on whoever touches a page of this RAM that is not there waits for [`MissingPages::fill`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn fill_lazily(&self, faults: Userfault) -> Result<MissingPages, LazyError> {
        let all = Range {
            start: self.address(),
            len: self.bytes(),
        };
        let mut register = Register {
            range: all,
            mode: MODE_MISSING,
            ioctls: 0,
        };
        let fd = faults.0;
        // SAFETY: the argument is the struct this ioctl reads and writes; pages that are there stay as they are.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) };
        checked("UFFDIO_REGISTER", result)?;
        let fd = ManuallyDrop::new(File::from(fd));
        Ok(MissingPages { fd, all })
    }
}

impl MissingPages {
    /// Becomes readable when somebody touches a page that is not there.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where in RAM somebody waits for a page, in bytes from its start; none if nobody does.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn next_fault(&self) -> Result<Option<u64>, LazyError> {
        let mut message = [0; MESSAGE];
        loop {
            match (&*self.fd).read(&mut message) {
                Ok(MESSAGE) if message.first() == Some(&EVENT_PAGEFAULT) => {
                    let address = message.get(16..24).and_then(|bytes| bytes.try_into().ok());
                    let address = u64::from_ne_bytes(address.unwrap_or_default());
                    let offset = address.wrapping_sub(self.all.start) / PAGE * PAGE;
                    self.inside(offset, PAGE)?;
                    return Ok(Some(offset));
                }
                // No other event was asked for.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let operation = "read of userfaultfd";
                    return Err(LazyError::Call { operation, source });
                }
            }
        }
    }

    /// Puts whole pages there and wakes whoever waits for them. A page that is there already stays as it is.
    ///
    /// # Errors
    /// The span is not in RAM, or the host has no memory.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), LazyError> {
        let span = self.inside(offset, bytes.len() as u64)?;
        let step = |done: u64, len: u64| {
            let mut copy = Copy {
                dst: span.start + done,
                src: bytes.as_ptr() as u64 + done,
                len,
                mode: 0,
                copied: 0,
            };
            // SAFETY: the argument is the struct this ioctl reads and writes. Its source is a part of `bytes`; its
            // target is guest RAM, and of that only pages that nobody has seen yet.
            let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), UFFDIO_COPY, &raw mut copy) };
            (result, copy.copied)
        };
        self.repeat("UFFDIO_COPY", span, step)
    }

    /// As [`MissingPages::fill`], with zeros.
    ///
    /// # Errors
    /// The span is not in RAM, or the host has no memory.
    pub fn fill_zeros(&self, offset: u64, bytes: u64) -> Result<(), LazyError> {
        let span = self.inside(offset, bytes)?;
        let step = |done: u64, len: u64| {
            let start = span.start + done;
            let mut zero = Zero {
                range: Range { start, len },
                mode: 0,
                zeroed: 0,
            };
            // SAFETY: the argument is the struct this ioctl reads and writes; its target is guest RAM, and of that only
            // pages that nobody has seen yet.
            let result =
                unsafe { libc::ioctl(self.fd.as_raw_fd(), UFFDIO_ZEROPAGE, &raw mut zero) };
            (result, zero.zeroed)
        };
        self.repeat("UFFDIO_ZEROPAGE", span, step)
    }

    /// Lets whoever waits for pages of the span, which are there, look again.
    ///
    /// # Errors
    /// The span is not in RAM.
    pub fn wake(&self, offset: u64, bytes: u64) -> Result<(), LazyError> {
        let mut span = self.inside(offset, bytes)?;
        // SAFETY: the argument is the struct this ioctl reads; waking changes no memory.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), UFFDIO_WAKE, &raw mut span) };
        checked("UFFDIO_WAKE", result)
    }

    /// RAM is whole: pages that are not there now are zero. Lets go of it.
    ///
    /// # Errors
    /// The kernel refuses; RAM stays guarded.
    pub fn finish(self) -> Result<(), LazyError> {
        let mut all = self.all;
        // SAFETY: the argument is the struct this ioctl reads; nobody waits any more for a page that would come.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), UFFDIO_UNREGISTER, &raw mut all) };
        checked("UFFDIO_UNREGISTER", result)?;
        drop(ManuallyDrop::into_inner(self.fd));
        Ok(())
    }

    /// Calls `step` with what is done and what is left until all is.
    fn repeat(
        &self,
        operation: &'static str,
        span: Range,
        step: impl Fn(u64, u64) -> (libc::c_int, i64),
    ) -> Result<(), LazyError> {
        let mut done = 0;
        while done < span.len {
            let (result, moved) = step(done, span.len - done);
            // man 2 ioctl_userfaultfd: what was done before a failure is a positive count, else the error is in it.
            done += u64::try_from(moved).unwrap_or(0);
            if result == 0 {
                continue;
            }
            let source = io::Error::last_os_error();
            match source.raw_os_error() {
                Some(libc::EEXIST) => {
                    let there = span.start + done - self.all.start;
                    self.wake(there, PAGE)?;
                    done += PAGE;
                }
                // The kernel stopped half way, or the process's mappings change at this moment.
                Some(libc::EAGAIN | libc::EINTR) => {}
                _ => return Err(LazyError::Call { operation, source }),
            }
        }
        Ok(())
    }

    /// A span of RAM as addresses.
    fn inside(&self, offset: u64, bytes: u64) -> Result<Range, LazyError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.all.len => Ok(Range {
                start: self.all.start + offset,
                len: bytes,
            }),
            _ => Err(LazyError::Outside { offset, bytes }),
        }
    }
}

fn checked(operation: &'static str, result: libc::c_int) -> Result<(), LazyError> {
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(LazyError::Call { operation, source })
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::ram::RamRegion;

    const MIB: u64 = 1 << 20;

    fn lazy() -> Option<(GuestRam, MissingPages)> {
        let faults = match Userfault::new() {
            Ok(faults) => faults,
            Err(error) if std::env::var_os("CI").is_none() => {
                println!("skipped: {error}");
                return None;
            }
            refused => refused.expect("userfaultfd"),
        };
        let bytes = 64 * MIB;
        let ram = GuestRam::new(&[RamRegion { gpa: 0, bytes }]).expect("64 MiB");
        let pages = ram.fill_lazily(faults).expect("registered");
        Some((ram, pages))
    }

    fn word(ram: &GuestRam, at: u64) -> u64 {
        ram.memory().read_obj(GuestAddress(at)).expect("read")
    }

    #[test]
    fn whoever_touches_a_missing_page_waits_for_it_and_finds_what_was_put_there() {
        let Some((ram, pages)) = lazy() else { return };
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| word(&ram, 5 * MIB + 8));
            let at = loop {
                if let Some(at) = pages.next_fault().expect("heard") {
                    break at;
                }
                std::thread::yield_now();
            };
            assert_eq!(at, 5 * MIB);
            assert!(!reader.is_finished());
            pages.fill(at, &[7; 65536]).expect("filled");
            assert_eq!(reader.join().expect("read"), u64::from_ne_bytes([7; 8]));
        });
    }

    #[test]
    fn a_page_that_is_there_is_not_replaced_and_the_others_are_filled() {
        let Some((ram, pages)) = lazy() else { return };
        pages.fill(2 * MIB + 8192, &[1; 4096]).expect("filled");
        pages.fill_zeros(2 * MIB + 16384, 4096).expect("zeros");
        pages.fill(2 * MIB, &[2; 65536]).expect("the rest");
        let found = [0, 8192, 12288, 16384, 61440].map(|at| word(&ram, 2 * MIB + at) & 0xff);
        assert_eq!(found, [2, 1, 2, 0, 2]);
    }

    #[test]
    fn ram_that_is_whole_is_zero_where_nothing_was_put() {
        let Some((ram, pages)) = lazy() else { return };
        pages.fill(4096, &[3; 4096]).expect("filled");
        pages.finish().expect("whole");
        assert_eq!((word(&ram, 4096) & 0xff, word(&ram, 33 * MIB)), (3, 0));
    }

    #[test]
    fn ram_that_is_not_whole_stays_guarded_when_its_owner_goes() {
        let Some((_ram, pages)) = lazy() else { return };
        let let_go = |pages: MissingPages| pages.fd().as_raw_fd();
        let raw = let_go(pages);
        let link = std::fs::read_link(format!("/proc/self/fd/{raw}")).expect("it is open");
        assert!(link.to_string_lossy().contains("userfaultfd"), "{link:?}");
    }

    #[test]
    fn nothing_is_put_outside_of_ram() {
        let Some((_ram, pages)) = lazy() else { return };
        for offset in [64 * MIB, 64 * MIB - 4096, u64::MAX - 4095] {
            let refused = pages.fill(offset, &[1; 8192]);
            assert!(matches!(refused, Err(LazyError::Outside { .. })));
        }
    }
}
