//! fork(2) alone, of a process with memory shaped as a mother's and without KVM: what this kernel and machine charge
//! today for the page tables, so that the other rows can be read against it.
//! Unsafe: the mappings, and fork(2) of this single-threaded bench.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, ensure};
use brood_vmm::now;

use crate::report::Report;

const RAM: usize = 256 << 20;
const CHUNK: usize = 4 << 20;
const PAGE: usize = 4096;
/// Pages written before each fork: 16 MiB, clustered.
const DIRTY_PAGES: usize = 4096;
/// man 2 madvise, Linux 6.1.
const MADV_COLLAPSE: i32 = 25;

/// Row `baseline/fork-alone/256MiB/16MiB-clustered`, metric `fork`.
pub(crate) fn fork_alone(samples: usize, report: &mut Report) -> anyhow::Result<()> {
    let base = memory()?;
    for _ in 0..samples {
        for page in 0..DIRTY_PAGES {
            let word = base.wrapping_add(page * PAGE).cast::<u64>();
            // SAFETY: inside the private mapping made above.
            let value = unsafe { word.read_volatile() };
            // SAFETY: as above.
            unsafe { word.write_volatile(value + 1) };
        }
        let began = now();
        // SAFETY: the bench's main thread runs alone here, and the child only exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: does not return.
            unsafe { libc::_exit(0) };
        }
        let ended = now();
        ensure!(
            child > 0,
            "fork failed: {}",
            std::io::Error::last_os_error()
        );
        let mut status = 0;
        // SAFETY: the out-pointer is a live local.
        unsafe { libc::waitpid(child, &mut status, 0) };
        report.micros(
            "baseline/fork-alone/256MiB/16MiB-clustered",
            "fork",
            ended.micros_since(began),
        );
    }
    Ok(())
}

/// A sealed-like memfd of huge pages, half of it filled, mapped privately in chunks that do not merge.
fn memory() -> anyhow::Result<*mut u8> {
    // SAFETY: the name is a C string that lives for ever.
    let raw = unsafe { libc::memfd_create(c"baseline".as_ptr(), libc::MFD_CLOEXEC) };
    ensure!(raw >= 0, "memfd_create failed");
    // SAFETY: a descriptor just made and owned by nobody else.
    let file = unsafe { File::from_raw_fd(raw) };
    file.set_len(RAM as u64)?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let reserved = unsafe { libc::mmap(std::ptr::null_mut(), RAM + CHUNK, prot, flags, -1, 0) };
    ensure!(reserved != libc::MAP_FAILED, "cannot reserve address space");
    let base = reserved
        .cast::<u8>()
        .wrapping_add((reserved as usize).wrapping_neg() % CHUNK);
    let map = |offset: usize, bytes: usize, sharing: i32| {
        let (at, fd) = (base.wrapping_add(offset).cast(), file.as_raw_fd());
        // SAFETY: inside the reservation made above, which nothing else uses.
        let mapped = unsafe {
            libc::mmap(
                at,
                bytes,
                prot,
                sharing | libc::MAP_FIXED,
                fd,
                offset as i64,
            )
        };
        (mapped != libc::MAP_FAILED)
            .then_some(())
            .context("cannot map the baseline's memory")
    };
    map(0, RAM, libc::MAP_SHARED)?;
    // SAFETY: the first half of the mapping just made.
    unsafe { base.write_bytes(1, RAM / 2) };
    // SAFETY: as above; collapsing keeps the bytes.
    unsafe { libc::madvise(base.cast(), RAM / 2, MADV_COLLAPSE) };
    for offset in (0..RAM).step_by(CHUNK) {
        map(offset, CHUNK, libc::MAP_PRIVATE | libc::MAP_NORESERVE)?;
        if (offset / CHUNK) % 2 == 1 {
            // SAFETY: the chunk just mapped; the advice changes no contents.
            unsafe { libc::madvise(base.wrapping_add(offset).cast(), CHUNK, libc::MADV_DONTDUMP) };
        }
    }
    Ok(base)
}
