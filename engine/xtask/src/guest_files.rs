//! Guest files for the demo and for lab tests, made on this machine by `brood prepare`: the lab is slow at unpacking
//! kernels and has a read-only root.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages;
use crate::place::{Place, Profile};
use crate::process::step;

/// Makes guest files with the programs of `profile` and returns their directory.
pub(crate) fn make(place: &Place, profile: Profile) -> Result<PathBuf> {
    let kernel = packages::guest_kernel(place)?;
    let busybox = packages::busybox(place).context("no busybox")?;
    let directory = place.target.join("xtask").join(match profile {
        Profile::Dev => "guest-dev",
        Profile::Release => "guest-release",
    });
    let options: [(&str, PathBuf); 5] = [
        ("--kernel", kernel.vmlinuz),
        ("--modules", kernel.modules),
        ("--agent", place.program(profile, "brood-agent")),
        ("--busybox", busybox),
        ("--out", directory.clone()),
    ];
    let mut command = Command::new(place.program(profile, "brood"));
    command.arg("prepare");
    command.args(
        options
            .into_iter()
            .flat_map(|(option, path)| [OsString::from(option), path.into()]),
    );
    step("guest files", &mut command)?;
    Ok(directory)
}
