//! `cargo xtask test`: what continuous integration runs, on a bare machine too.
//!
//! Invariant: the first failure ends it with a status other than zero, a run of no tests is a failure, and the last
//! lines are the test runner's own summary. Which tests run where is data: `.config/nextest.toml`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::packages::{self, CargoTool, Need};
use crate::place::{Place, Profile};
use crate::process::{output, say, status, step};
use crate::{cargo, check, guest_files, host, lab, plugins};

/// Labs that share all tests, one after the other; one that is lost costs only its own part again.
const LAB_PARTS: u32 = 3;
/// Seconds that the tests of one lab may take together.
const LAB_LIMIT: u64 = 1200;
/// A lab that is lost is begun anew so often, and each loss is shown. They are lost where this machine has other work
/// beside them, so nothing runs beside them here.
const LAB_ATTEMPTS: u32 = 3;

/// `cargo xtask test`
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out the tests in the lab.
    #[arg(long, conflicts_with = "only_lab")]
    no_lab: bool,
    /// Leave out everything but the tests in the lab.
    #[arg(long)]
    only_lab: bool,
    /// Handed on to the test runner, here and in the lab.
    #[arg(last = true, value_name = "NEXTEST ARGUMENTS")]
    runner: Vec<OsString>,
}

/// Runs everything that the options leave in.
pub(crate) fn run(place: &Place, options: &Options) -> Result<u8> {
    let needs: &[Need] = match (options.no_lab, host::kvm()) {
        (false, host::Kvm::NeedsLab) => &[Need::Build, Need::Look, Need::Guest, Need::Lab],
        _ => &[Need::Build, Need::Look, Need::Guest],
    };
    packages::ensure(place, needs)?;
    let nextest = CargoTool::Nextest.ensure(place)?;
    if !options.only_lab {
        check::dependencies(place)?;
        cargo::formatting(place)?;
        cargo::lints(place)?;
    }
    let mut programs = place.cargo(&["build", "--workspace", "--bins", "--quiet"]);
    step("programs", &mut programs)?;
    let fixtures = fixtures(place)?;
    if !options.only_lab {
        let failed = here(place, &nextest, options, &fixtures)?;
        if failed != 0 {
            return Ok(failed);
        }
    }
    if options.no_lab {
        Ok(0)
    } else {
        in_lab(place, &nextest, options, &fixtures)
    }
}

/// Variables by which tests find what they cannot fetch themselves: the lab has no network and a read-only root.
fn fixtures(place: &Place) -> Result<Vec<(OsString, OsString)>> {
    let mut fixtures = vec![
        ("BROOD_GUEST_FILES", guest_files::make(place, Profile::Dev)?),
        ("BROOD_BIN", place.program(Profile::Dev, "brood")),
        ("BROOD_PLUGINS", plugins::for_tests(place)?),
        ("BROOD_DEBIAN_LAYERS", packages::debian_layers(place)?),
    ];
    match packages::schemathesis(place) {
        Ok(program) => fixtures.push(("BROOD_SCHEMATHESIS", program)),
        Err(error) if place.is_ci() => return Err(error.context("schemathesis")),
        Err(error) => say(&format!("skipped: the check by schemathesis: {error:#}")),
    }
    let named = |(name, path): (&str, PathBuf)| (name.into(), path.into());
    Ok(fixtures.into_iter().map(named).collect())
}

fn here(
    place: &Place,
    nextest: &Path,
    options: &Options,
    fixtures: &[(OsString, OsString)],
) -> Result<u8> {
    let mut runner = Command::new(nextest);
    runner
        .args(["nextest", "run", "--workspace", "--no-tests", "fail"])
        .args(&options.runner);
    runner
        .envs(fixtures.iter().cloned())
        .current_dir(&place.workspace);
    status("tests on this machine", &mut runner)
}

/// The same test programs in the lab, chosen by the runner's profile `lab`. The lab compiles nothing: the runner is
/// given the programs and cargo's metadata as files.
fn in_lab(
    place: &Place,
    nextest: &Path,
    options: &Options,
    fixtures: &[(OsString, OsString)],
) -> Result<u8> {
    say("test programs");
    let mut list = Command::new(nextest);
    list.args([
        "nextest",
        "list",
        "--workspace",
        "--list-type",
        "binaries-only",
        "--message-format",
        "json",
    ]);
    let binaries = metadata(place, "binaries.json", list.current_dir(&place.workspace))?;
    let mut describe = place.cargo(&["metadata", "--format-version", "1", "--all-features"]);
    let packages = metadata(place, "cargo.json", &mut describe)?;

    let mut command = vec![nextest.into()];
    command.extend(
        [
            "nextest",
            "run",
            "--profile",
            "lab",
            "--no-tests",
            "fail",
            "--binaries-metadata",
        ]
        .map(OsString::from),
    );
    command.extend([binaries.into(), "--cargo-metadata".into(), packages.into()]);
    command.extend(options.runner.iter().cloned());
    // A choice of the caller's may be too small to share.
    if !options.runner.is_empty() {
        return lab(place, &command, fixtures);
    }
    for part in 1..=LAB_PARTS {
        say(&format!(
            "part {part} of {LAB_PARTS} of the tests in the lab"
        ));
        let mut command = command.clone();
        command.extend([
            "--partition".into(),
            format!("slice:{part}/{LAB_PARTS}").into(),
        ]);
        let failed = lab(place, &command, fixtures)?;
        if failed != 0 {
            return Ok(failed);
        }
    }
    Ok(0)
}

/// Runs the command in a lab, and in another if that is lost.
fn lab(place: &Place, command: &[OsString], fixtures: &[(OsString, OsString)]) -> Result<u8> {
    let size = lab::Options {
        timeout: LAB_LIMIT,
        ..lab::Options::default()
    };
    let job = lab::Job {
        cwd: &place.workspace,
        command,
        environment: fixtures,
    };
    for attempt in 1..LAB_ATTEMPTS {
        match lab::run(place, &size, job) {
            Err(error) if error.is::<lab::Lost>() => {
                say(&format!("LOST: {error}; attempt {} follows", attempt + 1));
            }
            ended => return ended,
        }
    }
    lab::run(place, &size, job)
}

/// Keeps what a program prints as a file that the lab can read.
fn metadata(place: &Place, name: &str, command: &mut Command) -> Result<PathBuf> {
    let directory = place.target.join("xtask");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let file = directory.join(name);
    fs::write(&file, output(command)?).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
