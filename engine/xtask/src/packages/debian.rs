//! Debian packages: which, what for, how to see that one is there, how to install it.
//!
//! Presence is seen from files and not from the package database, so that a tool that came another way counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Need, install};
use crate::place::Place;
use crate::process::{say, succeeds};

/// How the presence of a package is seen.
enum Probe {
    /// An executable on `PATH`.
    Program(&'static str),
    /// An executable on `PATH` that needs no dynamic linker, since it also runs inside guests.
    StaticProgram(&'static str),
    /// One of these files.
    File(&'static [&'static str]),
    /// A kernel under /boot with its modules under /lib/modules.
    LabKernel,
    /// A python that can make virtual environments.
    PythonVenv,
}

struct Package {
    /// The first of these that apt knows is installed.
    names: &'static [&'static str],
    need: Need,
    probe: Probe,
    why: &'static str,
}

const fn package(
    names: &'static [&'static str],
    need: Need,
    probe: Probe,
    why: &'static str,
) -> Package {
    Package {
        names,
        need,
        probe,
        why,
    }
}

const LIBC: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/libc.a",
    "/usr/lib64/libc.a",
    "/usr/lib/libc.a",
];

/// Debian 12 (from its security archive) and Debian 13 name the same kernel differently.
const LAB_KERNELS: &[&str] = &["linux-image-6.12-amd64", "linux-image-amd64"];

const PACKAGES: &[Package] = &[
    package(
        &["gcc"],
        Need::Build,
        Probe::Program("gcc"),
        "links every program",
    ),
    package(
        &["libc6-dev"],
        Need::Build,
        Probe::File(LIBC),
        "the static C library",
    ),
    package(
        &["systemd"],
        Need::Build,
        Probe::Program("systemd-analyze"),
        "reads the unit file that ships",
    ),
    package(
        &["python3-prometheus-client"],
        Need::Look,
        Probe::File(&["/usr/lib/python3/dist-packages/prometheus_client/__init__.py"]),
        "reads what the engine measures",
    ),
    package(
        &["python3-selenium"],
        Need::Look,
        Probe::File(&["/usr/lib/python3/dist-packages/selenium/__init__.py"]),
        "looks at the page of the engine",
    ),
    package(
        &["chromium-driver"],
        Need::Look,
        Probe::Program("chromedriver"),
        "steers the browser, which comes with it",
    ),
    package(
        &["fonts-dejavu-core"],
        Need::Look,
        Probe::File(&["/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"]),
        "letters for the browser",
    ),
    package(
        &["mypy"],
        Need::Look,
        Probe::File(&["/usr/lib/python3/dist-packages/mypy/__init__.py"]),
        "checks the types of the Python client",
    ),
    package(
        &["kmod"],
        Need::Guest,
        Probe::Program("depmod"),
        "orders a guest kernel's modules",
    ),
    package(
        &["busybox-static"],
        Need::Guest,
        Probe::StaticProgram("busybox"),
        "a guest's user space",
    ),
    package(
        &["e2fsprogs"],
        Need::Guest,
        Probe::Program("mke2fs"),
        "makes guest disks",
    ),
    package(
        &["docker-registry"],
        Need::Guest,
        Probe::Program("docker-registry"),
        "a registry that tests pull images from",
    ),
    package(
        &["apache2-utils"],
        Need::Guest,
        Probe::Program("htpasswd"),
        "makes that registry's logins",
    ),
    package(
        &["qemu-system-x86"],
        Need::Lab,
        Probe::Program("qemu-system-x86_64"),
        "the lab's machine",
    ),
    package(
        &["kmod"],
        Need::Lab,
        Probe::Program("modprobe"),
        "loads kvm_amd in the lab",
    ),
    package(
        &["udev"],
        Need::Lab,
        Probe::Program("udevadm"),
        "the lab's device nodes",
    ),
    package(
        &["busybox-static"],
        Need::Lab,
        Probe::StaticProgram("busybox"),
        "the lab's first file system",
    ),
    package(
        &["file"],
        Need::Lab,
        Probe::Program("file"),
        "tells virtme-ng what a kernel is",
    ),
    package(
        &["python3-venv"],
        Need::Lab,
        Probe::PythonVenv,
        "a place for virtme-ng",
    ),
    package(
        LAB_KERNELS,
        Need::Lab,
        Probe::LabKernel,
        "the lab's kernel and its modules",
    ),
];

