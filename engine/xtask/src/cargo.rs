//! The cargo steps that more than one command takes.

use anyhow::Result;

use crate::place::Place;
use crate::process::step;

/// `cargo fmt`, checking only.
pub(crate) fn formatting(place: &Place) -> Result<()> {
    step("formatting", &mut place.cargo(&["fmt", "--all", "--check"]))
}

/// Clippy on everything, a warning being an error.
pub(crate) fn lints(place: &Place) -> Result<()> {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    step("lints", &mut place.cargo(&arguments))
}

/// The documentation of every crate of the workspace, a broken link being an error.
pub(crate) fn documentation(place: &Place) -> Result<()> {
    let mut command = place.cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    step("documentation", command.env("RUSTDOCFLAGS", "-D warnings"))
}
