//! A sealed memfd as bytes, mapped and not read: what nobody looks at costs nothing.
//!
//! Invariant: the bytes never change and never go away while they are mapped, because the file is sealed against writing
//! and shrinking; any other file is refused. Unsafe: mmap(2) and the slice of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The bytes of a sealed memfd.
#[derive(Debug)]
pub(super) struct SealedBytes {
    start: *const u8,
    length: usize,
}

// SAFETY: the bytes are immutable and belong to the value.
unsafe impl Send for SealedBytes {}

impl SealedBytes {
    /// # Errors
    /// A file that is not sealed, or the host's refusal.
    pub(super) fn map(fd: OwnedFd) -> io::Result<Self> {
        let wanted = SealFlags::WRITE | SealFlags::SHRINK;
        let sealed = fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(wanted));
        if !sealed {
            let words = "the table is not a memfd that is sealed against writing and shrinking";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        let file = File::from(fd);
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length == 0 {
            let start = std::ptr::NonNull::dangling().as_ptr();
            return Ok(Self { start, length });
        }
        let hint = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(hint, length, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) }?;
        let start = start.cast_const().cast();
        Ok(Self { start, length })
    }
}

impl AsRef<[u8]> for SealedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped by `map` until the drop, of a file that cannot change or shrink; or empty.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for SealedBytes {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping is owned by this value and nobody has a slice of it any more.
            let result = unsafe { munmap(self.start.cast_mut().cast(), self.length) };
            debug_assert!(result.is_ok(), "munmap of an owned mapping");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"test", flags).expect("memfd"));
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn only_bytes_that_cannot_change_are_mapped() {
        for seals in [SealFlags::empty(), SealFlags::WRITE, SealFlags::SHRINK] {
            let file = file(b"abc");
            fcntl_add_seals(&file, seals).expect("sealed");
            let refused = SealedBytes::map(file.into());
            assert!(refused.is_err(), "{seals:?}");
        }
        for bytes in [&b"abc"[..], &b""[..]] {
            let file = file(bytes);
            fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK).expect("sealed");
            assert_eq!(
                SealedBytes::map(file.into()).expect("mapped").as_ref(),
                bytes
            );
        }
    }
}
