//! What the project needs from a machine, and installing it.
//!
//! Invariant: idempotent. With everything in place nothing is started and nothing is fetched; a partial installation
//! is never taken for a complete one, since each is renamed or stamped as its last step.

mod debian;
mod guest;
mod layers;
mod python;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::host::{Kvm, kvm};
use crate::place::Place;
use crate::process::say;
pub(crate) use debian::busybox;
pub(crate) use guest::GuestKernel;
pub(crate) use python::{Environment, schemathesis};
pub(crate) use tool::CargoTool;

/// A purpose that packages serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compiling and linking, statically, and checks that need no guest.
    Build,
    /// Looking at the engine from outside: a browser, Python and what tests read with it.
    Look,
    /// A stock guest kernel with its modules, and what guest images are made of.
    Guest,
    /// The lab; on a host whose KVM runs Linux this is never needed.
    Lab,
}

/// `cargo xtask packages`
#[derive(Args)]
pub(crate) struct Options {
    /// Install the lab as well on a host whose KVM runs Linux guests.
    #[arg(long)]
    lab: bool,
}

/// What a lab is started from.
pub(crate) struct LabTools {
    /// virtme-ng's programs, which look for each other on `PATH`.
    pub(crate) programs: PathBuf,
    /// Where its programs find those of others.
    pub(crate) path: Vec<PathBuf>,
    pub(crate) vmlinuz: PathBuf,
    /// As in `uname -r`.
    pub(crate) release: String,
}

/// Installs everything and says where it is.
pub(crate) fn run(place: &Place, options: &Options) -> Result<u8> {
    let lab = options.lab || kvm() == Kvm::NeedsLab;
    let needs: &[Need] = if lab {
        &[Need::Build, Need::Look, Need::Guest, Need::Lab]
    } else {
        &[Need::Build, Need::Look, Need::Guest]
    };
    ensure(place, needs)?;
    let guest = guest_kernel(place)?;
    for tool in CargoTool::ALL {
        eprintln!("    {}: {}", tool.name(), tool.ensure(place)?.display());
    }
    eprintln!(
        "    guest kernel {}: {}",
        guest.release,
        guest.vmlinuz.display()
    );
    if lab {
        let tools = lab_tools(place)?;
        eprintln!(
            "    lab kernel {}: {}",
            tools.release,
            tools.vmlinuz.display()
        );
        eprintln!("    virtme-ng: {}", tools.programs.display());
    }
    Ok(0)
}

/// Installs what the needs ask for and is missing: Debian packages, and virtme-ng for the lab.
pub(crate) fn ensure(place: &Place, needs: &[Need]) -> Result<()> {
    debian::ensure(place, needs)?;
    if needs.contains(&Need::Lab) {
        tool::ensure_virtme_ng(place)?;
    }
    Ok(())
}

/// The guest kernel, fetched if the cache lacks it. Asks for [`Need::Guest`] to be installed.
pub(crate) fn guest_kernel(place: &Place) -> Result<GuestKernel> {
    guest::ensure(place)
}

/// The layers of a Debian with Python, made if they are not there. Asks for [`Need::Guest`] to be installed.
pub(crate) fn debian_layers(place: &Place) -> Result<PathBuf> {
    layers::ensure(place)
}

/// Where the parts of the lab are. Asks for [`Need::Lab`] to be installed.
pub(crate) fn lab_tools(place: &Place) -> Result<LabTools> {
    let release = debian::lab_kernel().context("no lab kernel; run cargo xtask packages --lab")?;
    let vmlinuz = Path::new("/boot").join(format!("vmlinuz-{release}"));
    Ok(LabTools {
        programs: tool::virtme_ng_programs(place),
        path: place.path.clone(),
        vmlinuz,
        release,
    })
}

/// Fills a directory that appears under its name only when it is complete. Says whether there was anything to do.
fn fill_once(directory: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let partial = directory.with_added_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
    fill(&partial)?;
    fs::rename(&partial, directory).with_context(|| format!("renaming {}", partial.display()))
}

/// Runs a noisy installer quietly: what it says is shown only if it fails.
fn install(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    crate::process::output(command)
        .with_context(|| what.to_owned())
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_fill_leaves_nothing_that_looks_complete_and_is_repeated() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("kernel-6.12");
        let failed = fill_once(&directory, |partial| {
            fs::write(partial.join("half"), "")?;
            anyhow::bail!("no network")
        });
        assert!(failed.is_err() && !directory.exists());

        fill_once(&directory, |partial| {
            Ok(fs::write(partial.join("whole"), "")?)
        })
        .unwrap();
        assert!(directory.join("whole").exists() && !directory.join("half").exists());
        fill_once(&directory, |_| panic!("filled twice")).unwrap();
    }
}
