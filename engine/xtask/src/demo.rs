//! `cargo xtask demo`: builds `brood` and the agent, fetches a stock kernel, and runs `brood demo` where Linux runs.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use crate::packages::{self, Need};
use crate::place::{Place, Profile};
use crate::process::step;
use crate::{guest_files, host, lab, plugins};

/// `cargo xtask demo`
#[derive(Args)]
pub(crate) struct Options {
    /// The last line of standard output is one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lab: lab::Options,
}

/// Runs the demo and returns its status.
pub(crate) fn run(place: &Place, options: &Options) -> Result<u8> {
    let needs: &[Need] = match host::kvm() {
        host::Kvm::RunsLinux => &[Need::Build, Need::Guest],
        host::Kvm::NeedsLab => &[Need::Build, Need::Guest, Need::Lab],
    };
    packages::ensure(place, needs)?;
    let programs = [
        "build",
        "--release",
        "--quiet",
        "--package",
        "brood",
        "--package",
        "brood-agent",
    ];
    step("brood and the agent", &mut place.cargo(&programs))?;

    plugins::shipped(place)?;
    let files = guest_files::make(place, Profile::Release)?;
    let mut command: Vec<OsString> = vec![
        place.program(Profile::Release, "brood").into(),
        "demo".into(),
        "--files".into(),
        files.into(),
        "--policy".into(),
        place.workspace.join("policies/default.toml").into(),
        "--plugins".into(),
        plugins::directory(place).into(),
    ];
    if options.json {
        command.push("--json".into());
    }
    lab::run(
        place,
        &options.lab,
        lab::Job {
            cwd: &place.workspace,
            command: &command,
            environment: &[],
        },
    )
}
