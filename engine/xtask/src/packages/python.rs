//! Programs from PyPI, each of one version, in a virtual environment of its own.
//!
//! Invariant: an environment cannot be moved, so it is made under its name, and a stamp that names what is in it is written
//! last: what was not finished, or is of another version, is made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{debian, install};
use crate::place::Place;

/// A checker of HTTP APIs against their OpenAPI document.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// A virtual environment with one thing of PyPI and what that needs.
pub(crate) struct Environment<'a> {
    /// Where it is.
    pub(crate) directory: PathBuf,
    /// What is in it, as `NAME==VERSION`.
    pub(crate) wanted: &'a str,
}

impl Environment<'_> {
    /// Where its programs are.
    pub(crate) fn programs(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// Whether it is there, whole and of this version.
    pub(crate) fn is_there(&self) -> bool {
        fs::read_to_string(self.stamp()).is_ok_and(|made| made == self.wanted)
    }

    /// Makes it if it is not there.
    pub(crate) fn ensure(&self, place: &Place) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let python = debian::python(place).context("no python that makes virtual environments")?;
        let parent = self.directory.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        let wanted = self.wanted;
        let make = ["-m", "venv", "--clear"];
        install(
            &format!("a virtual environment for {wanted}"),
            Command::new(python).args(make).arg(&self.directory),
        )?;
        let fetch = ["install", "--quiet", "--disable-pip-version-check"];
        let mut pip = Command::new(self.programs().join("pip"));
        install(&format!("installing {wanted}"), pip.args(fetch).arg(wanted))?;
        let stamp = self.stamp();
        fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("complete")
    }
}

/// The program of schemathesis, installed below the target directory if it is not there.
pub(crate) fn schemathesis(place: &Place) -> Result<PathBuf> {
    let environment = Environment {
        directory: place.target.join("schemathesis"),
        wanted: SCHEMATHESIS,
    };
    environment.ensure(place)?;
    Ok(environment.programs().join("schemathesis"))
}
