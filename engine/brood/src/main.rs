//! The `brood` command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use brood::files::{self, Sources};
use brood::serve::{self, Config};
use brood::{cli, demo, doctor, image, plugin};
use brood_plugin_build::Programs;
use clap::{Args, CommandFactory, Parser, Subcommand};

#[derive(Parser)]
#[command(
    version,
    about = "Forks running microVMs into fleets of daughters",
    after_help = cli::Exit::help()
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell whether this host can run Linux guests, only bare guests, or none, why, and what to do.
    Doctor {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make the files Linux guests start from: an unpacked kernel, an initramfs, a disk.
    Prepare {
        #[command(flatten)]
        sources: SourceOptions,
        /// The directory to make them in.
        #[arg(long)]
        out: PathBuf,
    },
    /// Fetch images, and make guest files that boot one; on this host, without a server.
    #[command(subcommand)]
    Image(image::Command),
    /// Boot a machine, fork it live, fork a daughter, fork the past, claim from the warm pool; show the tree.
    Demo {
        /// A directory made by `brood prepare`.
        #[arg(long)]
        files: PathBuf,
        /// The file that binds plugins to hooks.
        #[arg(long)]
        policy: PathBuf,
        /// The directory with the components that it names.
        #[arg(long)]
        plugins: PathBuf,
        /// Print one JSON object as the last line.
        #[arg(long)]
        json: bool,
    },
    /// Serve the HTTP API as a configuration file says, until a signal says to stop.
    Serve {
        /// The configuration, TOML.
        #[arg(long)]
        config: PathBuf,
    },
    /// Serve with what is usual; prints the first key of a new state directory.
    Up {
        /// The address to listen on.
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// The state directory.
        #[arg(long)]
        state: Option<PathBuf>,
        /// A directory made by `brood prepare`; without it there are only bare guests.
        #[arg(long)]
        files: Option<PathBuf>,
        /// The file that binds plugins to hooks; the one that ships if none is named.
        #[arg(long)]
        policy: Option<PathBuf>,
        /// The directory with the components that it names.
        #[arg(long)]
        plugins: Option<PathBuf>,
        /// The least time that each call of a policy has by the clock: for a host that is slow.
        #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=600_000))]
        policy_deadline_ms: u32,
    },
    #[command(flatten)]
    Ask(cli::Command),
    /// Print a script that a shell completes commands with.
    Completion(cli::Completion),
    /// Start, build, check, test, measure and replay plugins.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// One microVM's process; started by the engine with its control socket on standard input.
    #[command(hide = true)]
    Cell,
    /// What keeps cells while the engine is away; started by the engine with its listening socket on standard input.
    #[command(hide = true)]
    Supervisor,
    /// Compiles a component, or checks settings, within limits; started by the plugin host.
    #[command(hide = true)]
    PluginChild {
        /// The task and its limits.
        arguments: Vec<String>,
    },
}

#[derive(Args)]
struct SourceOptions {
    /// The vmlinuz of a Debian kernel package, or a vmlinux.
    #[arg(long)]
    kernel: PathBuf,
    /// Its modules, lib/modules/RELEASE.
    #[arg(long)]
    modules: PathBuf,
    /// The agent, a static program.
    #[arg(long)]
    agent: PathBuf,
    /// A static busybox.
    #[arg(long)]
    busybox: PathBuf,
}

/// The Rust toolchain that plugins are built with.
fn programs() -> Programs {
    let named = |variable, usual: &str| {
        std::env::var_os(variable).map_or_else(|| usual.into(), PathBuf::from)
    };
    Programs {
        cargo: named("CARGO", "cargo"),
        rustc: named("RUSTC", "rustc"),
    }
}

/// Where a test has asked for it, this process is killed at one of its points.
fn arm_crash_points() -> anyhow::Result<()> {
    let Some(plan) = std::env::var_os(brood_crash_point::VARIABLE) else {
        return Ok(());
    };
    let plan = plan.to_string_lossy().parse()?;
    Ok(brood_crash_point::arm(plan)?)
}

/// Says what is wrong with the command line, or what was asked of it: help, the version.
fn misunderstood(error: &clap::Error) -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if error.use_stderr() && cli::wants_json(&words) {
        let failure = cli::Failure::usage(error.render().to_string());
        return cli::fail(&failure, cli::Format::Json);
    }
    error.exit()
}

fn main() -> ExitCode {
    if let Err(error) = arm_crash_points() {
        eprintln!("brood: {error:#}");
        return ExitCode::FAILURE;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misunderstood(&error),
    };
    let done = match arguments.command {
        Command::Cell => return brood_cell::process::main(),
        Command::Supervisor => return brood_supervisor::process::main(),
        Command::Ask(command) => return cli::run(command),
        Command::Completion(completion) => {
            return match completion.print(Arguments::command()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => cli::fail(&failure, cli::Format::Text),
            };
        }
        Command::PluginChild { arguments } => {
            return plugin::child::run(arguments);
        }
        Command::Serve { config } => serve::configure(Some(&config))
            .and_then(|config| serve::run(&config))
            .map(|()| ExitCode::SUCCESS),
        Command::Up {
            listen,
            state,
            files,
            policy,
            plugins,
            policy_deadline_ms,
        } => serve::configure(None)
            .and_then(|usual| {
                serve::run(&Config {
                    listen: listen.unwrap_or(usual.listen),
                    state: state.unwrap_or(usual.state),
                    guest_files: files.or(usual.guest_files),
                    policy: policy.or(usual.policy),
                    plugins: plugins.unwrap_or(usual.plugins),
                    policy_deadline_ms,
                    ..usual
                })
            })
            .map(|()| ExitCode::SUCCESS),
        Command::Plugin(command) => plugin::run(command, &programs()),
        Command::Doctor { json } => doctor::run(json),
        Command::Prepare { sources, out } => {
            let SourceOptions {
                kernel,
                modules,
                agent,
                busybox,
            } = sources;
            let sources = Sources {
                kernel,
                modules,
                agent,
                busybox,
            };
            files::prepare(&sources, &out).map(|()| ExitCode::SUCCESS)
        }
        Command::Image(command) => image::run(command).map(|()| ExitCode::SUCCESS),
        Command::Demo {
            files,
            policy,
            plugins,
            json,
        } => {
            let sources = demo::Sources {
                files: &files,
                policy: &policy,
                plugins: &plugins,
            };
            demo::run(&sources, json).map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("brood: {error:#}");
        ExitCode::FAILURE
    })
}
