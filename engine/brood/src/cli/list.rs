//! `brood ls`

use std::collections::BTreeMap;
use std::process::ExitCode;

use brood_api::machine::{Kind, Machine, MachineListQuery, State};
use brood_client::Client;
use brood_units::MachineId;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, Out, PLAIN, Table, colour, pages};
use super::time::{between, now};

/// `brood ls`
#[derive(Args)]
pub struct Arguments {
    /// Only those with this label.
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Option<String>,
    /// Checkpoints instead of machines.
    #[arg(long)]
    checkpoints: bool,
    /// Those that have ended instead of those alive.
    #[arg(long)]
    ended: bool,
    /// At most so many; all if not said.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Ids alone, one a line.
    #[arg(short, long)]
    quiet: bool,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let page = pages(self.limit, |limit, cursor| {
            let query = MachineListQuery {
                limit: Some(limit),
                cursor,
                label: self.label.clone(),
                ended: self.ended.then_some(true),
            };
            if self.checkpoints {
                client.list_checkpoints(&query)
            } else {
                client.list_machines(&query)
            }
        })?;
        out.answer(&page, || {
            if self.quiet {
                return page
                    .items
                    .iter()
                    .map(|one| format!("{}\n", one.id))
                    .collect();
            }
            draw(&page.items)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Ids of sisters follow one another: what tells them apart is their end.
pub(super) fn end_of(id: MachineId) -> String {
    let id = id.to_string();
    id.get(id.len().saturating_sub(8)..)
        .unwrap_or(&id)
        .to_owned()
}

/// What a state is called.
pub(super) const fn word(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Paused => "paused",
        State::Frozen => "frozen",
        State::Hibernated => "hibernated",
        State::Ended => "ended",
    }
}

/// What a machine does, and how it ended.
pub(super) fn state(machine: &Machine) -> String {
    match &machine.ending {
        Some(how) => format!("ended: {how}"),
        None => word(machine.state).to_owned(),
    }
}

/// A machine's vCPUs.
pub(super) fn vcpus(machine: &Machine) -> String {
    milli(machine.vcpu_milli)
}

/// 1/1000 vCPU, as vCPUs.
pub(super) fn milli(vcpu_milli: u32) -> String {
    let (whole, rest) = (vcpu_milli / 1000, vcpu_milli % 1000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:03}")
        .trim_end_matches('0')
        .to_owned()
}

/// Labels as they are written.
pub(super) fn labels(machine: &Machine) -> String {
    pairs(&machine.labels)
}

/// The same of anything that has labels.
pub(super) fn pairs(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(" ")
}

/// When a machine ends by itself.
pub(super) fn ends(machine: &Machine, now: i64) -> String {
    let expires = machine.expires_at.filter(|_| machine.ended_at.is_none());
    expires.map_or_else(|| "-".to_owned(), |at| between(now, at))
}

/// One line a machine.
pub(super) fn draw(machines: &[Machine]) -> String {
    let (now, points) = (
        now(),
        machines.iter().any(|one| one.kind == Kind::Checkpoint),
    );
    let mother = if points { "OF" } else { "MOTHER" };
    let head = [
        "ID", "NAME", "STATE", "AGE", "ENDS IN", "VCPUS", "MEMORY", mother, "LABELS",
    ];
    let mut table = Table::new(&head);
    for one in machines {
        let mother = one.mother.map(end_of);
        table.row([
            (PLAIN, one.id.to_string()),
            (BOLD, one.name.clone().unwrap_or_else(|| "-".to_owned())),
            (colour(one.state), state(one)),
            (PLAIN, between(now, one.created_at)),
            (PLAIN, ends(one, now)),
            (PLAIN, vcpus(one)),
            (PLAIN, format!("{} MiB", one.memory_mib)),
            (PLAIN, mother.unwrap_or_else(|| "-".to_owned())),
            (PLAIN, labels(one)),
        ]);
    }
    table.draw()
}
