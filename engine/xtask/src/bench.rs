//! `cargo xtask bench NAME`: builds `brood-bench` and runs one of its benches where its numbers mean something.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::packages::{self, Need};
use crate::place::{Place, Profile};
use crate::process::{status, step};
use crate::{guest_files, host, lab, plugins};

/// `cargo xtask bench`
#[derive(Args)]
pub(crate) struct Options {
    /// Which bench.
    name: Name,
    /// Handed on to the bench, such as --json and --quick.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "BENCH ARGUMENTS"
    )]
    arguments: Vec<OsString>,
}

/// The benches of `brood-bench`, by the name of its subcommand.
#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// The fork path with a guest of a few pages: latency, pause, memory.
    Fork,
    /// Snapshots with that guest: restores, and the pause of a save.
    Snapshot,
    /// The shipped policy plugins: calls, whole forks, swaps, and endless ones.
    Hooks,
    /// The server over HTTP with bare guests: a fork, a burst, a list.
    Service,
    /// Usage: counted beside forks, sampled, rated.
    Usage,
    /// Linux guests: what is timed in one lab is only compared with what is timed in the same.
    LabRatio,
}

/// Where the numbers of a bench mean something.
enum Ground {
    /// On this machine, whatever its KVM, with these programs beside it.
    Here(&'static [&'static str]),
    /// Where Linux guests run.
    Lab,
}

impl Ground {
    /// The programs that a bench starts, beside its own.
    fn programs(&self) -> &'static [&'static str] {
        match self {
            Self::Here(programs) => programs,
            Self::Lab => &["brood", "brood-agent"],
        }
    }
}

impl Name {
    fn subcommand(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Snapshot => "snapshot",
            Self::Hooks => "hooks",
            Self::Service => "service",
            Self::Usage => "usage",
            Self::LabRatio => "lab-ratio",
        }
    }

    fn ground(self) -> Ground {
        match self {
            Self::Fork | Self::Snapshot => Ground::Here(&["brood-cell"]),
            Self::Hooks | Self::Usage => Ground::Here(&["brood"]),
            Self::Service => Ground::Here(&["brood", "brood-cell"]),
            Self::LabRatio => Ground::Lab,
        }
    }
}

/// Builds and runs the bench, and returns its status.
pub(crate) fn run(place: &Place, options: &Options) -> Result<u8> {
    let needs: &[Need] = match (options.name.ground(), host::kvm()) {
        (Ground::Lab, host::Kvm::NeedsLab) => &[Need::Build, Need::Guest, Need::Lab],
        (Ground::Lab, host::Kvm::RunsLinux) => &[Need::Build, Need::Guest],
        _ => &[Need::Build],
    };
    packages::ensure(place, needs)?;
    let mut build = place.cargo(&["build", "--release", "--quiet", "--bin", "brood-bench"]);
    for program in options.name.ground().programs() {
        build.args(["--bin", program]);
    }
    step("the bench", &mut build)?;
    let program = place.program(Profile::Release, "brood-bench");
    let mut arguments: Vec<OsString> = vec![options.name.subcommand().into()];
    arguments.extend(options.arguments.iter().cloned());
    if matches!(options.name, Name::Hooks | Name::Service | Name::Usage) {
        let brood = place.program(Profile::Release, "brood");
        arguments.extend(["--program".into(), brood.into()]);
        arguments.extend(["--plugins".into(), plugins::shipped(place)?.into()]);
    }
    match options.name.ground() {
        Ground::Here(_) => {
            let mut bench = Command::new(program);
            status("bench", bench.args(arguments).current_dir(&place.workspace))
        }
        Ground::Lab => {
            arguments.insert(0, program.into());
            let files = guest_files::make(place, Profile::Release)?;
            arguments.extend(["--files".into(), files.into()]);
            let job = lab::Job {
                cwd: &place.workspace,
                command: &arguments,
                environment: &[],
            };
            lab::run(place, &lab::Options::default(), job)
        }
    }
}
