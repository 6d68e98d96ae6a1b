//! Benches of the fork path, of snapshots, of the hooks, of the service and of usage. Every one prints rows of percentiles and, with `--json`, one object as its last line.

mod baseline;
mod fork;
mod hooks;
mod host;
mod linux;
mod memory;
mod report;
mod service;
mod snapshot;
mod usage;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benches of the fork path and of the hooks")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

// What benches of the shipped program and its components have in common. Not a doc comment, which would be the help of
// whoever flattens it.
#[derive(Args)]
pub(crate) struct Shipped {
    /// The `brood` program.
    #[arg(long)]
    pub(crate) program: PathBuf,
    /// Where `cargo xtask plugins` puts components.
    #[arg(long)]
    pub(crate) plugins: PathBuf,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

impl Shipped {
    /// Whether a row is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }
}

#[derive(Subcommand)]
enum Bench {
    /// Live forks, claims, fan-out, depth and density with the bare guest on this host's KVM.
    Fork {
        /// Print one JSON object as the last line.
        #[arg(long)]
        json: bool,
        /// Forks of each row.
        #[arg(long, default_value_t = 500)]
        samples: usize,
        /// Only rows whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Snapshots of the bare guest: restores that run before RAM is read, those that read it first, the pause of a save.
    Snapshot {
        /// Print one JSON object as the last line.
        #[arg(long)]
        json: bool,
        /// Restores of each row.
        #[arg(long, default_value_t = 30)]
        samples: usize,
        /// Only rows whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// The shipped policy plugins: latency of calls, of a whole fork's, of swaps, and of what is endless.
    Hooks {
        #[command(flatten)]
        shipped: Shipped,
        /// Calls of a row where many make sense.
        #[arg(long, default_value_t = 100_000)]
        calls: usize,
    },
    /// The server over HTTP with the policy that ships: a fork, a burst of them, a long list.
    Service {
        #[command(flatten)]
        shipped: Shipped,
        /// Requests of each row.
        #[arg(long, default_value_t = 500)]
        samples: usize,
    },
    /// Usage: counted beside forks, sampled, and rated by the price list that ships.
    Usage {
        #[command(flatten)]
        shipped: Shipped,
        /// Forks of each kind.
        #[arg(long, default_value_t = 500)]
        samples: usize,
        /// Samples that are rated.
        #[arg(long, default_value_t = 1_000_000)]
        rated: u64,
    },
    /// A Linux machine's boot against live forks of a running one, all to a program's answer; ratios of the medians.
    LabRatio {
        /// A directory made by `brood prepare`.
        #[arg(long)]
        files: PathBuf,
        /// Boots, and forks of each row.
        #[arg(long, default_value_t = 3)]
        samples: usize,
        /// Print one JSON object as the last line.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let mut report = report::Report::new();
    let json = match Arguments::parse().bench {
        Bench::Fork {
            json,
            samples,
            only,
        } => {
            let plan = fork::Plan { samples, only };
            fork::run(&host::Host::open()?, &plan, &mut report)?;
            json
        }
        Bench::Snapshot {
            json,
            samples,
            only,
        } => {
            let plan = fork::Plan { samples, only };
            snapshot::run(&host::Host::open()?, &plan, &mut report)?;
            json
        }
        Bench::Hooks { shipped, calls } => {
            let json = shipped.json;
            hooks::run(&hooks::Plan { calls, shipped }, &mut report)?;
            json
        }
        Bench::Service { shipped, samples } => {
            let json = shipped.json;
            let plan = service::Plan { samples, shipped };
            service::run(&host::Host::open()?, &plan, &mut report)?;
            json
        }
        Bench::Usage {
            shipped,
            samples,
            rated,
        } => {
            let json = shipped.json;
            let plan = usage::Plan {
                samples,
                rated,
                shipped,
            };
            usage::run(&plan, &mut report)?;
            json
        }
        Bench::LabRatio {
            files,
            samples,
            json,
        } => {
            linux::run(&files, samples, &mut report)?;
            json
        }
    };
    report.print(json)
}
