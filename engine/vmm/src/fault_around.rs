//! Keeps the kernel from mapping clean pages around each read of a sealed chunk.
//!
//! Since Linux 6.18 a read fault maps the whole huge page, 512 entries, where a page of it was written before, and
//! fork(2) copies every one of them: a guest that reads and writes 4096 scattered pages cost 12 µs a huge page
//! instead of 2 (measured). A range registered for write protection with userfaultfd has no fault-around
//! (`uffd_disable_fault_around` in the kernel); nothing is ever protected, so no fault is ever delivered, and the
//! registration takes 3 µs. fork(2) drops it in the child, which registers anew. Unsafe: two ioctls.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::mm::{UserfaultfdFlags, userfaultfd};

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
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const MODE_WP: u64 = 1 << 1;
/// Needs no privilege; only faults of user mode would be delivered, and there are none.
const USER_MODE_ONLY: u32 = 1;

/// While it lives, reads of the ranges given to [`NoFaultAround::cover`] map single pages.
#[derive(Debug)]
pub(crate) struct NoFaultAround(OwnedFd);

impl NoFaultAround {
    /// # Errors
    /// The kernel has no userfaultfd for this process; forks are slower then, and correct.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
        // SAFETY: a userfaultfd without registrations changes nothing.
        let fd = unsafe { userfaultfd(flags) }?;
        let mut api = Api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: the argument is the struct this ioctl reads and writes.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut api) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(fd))
    }

    /// # Errors
    /// The range is not private memory of a file or anonymous.
    pub(crate) fn cover(&self, start: u64, len: u64) -> io::Result<()> {
        let mut register = Register {
            start,
            len,
            mode: MODE_WP,
            ioctls: 0,
        };
        // SAFETY: the argument is the struct this ioctl reads and writes; write protection that is never armed
        // changes neither contents nor access.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// In a forked child: the registration stayed with the mother, and so does the descriptor.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}
