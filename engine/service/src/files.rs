//! The files a Linux guest starts from, opened once and handed to cells as descriptors.
//!
//! A directory of guest files holds `vmlinux` (unpacked, since a cell in a slow lab takes seconds to unpack one),
//! `initramfs` and `disk.ext4`, and if the disk is to be the root of the guest, what the kernel and programs are told about
//! that. `brood prepare` and `brood image files` make one; nothing here writes.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::Context;
use brood_agent_proto::exec::ProgramDefaults;

/// The file of words for the kernel's command line, which need not be there.
pub const COMMAND_LINE: &str = "command-line";
/// The file of what programs get that nobody says otherwise, JSON, which need not be there.
pub const DEFAULTS: &str = "defaults.json";

/// Open guest files.
#[derive(Debug)]
pub struct GuestFiles {
    /// The unpacked kernel.
    pub kernel: File,
    /// The initramfs.
    pub initramfs: File,
    /// The disk's base image.
    pub disk: File,
    /// Words for the kernel's command line.
    pub words: String,
    /// What programs get that nobody says otherwise.
    pub defaults: ProgramDefaults,
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
        let text = |name: &str| {
            let path = directory.join(name);
            match fs::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                read => read.with_context(|| format!("cannot read {}", path.display())),
            }
        };
        let defaults = match text(DEFAULTS)?.as_str() {
            "" => ProgramDefaults::default(),
            json => serde_json::from_str(json).with_context(|| {
                let path = directory.join(DEFAULTS);
                format!("{} is not what `brood image files` writes", path.display())
            })?,
        };
        Ok(Self {
            words: text(COMMAND_LINE)?.trim().to_owned(),
            defaults,
            kernel: open("vmlinux")?,
            initramfs: open("initramfs")?,
            disk: open("disk.ext4")?,
        })
    }
}
