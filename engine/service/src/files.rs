//! The files a Linux guest starts from, opened once and handed to cells as descriptors.
//!
//! A directory of guest files holds `vmlinux` (unpacked, since a cell in a slow lab takes seconds to unpack one),
//! `initramfs` and `disk.ext4`. `brood prepare` makes one; nothing here writes.

use std::fs::File;
use std::path::Path;

use anyhow::Context;

/// Open guest files.
#[derive(Debug)]
pub struct GuestFiles {
    /// The unpacked kernel.
    pub kernel: File,
    /// The initramfs.
    pub initramfs: File,
    /// The data disk's base image.
    pub disk: File,
}

impl GuestFiles {
    /// Opens the files that `brood prepare` made.
    ///
    /// # Errors
    /// One is missing.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let open = |name: &str| {
            let path = directory.join(name);
            File::open(&path).with_context(|| {
                format!(
                    "cannot open {}: make guest files with `brood prepare`",
                    path.display()
                )
            })
        };
        Ok(Self {
            kernel: open("vmlinux")?,
            initramfs: open("initramfs")?,
            disk: open("disk.ext4")?,
        })
    }
}
