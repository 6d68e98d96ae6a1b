//! Making the files a Linux guest starts from: kernel, initramfs and root disk.
//!
//! What is made is what [`brood_service::files`] opens. Making it needs no privilege and writes nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use brood_image::disk;
use brood_image::initramfs::{self, APPLETS, InitramfsSpec};
use brood_image::modules::{GUEST_MODULES, ModuleDirectory};
use brood_vmm::boot::Kernel;

/// Bytes of the demo's data disk.
const DISK_BYTES: u64 = 64 << 20;

/// What guest files are made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// A vmlinuz as a Debian package ships it, or a vmlinux.
    pub kernel: PathBuf,
    /// Its modules, `lib/modules/RELEASE`.
    pub modules: PathBuf,
    /// The agent, a static program.
    pub agent: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
}

/// Makes guest files in `directory`, which is created.
///
/// # Errors
/// A source is missing or malformed, or the directory cannot be written.
pub fn prepare(sources: &Sources, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let kernel = Kernel::open(&sources.kernel)?;
    match kernel.vmlinux() {
        Some(vmlinux) => fs::write(directory.join("vmlinux"), vmlinux)?,
        None => {
            fs::copy(&sources.kernel, directory.join("vmlinux"))?;
        }
    }
    let modules = ModuleDirectory::open(&sources.modules)?;
    let loaded = modules.load(GUEST_MODULES)?;
    let archive = initramfs::build(&InitramfsSpec {
        agent: &sources.agent,
        busybox: Some((&sources.busybox, APPLETS)),
        release: modules.release(),
        modules: &loaded,
        hostname: "mother",
    })?;
    fs::write(directory.join("initramfs"), archive)?;
    let content = tempfile::tempdir()?;
    fs::write(
        content.path().join("README"),
        "The data disk of a Brood machine.\n",
    )?;
    disk::make_ext4(content.path(), &directory.join("disk.ext4"), DISK_BYTES)?;
    Ok(())
}