/// Installs what is missing; without the right to, says the command and stops.
pub(super) fn ensure(place: &Place, needs: &[Need]) -> Result<()> {
    let needed = PACKAGES
        .iter()
        .filter(|package| needs.contains(&package.need));
    let mut missing: Vec<&Package> = needed
        .filter(|package| !package.probe.is_there(place))
        .collect();
    // One package may serve several needs.
    missing.sort_by_key(|package| package.names);
    missing.dedup_by_key(|package| package.names);
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        say(&format!(
            "missing: {} ({})",
            package.names.join(" or "),
            package.why
        ));
    }
    let root = rustix::process::geteuid().is_root();
    if !root || place.on_path("apt-get").is_none() {
        let names: Vec<&str> = missing
            .iter()
            .filter_map(|package| package.names.first().copied())
            .collect();
        bail!(
            "install them first: sudo env INITRD=No apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    let preferred = missing.iter().filter_map(|package| package.names.first());
    let mut names = Vec::new();
    if !preferred.copied().all(is_known) {
        update()?;
    }
    for package in &missing {
        let name = package.names.iter().copied().find(|name| is_known(name));
        names.push(
            name.with_context(|| format!("apt does not know {}", package.names.join(" or ")))?,
        );
    }
    let what = format!("installing {}", names.join(" "));
    if let Err(error) = install(&what, &mut apt_install(&names)) {
        // Package lists that are out of date name files that are gone.
        say(&format!("{error:#}"));
        update()?;
        install(&what, &mut apt_install(&names))?;
    }
    match missing
        .iter()
        .find(|package| !package.probe.is_there(place))
    {
        Some(package) => bail!(
            "{} is installed, and still: no {}",
            package.names.join(" or "),
            package.why
        ),
        None => Ok(()),
    }
}

/// The first of the names that apt knows; its lists are fetched anew if they lack the preferred one, since lists that
/// are out of date may know only the others.
pub(super) fn known(names: &[&'static str]) -> Result<&'static str> {
    if !names.first().copied().is_some_and(is_known) {
        update()?;
    }
    let known = names.iter().copied().find(|name| is_known(name));
    known.with_context(|| format!("apt does not know {}", names.join(" or ")))
}

fn is_known(name: &str) -> bool {
    succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", name]))
}

/// Fetches apt's package lists.
pub(super) fn update() -> Result<()> {
    install(
        "apt-get update",
        Command::new("apt-get").args(["update", "-qq"]),
    )
}

/// The lab boots with an initial file system of virtme-ng's making, so a new kernel needs none (`INITRD=No`).
fn apt_install(names: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--yes", "-qq", "--no-install-recommends"])
        .args(names)
        .envs([("INITRD", "No"), ("DEBIAN_FRONTEND", "noninteractive")]);
    command
}

/// The release (as in `uname -r`) of the newest generic kernel that has its modules.
pub(super) fn lab_kernel() -> Option<String> {
    let entries = fs::read_dir("/boot").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let releases = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
    let usable = releases.filter(|release| is_generic(release) && has_kvm_amd(release));
    usable.max_by_key(|release| numbers(release))
}

/// Debian's cloud kernels are for guests: they have no KVM of their own. A fork is ten times slower in 6.1 than in 6.12.
fn is_generic(release: &str) -> bool {
    !release.contains("cloud") && !release.contains("-rt-") && numbers(release) >= vec![6, 1]
}

fn has_kvm_amd(release: &str) -> bool {
    let directory = Path::new("/lib/modules")
        .join(release)
        .join("kernel/arch/x86/kvm");
    ["kvm-amd.ko", "kvm-amd.ko.xz", "kvm-amd.ko.zst"]
        .iter()
        .any(|module| directory.join(module).is_file())
}

/// `6.12.117+deb12-amd64` → 6, 12, 117, 12, 64: compares releases by their numbers.
pub(super) fn numbers(release: &str) -> Vec<u32> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// A python that can make a virtual environment, the system's own first.
pub(super) fn python(place: &Place) -> Option<PathBuf> {
    let candidates = [
        Some(PathBuf::from("/usr/bin/python3")),
        place.on_path("python3"),
    ];
    let makes_environments =
        |python: &PathBuf| succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]));
    candidates.into_iter().flatten().find(makes_environments)
}

