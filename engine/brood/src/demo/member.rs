//! A machine of the demo, and the row that is reported of her.
//!
//! Invariant: what a row says was measured or read in the machine, except for what is not known of her.

use brood_service::fork::{Daughter, Template, wall_clock_ns};
use brood_service::machine::Machine;
use brood_units::MachineId;
use serde::Serialize;

/// What the daughters are asked to do, one after the other.
const COMMANDS: [&str; 8] = [
    "echo \"I am $(uname -n)\"",
    "uname -n",
    "echo modules: $(wc -l < /proc/modules)",
    "echo up $(cut -d ' ' -f 1 /proc/uptime) s",
    "echo 6*7=$((6 * 7))",
    "head -c 4 /dev/urandom | od -An -tx4",
    "cat /proc/sys/kernel/random/boot_id",
    "date -u +%T",
];

/// One machine of the lineage, as the demo reports it.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) mother: Option<String>,
    pub(super) kind: &'static str,
    pub(super) hostname: String,
    pub(super) machine_id: String,
    pub(super) random: String,
    pub(super) count_at_fork: Option<u64>,
    pub(super) answer: String,
    pub(super) pause_us: Option<f64>,
    pub(super) first_instruction_us: Option<f64>,
    pub(super) confirmed_us: Option<f64>,
    pub(super) first_answer_us: f64,
    pub(super) private_kib: u64,
    pub(super) pss_kib: u64,
}

/// A machine of the demo with its row.
pub(super) struct Member {
    pub(super) being: Being,
    pub(super) row: Row,
    pub(super) born_ns: u64,
}

/// What a member is.
pub(super) enum Being {
    Template(Template),
    Machine(Box<Machine>),
}

impl Member {
    pub(super) fn machine(&mut self) -> anyhow::Result<&mut Machine> {
        match &mut self.being {
            Being::Machine(machine) => Ok(machine),
            Being::Template(_) => anyhow::bail!("a template does not run"),
        }
    }

    pub(super) fn machine_ref(&self) -> anyhow::Result<&Machine> {
        match &self.being {
            Being::Machine(machine) => Ok(machine),
            Being::Template(_) => anyhow::bail!("a template does not run"),
        }
    }

    pub(super) fn id(&self) -> MachineId {
        match &self.being {
            Being::Template(template) => template.id(),
            Being::Machine(machine) => machine.id,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.being {
            Being::Template(template) => template.pid(),
            Being::Machine(machine) => machine.pid(),
        }
    }

    pub(super) fn into_cell(self) -> brood_cell::Cell {
        match self.being {
            Being::Template(template) => template.into_cell(),
            Being::Machine(machine) => machine.into_cell(),
        }
    }
}

/// Runs a command of her own in a daughter and writes her row.
pub(super) fn introduce(
    daughter: Daughter,
    (kind, nth): (&'static str, usize),
    pause_us: Option<f64>,
) -> anyhow::Result<Member> {
    let Daughter {
        mut machine,
        confirm,
        seen_frozen,
        timing,
        ..
    } = daughter;
    let command = COMMANDS
        .get(nth % COMMANDS.len())
        .copied()
        .unwrap_or_default();
    let answer = machine.shell(command)?;
    let count = String::from_utf8_lossy(&seen_frozen)
        .lines()
        .last()
        .and_then(|line| line.parse().ok());
    let row = Row {
        id: machine.id.to_string(),
        mother: machine.mother.map(|mother| mother.to_string()),
        kind,
        hostname: confirm.hostname,
        machine_id: confirm.machine_id,
        random: confirm
            .random
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        count_at_fork: count,
        answer,
        pause_us,
        first_instruction_us: Some(timing.first_instruction),
        confirmed_us: Some(timing.confirmed),
        first_answer_us: timing.first_answer,
        private_kib: 0,
        pss_kib: 0,
    };
    println!(
        "  {:<4} confirmed after {:>7.0} us, answered after {:>7.0} us: {}",
        row.hostname, timing.confirmed, timing.first_answer, row.answer
    );
    Ok(Member {
        being: Being::Machine(Box::new(machine)),
        row,
        born_ns: wall_clock_ns(),
    })
}
