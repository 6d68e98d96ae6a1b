//! `cargo xtask check`: everything that can be said without running a test.

use anyhow::Result;

use crate::packages::{self, CargoTool, Need};
use crate::place::Place;
use crate::process::step;
use crate::{cargo, edges};

/// Edges, licences, formatting, lints, documentation: the quick ones first.
pub(crate) fn run(place: &Place) -> Result<u8> {
    packages::ensure(place, &[Need::Build])?;
    dependencies(place)?;
    cargo::formatting(place)?;
    cargo::lints(place)?;
    cargo::documentation(place)?;
    Ok(0)
}

/// Who may depend on what: the table in [`edges`] and `deny.toml`.
pub(crate) fn dependencies(place: &Place) -> Result<()> {
    edges::check(place)?;
    let deny = CargoTool::Deny.ensure(place)?;
    // cargo-deny is a subcommand of cargo: called by its path it takes the same arguments.
    let mut command = std::process::Command::new(deny);
    // Advisories are left out: their database is a git repository, which not every machine can fetch.
    // A row may name a crate that is still to come.
    let quietly = ["--hide-inclusion-graph", "--allow", "unused-wrapper"];
    command.args(["--all-features", "check"]).args(quietly);
    command
        .args(["bans", "licenses", "sources"])
        .current_dir(&place.workspace);
    step("licences, bans and sources", &mut command)
}