/// The BusyBox on `PATH`, which [`Need::Guest`] makes sure is static.
pub(crate) fn busybox(place: &Place) -> Option<PathBuf> {
    place.on_path("busybox")
}

impl Probe {
    fn is_there(&self, place: &Place) -> bool {
        match self {
            Self::Program(name) => place.on_path(name).is_some(),
            Self::StaticProgram(name) => place.on_path(name).is_some_and(|file| is_static(&file)),
            Self::File(files) => files.iter().any(|file| Path::new(file).is_file()),
            Self::LabKernel => lab_kernel().is_some(),
            Self::PythonVenv => super::tool::has_virtme_ng(place) || python(place).is_some(),
        }
    }
}

fn is_static(file: &Path) -> bool {
    fs::read(file).is_ok_and(|bytes| elf_interpreter(&bytes) == Some(false))
}

/// Whether an x86-64 ELF file asks for a dynamic linker, i.e. has a `PT_INTERP` (3) header. `None`: not such a file.
/// ELF-64, figures 3 and 6: `e_phoff` at 32, `e_phentsize` at 54, `e_phnum` at 56; `p_type` comes first in a header.
fn elf_interpreter(bytes: &[u8]) -> Option<bool> {
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            bytes.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let u32_at = |at: usize| {
        Some(u32::from_le_bytes(
            bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    };
    if bytes.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (u16_at(54)?, u16_at(56)?);
    for index in 0..count {
        if u32_at(table.checked_add(index * size)?)? == 3 {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_release_is_chosen_by_number_and_not_by_spelling() {
        assert!(numbers("6.12.117+deb12-amd64") > numbers("6.12.9-amd64"));
        assert!(numbers("6.12.9-amd64") > numbers("6.1.0-44-amd64"));
        assert!(is_generic("6.12.117+deb13-amd64"));
        assert!(!is_generic("6.12.117+deb13-cloud-amd64") && !is_generic("5.10.0-30-amd64"));
    }

    #[test]
    fn static_program_is_told_from_a_dynamic_one() {
        let this_test = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(
            elf_interpreter(&this_test),
            Some(false),
            "the project links statically"
        );

        let mut dynamic = vec![0; 64 + 56];
        dynamic[..5].copy_from_slice(b"\x7fELF\x02");
        (dynamic[32], dynamic[54], dynamic[56], dynamic[64]) = (64, 56, 1, 3);
        assert_eq!(elf_interpreter(&dynamic), Some(true));
        dynamic[56] = 2;
        assert_eq!(elf_interpreter(&dynamic), Some(true));
        dynamic[64] = 1;
        assert_eq!(
            elf_interpreter(&dynamic),
            None,
            "the second header lies behind the end"
        );
        assert_eq!(elf_interpreter(b"#!/bin/sh"), None);
    }

    #[test]
    fn every_package_has_a_name_and_a_reason() {
        assert!(
            PACKAGES
                .iter()
                .all(|package| !package.names.is_empty() && !package.why.is_empty())
        );
    }
}
