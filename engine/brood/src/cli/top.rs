//! `brood top`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use brood_api::Span;
use brood_api::machine::{Kind, Machine, MachineStats, State, Tree};
use brood_client::Client;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::forest::{Shown, draw, mib};
use super::out::{BOLD, Out, print, styled};
use super::time::now;
use super::tree::living;
use super::value::span;

/// `brood top`
#[derive(Args)]
pub struct Arguments {
    /// Look once. So it is wherever standard output is no terminal, and in JSON.
    #[arg(long)]
    once: bool,
    /// Time between looks.
    #[arg(long, default_value = "2s", value_parser = span)]
    interval: Span,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let again = out.is_text() && !self.once && std::io::stdout().is_terminal();
        loop {
            let trees = living(client)?;
            let answer = serde_json::json!({ "items": trees });
            if again {
                // ECMA-48 §8.3.57 and §8.3.39: from the first line of an empty screen.
                print("\x1b[H\x1b[2J")?;
            }
            out.answer(&answer, || show(&trees))?;
            if !again {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(Duration::from_millis(self.interval.as_millis().max(100)));
        }
    }
}

fn show(trees: &[Tree]) -> String {
    let all: Vec<&Machine> = trees.iter().flat_map(|tree| &tree.nodes).collect();
    let of = |state| all.iter().filter(|one| one.state == state).count();
    let living = all.iter().filter(|one| one.state != State::Ended);
    // Who is hibernated has neither.
    let machines = living.filter(|one| one.kind == Kind::Machine && one.state != State::Hibernated);
    let memory: u64 = machines.clone().map(|one| u64::from(one.memory_mib)).sum();
    let vcpus: u64 = machines.map(|one| u64::from(one.vcpu_milli)).sum();
    let cost = |of: fn(MachineStats) -> u64| {
        let kib = all.iter().filter_map(|one| one.stats.map(of)).sum();
        mib(kib)
    };
    let line = format!(
        "{} running, {} paused, {} hibernated, {} checkpoints in {} lineages; {}.{} vCPUs and {memory} MiB promised; {} taken, {} of them private",
        of(State::Running),
        of(State::Paused),
        of(State::Hibernated),
        of(State::Frozen),
        trees.len(),
        vcpus / 1000,
        vcpus % 1000 / 100,
        cost(|stats| stats.pss_kib),
        cost(|stats| stats.private_kib),
    );
    format!(
        "{}\n\n{}",
        styled(BOLD, &line),
        draw(trees, Shown::Living, now())
    )
}
