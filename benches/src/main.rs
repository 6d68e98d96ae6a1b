//! Benches of the fork path. Every one prints rows of percentiles and, with `--json`, one object as its last line.

mod fork;
mod host;
mod memory;
mod report;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benches of the fork path")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
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
}

fn main() -> anyhow::Result<()> {
    let Bench::Fork {
        json,
        samples,
        only,
    } = Arguments::parse().bench;
    let mut report = report::Report::new();
    let plan = fork::Plan { samples, only };
    fork::run(&host::Host::open()?, &plan, &mut report)?;
    report.print(json)
}
