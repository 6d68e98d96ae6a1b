//! What the kernel does with the memory of guests. Invariant: each probe works on 2 MiB of its own and gives them back.
//! Unsafe: the mapping of a memfd, and an advice on it.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::ProbeError;
use crate::fault_around::NoFaultAround;
use crate::ram::{GuestRam, HUGE_PAGE, RamRegion};

/// man 2 madvise; Linux 6.1.
const MADV_COLLAPSE: i32 = 25;

/// Whether 2 MiB of a memfd become one huge page when asked, as sealed memory is.
///
/// # Errors
/// The kernel's refusal, or no memory.
pub fn memfd_collapse() -> Result<(), ProbeError> {
    let failed = |operation| move |source: io::Error| ProbeError::Call { operation, source };
    let file: std::fs::File =
        rustix::fs::memfd_create(c"brood-probe", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|errno| failed("memfd_create")(errno.into()))?
            .into();
    file.set_len(HUGE_PAGE).map_err(failed("ftruncate"))?;
    file.write_all_at(&[1], 0)
        .map_err(failed("write to memfd"))?;
    let ram = huge_page()?;
    let (address, bytes) = (ram.base().cast(), HUGE_PAGE as usize);
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: replaces all of the aligned reservation that `ram` owns and that nothing else uses.
    let mapped = unsafe { libc::mmap(address, bytes, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED {
        return Err(failed("mmap of a memfd")(io::Error::last_os_error()));
    }
    // SAFETY: the mapping made above; collapsing keeps its bytes.
    match unsafe { libc::madvise(address, bytes, MADV_COLLAPSE) } {
        0 => Ok(()),
        _ => Err(failed("MADV_COLLAPSE of a memfd")(
            io::Error::last_os_error(),
        )),
    }
}

/// Whether reads of guest memory can be kept from mapping its neighbours, which needs userfaultfd.
///
/// # Errors
/// The kernel's refusal.
pub fn fault_around_control() -> Result<(), ProbeError> {
    let failed = |operation| move |source| ProbeError::Call { operation, source };
    let ram = huge_page()?;
    let guard = NoFaultAround::new().map_err(failed("userfaultfd(UFFD_USER_MODE_ONLY)"))?;
    guard
        .cover(ram.base() as u64, ram.bytes())
        .map_err(failed("UFFDIO_REGISTER for write protection"))
}

fn huge_page() -> Result<GuestRam, ProbeError> {
    GuestRam::new(&[RamRegion {
        gpa: 0,
        bytes: HUGE_PAGE,
    }])
    .map_err(|error| ProbeError::Memory(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_the_kernel_is_a_result() {
        for result in [memfd_collapse(), fault_around_control()] {
            assert!(
                matches!(result, Ok(()) | Err(ProbeError::Call { .. })),
                "{result:?}"
            );
        }
    }
}
