//! Layers of an image: Debian with Python, out of Debian's packages, for tests of images that programs run in.
//!
//! Invariant: they are made once and are whole, as a directory below the target directory: `base.tar`, `python.tar`. No package
//! is installed and no script of one is run, so this is no Debian to install anything in.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{debian, fill_once, install};
use crate::place::Place;
use crate::process::output;

/// What the lower layer is for, and the upper one.
const BASE: &[&str] = &["base-files", "base-passwd", "coreutils", "dash"];
const PYTHON: &[&str] = &["python3-minimal"];
/// What is only there to install packages.
const LEFT_OUT: &[&str] = &[
    "dpkg",
    "gawk",
    "install-info",
    "libdebconfclient0",
    "mawk",
    "original-awk",
    "perl-base",
    "tar",
];

/// The directory of both, made if it is not there.
pub(super) fn ensure(place: &Place) -> Result<PathBuf> {
    let directory = place.target.join("xtask").join("debian-layers");
    fill_once(&directory, |partial| {
        let base = closure(BASE)?;
        let python: BTreeSet<String> = closure(PYTHON)?.difference(&base).cloned().collect();
        layer(partial, "base", &base)?;
        layer(partial, "python", &python)
    })?;
    Ok(directory)
}

/// Packages with all that they depend on.
fn closure(of: &[&str]) -> Result<BTreeSet<String>> {
    let kinds = [
        "recommends",
        "suggests",
        "conflicts",
        "breaks",
        "replaces",
        "enhances",
    ];
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--recurse"]);
    command.args(kinds.map(|kind| format!("--no-{kind}")));
    let depends = output(command.args(of))?;
    // A line at the margin is a package; one in angle brackets is provided by others.
    let packages = depends
        .lines()
        .filter(|line| line.starts_with(|letter: char| letter.is_ascii_alphanumeric()))
        .filter(|line| !LEFT_OUT.contains(line) && !line.contains(':'));
    Ok(packages.map(str::to_owned).collect())
}

fn layer(directory: &Path, name: &str, packages: &BTreeSet<String>) -> Result<()> {
    let (archives, root) = (directory.join("archives"), directory.join("root"));
    for path in [&archives, &root] {
        fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
    }
    let download = || {
        let mut command = Command::new("apt-get");
        command
            // As of a guest kernel.
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root"])
            .args(packages)
            .current_dir(&archives);
        command
    };
    let what = format!(
        "fetching the {} packages of the layer {name}",
        packages.len()
    );
    if install(&what, &mut download()).is_err() {
        debian::update()?;
        install(&what, &mut download())?;
    }
    for entry in fs::read_dir(&archives).context("reading the archives")? {
        let archive = entry.context("reading the archives")?.path();
        output(Command::new("dpkg-deb").arg("-x").args([&archive, &root]))?;
    }
    // What the package's script would have made of these.
    for (from, to) in [("passwd.master", "passwd"), ("group.master", "group")] {
        let from = root.join("usr/share/base-passwd").join(from);
        if from.is_file() {
            let to = root.join("etc").join(to);
            fs::copy(&from, &to).with_context(|| format!("writing {}", to.display()))?;
        }
    }
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
    ])
    .arg("--file")
    .arg(directory.join(format!("{name}.tar")))
    .arg("--directory")
    .arg(&root)
    .args(["--create", "."]);
    output(&mut tar)?;
    for path in [&archives, &root] {
        fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
