//! Tools that come from PyPI and crates.io, each of one version, in the cache.
//!
//! A cargo tool that is on `PATH` already is used as it is; virtme-ng is always our own, because the lab depends on its
//! details.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::python::Environment;
use super::{fill_once, install};
use crate::place::Place;

const VIRTME_NG: &str = "virtme-ng==1.42";

/// A program of crates.io.
#[derive(Clone, Copy)]
pub(crate) enum CargoTool {
    Nextest,
    Deny,
}

impl CargoTool {
    pub(crate) const ALL: [Self; 2] = [Self::Nextest, Self::Deny];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nextest => "cargo-nextest",
            Self::Deny => "cargo-deny",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Nextest => "0.9.143",
            Self::Deny => "0.20.2",
        }
    }

    /// The program, installed if it is neither on `PATH` nor in the cache.
    pub(crate) fn ensure(self, place: &Place) -> Result<PathBuf> {
        if let Some(program) = place.on_path(self.name()) {
            return Ok(program);
        }
        let directory = place
            .cache
            .join(format!("{}-{}", self.name(), self.version()));
        fill_once(&directory, |partial| self.install(place, partial))?;
        Ok(directory.join("bin").join(self.name()))
    }

    /// Built without optimisation, in a fifth of the time: compiling is all that these cost. The command runs in the
    /// cache, where this workspace's cargo configuration does not reach.
    fn install(self, place: &Place, directory: &Path) -> Result<()> {
        let build = directory.join("build");
        let mut command = Command::new(&place.cargo);
        command
            .args([
                "install",
                "--locked",
                "--debug",
                "--quiet",
                "--no-track",
                self.name(),
            ])
            .args(["--version", self.version(), "--root"])
            .arg(directory)
            .current_dir(directory)
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        if matches!(self, Self::Deny) {
            command.arg("--no-default-features");
        }
        install(
            &format!(
                "building {} {}, a minute or two",
                self.name(),
                self.version()
            ),
            &mut command,
        )?;
        fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))
    }
}

/// The directory of virtme-ng's programs.
pub(super) fn virtme_ng_programs(place: &Place) -> PathBuf {
    virtme_ng(place).programs()
}

pub(super) fn has_virtme_ng(place: &Place) -> bool {
    virtme_ng(place).is_there()
}

pub(super) fn ensure_virtme_ng(place: &Place) -> Result<()> {
    virtme_ng(place).ensure(place)
}

fn virtme_ng(place: &Place) -> Environment<'static> {
    Environment {
        directory: place.cache.join(VIRTME_NG),
        wanted: VIRTME_NG,
    }
}
