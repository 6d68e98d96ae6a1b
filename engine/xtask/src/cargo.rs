//! The cargo steps that more than one command takes.

use std::process::Command;

use anyhow::Result;

use crate::place::Place;
use crate::process::{Beside, step};

/// `cargo fmt`, checking only.
pub(crate) fn formatting(place: &Place) -> Result<()> {
    step("formatting", &mut place.cargo(&["fmt", "--all", "--check"]))
}

/// Clippy on everything, a warning being an error.
pub(crate) fn lints(place: &Place) -> Result<()> {
    step("lints", &mut clippy(place))
}

/// The same beside other work that leaves a CPU free.
pub(crate) fn lints_beside(place: &Place) -> Result<Beside> {
    Beside::start("lints", clippy(place))
}

fn clippy(place: &Place) -> Command {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    place.cargo(&arguments)
}

/// The documentation of every crate of the workspace, a broken link being an error.
pub(crate) fn documentation(place: &Place) -> Result<()> {
    let mut command = place.cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    step("documentation", command.env("RUSTDOCFLAGS", "-D warnings"))
}
