//! The guest kernel: Debian's cloud kernel, unpacked into the cache and never installed.
//!
//! Invariant: a kernel in the cache is used as it is; apt is asked only when there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{debian, fill_once, install};
use crate::place::Place;
use crate::process::output;

/// Metapackages of the kernel, in Debian 12 (from its security archive) and Debian 13.
const METAPACKAGES: &[&str] = &["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"];

/// A kernel for guests.
pub(crate) struct GuestKernel {
    /// As in `uname -r`.
    pub(crate) release: String,
    /// The compressed kernel.
    pub(crate) vmlinuz: PathBuf,
    /// The directory that holds `modules.dep`.
    pub(crate) modules: PathBuf,
}

/// Finds the newest kernel of the cache, or fetches one.
pub(super) fn ensure(place: &Place) -> Result<GuestKernel> {
    let cache = place.cache.join("guest-kernel");
    if let Some(kernel) = newest(&cache)? {
        return Ok(kernel);
    }
    let metapackage = debian::known(METAPACKAGES)?;
    let depends = output(Command::new("apt-cache").args(["depends", metapackage]))?;
    let package =
        image_package(&depends).with_context(|| format!("{metapackage} depends on no kernel"))?;
    fill_once(&cache.join(package), |partial| fetch(package, partial))?;
    newest(&cache)?.with_context(|| format!("{package} holds no kernel"))
}

/// The package that a metapackage stands for, in what `apt-cache depends` prints.
fn image_package(depends: &str) -> Option<&str> {
    let names = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    names
        .map(str::trim)
        .find(|name| name.starts_with("linux-image-"))
}

fn fetch(package: &str, directory: &Path) -> Result<()> {
    // The download needs no sandbox user, who could not write into a private cache.
    let arguments = ["download", "-qq", "-o", "APT::Sandbox::User=root", package];
    let download = || {
        let mut command = Command::new("apt-get");
        command.args(arguments).current_dir(directory);
        command
    };
    let what = format!("fetching {package}");
    if install(&what, &mut download()).is_err() {
        // Package lists that are out of date name files that are gone.
        debian::update()?;
        install(&what, &mut download())?;
    }
    let archives = names(directory)?
        .into_iter()
        .filter(|name| name.ends_with(".deb"));
    let [archive] = <[String; 1]>::try_from(archives.collect::<Vec<_>>())
        .map_err(|archives| anyhow::anyhow!("{package} came as {archives:?}"))?;
    let archive = directory.join(archive);
    install(
        &format!("unpacking {package}"),
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&archive)
            .arg(directory),
    )?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    let kernel = kernel_in(directory)?.with_context(|| format!("{package} holds no kernel"))?;
    // depmod finds lib/modules or usr/lib/modules below its base, as the Debian it comes from has it.
    let mut depmod = Command::new("depmod");
    depmod
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .arg("-b")
        .arg(directory)
        .arg(&kernel.release);
    install("ordering its modules", &mut depmod)
}

fn newest(cache: &Path) -> Result<Option<GuestKernel>> {
    if !cache.is_dir() {
        return Ok(None);
    }
    let complete = names(cache)?
        .into_iter()
        .filter(|name| !name.ends_with(".partial"));
    let newest = complete.max_by_key(|name| debian::numbers(name));
    newest.map_or(Ok(None), |name| kernel_in(&cache.join(name)))
}

/// The kernel of an unpacked package.
fn kernel_in(directory: &Path) -> Result<Option<GuestKernel>> {
    let boot = directory.join("boot");
    let name = names(&boot)?
        .into_iter()
        .find(|name| name.starts_with("vmlinuz-"));
    let Some(release) = name
        .as_deref()
        .and_then(|name| name.strip_prefix("vmlinuz-"))
    else {
        return Ok(None);
    };
    let modules = modules_root(directory)?.join("lib/modules").join(release);
    Ok(Some(GuestKernel {
        release: release.to_owned(),
        vmlinuz: boot.join(format!("vmlinuz-{release}")),
        modules,
    }))
}

/// What `lib/modules` is below: Debian 13 packages files under /usr.
fn modules_root(directory: &Path) -> Result<PathBuf> {
    let roots = [directory.to_path_buf(), directory.join("usr")];
    match roots
        .into_iter()
        .find(|root| root.join("lib/modules").is_dir())
    {
        Some(root) => Ok(root),
        None => bail!("{} holds no modules", directory.display()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("reading {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_package_is_read_from_the_metapackage() {
        let depends =
            "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(
            image_package(depends),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(
            image_package("linux-image-x\n  Recommends: linux-image-y\n"),
            None
        );
    }

    #[test]
    fn newest_complete_kernel_is_used_and_a_partial_one_is_not() {
        let cache = tempfile::tempdir().unwrap();
        for (package, release) in [
            ("linux-image-6.12.9", "6.12.9"),
            ("linux-image-6.12.10", "6.12.10"),
        ] {
            let root = cache.path().join(package);
            fs::create_dir_all(root.join("boot")).unwrap();
            fs::create_dir_all(root.join("usr/lib/modules").join(release)).unwrap();
            fs::write(root.join("boot").join(format!("vmlinuz-{release}")), "").unwrap();
        }
        fs::create_dir_all(cache.path().join("linux-image-6.13.1.partial")).unwrap();
        let kernel = newest(cache.path()).unwrap().unwrap();
        assert_eq!(kernel.release, "6.12.10");
        assert!(kernel.modules.ends_with("usr/lib/modules/6.12.10") && kernel.modules.is_dir());
        assert!(newest(&cache.path().join("nothing")).unwrap().is_none());
    }
}
