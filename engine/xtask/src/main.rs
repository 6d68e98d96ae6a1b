//! The project's own commands: `cargo xtask test`, `check`, `demo`, `bench`, `lab`, `packages`, `plugins`.
//!
//! Invariant: standard output belongs to the program a command runs (a JSON line passes through untouched); everything
//! this tool says itself goes to standard error. The exit status is that of the program that decided the outcome.

mod bench;
mod cargo;
mod check;
mod demo;
mod edges;
mod guest_files;
mod host;
mod lab;
mod packages;
mod place;
mod plugins;
mod process;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::place::Place;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what this machine lacks: Debian packages, virtme-ng, cargo tools, the guest kernel.
    Packages(packages::Options),
    /// Everything continuous integration runs: formatting, lints, edges, tests here, tests in the lab.
    Test(test::Options),
    /// Formatting, lints, dependency edges, licences and documentation.
    Check,
    /// Run `brood demo` on a stock guest kernel, in the lab if this host's KVM cannot run Linux.
    Demo(demo::Options),
    /// Build the plugins that ship, as WebAssembly components.
    Plugins(plugins::Options),
    /// Build and run one bench.
    Bench(bench::Options),
    /// Run a command in the lab: an emulated machine whose KVM runs Linux guests.
    Lab(lab::Arguments),
    /// Inside the lab: keep one idle machine.
    #[command(hide = true)]
    Steady,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<u8> {
    // The lab has neither cargo nor a workspace.
    if let Task::Steady = task {
        return lab::stay();
    }
    let place = Place::find()?;
    match task {
        Task::Packages(options) => packages::run(&place, &options),
        Task::Test(options) => test::run(&place, &options),
        Task::Check => check::run(&place),
        Task::Demo(options) => demo::run(&place, &options),
        Task::Plugins(options) => plugins::run(&place, &options),
        Task::Bench(options) => bench::run(&place, &options),
        Task::Lab(arguments) => lab::run_command(&place, &arguments),
        Task::Steady => lab::stay(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_behind_the_command_of_a_lab_belong_to_that_command() {
        let words = ["xtask", "lab", "--cpus", "1", "--", "sh", "-c", "--cpus"];
        assert!(Arguments::try_parse_from(words).is_ok());
        let bench = ["xtask", "bench", "fork", "--json", "--quick"];
        assert!(Arguments::try_parse_from(bench).is_ok());
        assert!(Arguments::try_parse_from(["xtask", "test", "--no-lab", "--only-lab"]).is_err());
    }
}
