//! Plugins from the command line's side: `brood plugin …`, and how this program compiles components for the host.
//!
//! Invariant: what a command says of a component was found by the engine's own host, not by a copy of it. A command that
//! found something wrong ends with a status other than zero. With `--json`, standard output is one JSON object.

pub mod ask;
mod author;
mod bench;
pub mod calls;
pub mod child;
mod look;
pub mod open;
mod replay;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use brood_hooks::HookName;
use brood_plugin_build::Programs;
use clap::{Args, Subcommand};

/// `brood plugin`
#[derive(Subcommand)]
pub enum Command {
    /// Start a plugin's crate: source, tests, recorded calls, a policy file that binds it.
    New(NewOptions),
    /// Build a plugin's crate to `target/NAME.wasm`.
    Build {
        /// The directory of the crate.
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// Where to put the component.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Say what a component asks for, and whether this engine loads it.
    Check {
        /// The component.
        file: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Build a plugin, run its own tests, then its recorded calls in the real host.
    Test(TestOptions),
    /// Measure how long instances and calls take, and how much fuel.
    Bench(BenchOptions),
    /// Show what a component says of itself: name, version, hooks, settings, metrics.
    Inspect {
        /// The component.
        file: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make the calls of decision records again, and say whether they come out the same.
    Replay(ReplayOptions),
}

/// What `new` starts.
#[derive(Args)]
pub struct NewOptions {
    /// The name of the crate: lower-case letters, digits and hyphens.
    name: String,
    /// The decision it makes: admission, placement, mutation or billing.
    #[arg(long, default_value_t = HookName::Admission)]
    hook: HookName,
    /// The directory to make; its name by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The SDK of a checkout, `sdk/plugin`; without it, the SDK in this program is unpacked into the crate.
    #[arg(long)]
    sdk: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `test` tests.
#[derive(Args)]
pub struct TestOptions {
    /// The directory of the crate.
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Make the recorded calls of this component, and build and test nothing.
    #[arg(long)]
    component: Option<PathBuf>,
    /// Write what comes out into the files of recorded calls, instead of comparing.
    #[arg(long)]
    record: bool,
    /// Write a decision record of every call to this file, one a line, as `brood plugin replay` reads them.
    #[arg(long)]
    decisions: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `bench` measures.
#[derive(Args)]
pub struct BenchOptions {
    /// The component.
    file: PathBuf,
    /// The hook; all that it exports by default.
    #[arg(long)]
    hook: Option<HookName>,
    /// Settings, a file of JSON.
    #[arg(long, conflicts_with = "input")]
    settings: Option<PathBuf>,
    /// A file of recorded calls, whose settings and asks are used; asks are made up without one.
    #[arg(long)]
    input: Option<PathBuf>,
    /// How many calls.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `replay` replays.
#[derive(Args)]
pub struct ReplayOptions {
    /// Files of decision records, one a line.
    #[arg(required = true)]
    records: Vec<PathBuf>,
    /// The component that made them.
    #[arg(long, required_unless_present = "policy", conflicts_with = "policy")]
    component: Option<PathBuf>,
    /// Its settings, a file of JSON.
    #[arg(long, requires = "component")]
    settings: Option<PathBuf>,
    /// A policy file that names components and settings.
    #[arg(long)]
    policy: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs a command.
///
/// # Errors
/// It could not be carried out. One that was, and found something wrong, returns a status other than zero.
pub fn run(command: Command, programs: &Programs) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(options) => author::new(&options),
        Command::Build {
            directory,
            out,
            json,
        } => author::build(programs, &directory, out.as_deref(), json),
        Command::Check { file, json } => look::check(&file, json),
        Command::Test(options) => test::run(programs, &options),
        Command::Bench(options) => bench::run(&options),
        Command::Inspect { file, json } => look::inspect(&file, json),
        Command::Replay(options) => replay::run(&options),
    }
}

/// Success, or a failure that has been explained.
fn status(all_is_well: bool) -> ExitCode {
    match all_is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
