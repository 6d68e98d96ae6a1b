//! The rows of `bench lab-ratio`: a Linux machine's boot against forks of a running one, from one run on one host.
//!
//! Every time ends with a program's answer, so it holds everything a user waits for: the kernel, the agent, the stamp,
//! the confirmation, an exec session. Times of an emulated host mean nothing by themselves; their ratios do.

mod exec;

use std::path::Path;

use anyhow::Context;
use brood_agent_proto::exec::ExecSpec;
use brood_cell::protocol::Checkpoint;
use brood_service::fork::{self, IdentitySpec};
use brood_service::host::Host;
use brood_service::machine::{Machine, Size};
use brood_vmm::now;

use crate::report::Report;

const SIZE: Size = Size {
    ram_mib: 256,
    vcpus: 1,
};
/// Daughters of the rows `linux/live-fork/N`, whose mother counts in memory, and of `linux/live-fork/N/idle`, whose mother
/// waits.
const DAUGHTERS: [u32; 4] = [1, 2, 8, 16];
const IDLE: [u32; 3] = [1, 2, 8];
/// What the mother does while she is forked.
const WORKLOAD: &str = "i=0; while :; do i=$((i+1)); echo $i > /run/count; done";

/// The median of one metric, to make ratios of.
struct Median {
    name: String,
    micros: f64,
}

/// Boots `samples` machines and forks the last `samples` times for each row.
///
/// # Errors
/// A machine does not boot, or a fork does not give every daughter.
pub(crate) fn run(files: &Path, samples: usize, report: &mut Report) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name("brood");
    anyhow::ensure!(
        program.exists(),
        "{} is missing: start this with `cargo xtask bench lab-ratio`",
        program.display()
    );
    let host = Host::open(&program, Some(files), &std::env::temp_dir())?;
    let mut mother = None;
    let mut boots = Vec::new();
    for sample in 0..samples.max(1) {
        eprintln!("linux/boot {} of {samples}", sample + 1);
        let asked = now();
        let mut machine = Machine::boot(&host, SIZE, "")?;
        machine.shell("true")?;
        let micros = now().micros_since(asked);
        report.micros("linux/boot", "first-answer", micros);
        boots.push(micros);
        mother = Some(machine);
    }
    let mut mother = mother.context("no machine was booted")?;
    mother.cell().seal()?;
    let samples = samples.max(1);
    exec::run(&mut mother, (&program, files), report)?;
    for daughters in IDLE {
        let row = format!("linux/live-fork/{daughters}/idle");
        forks(&mut mother, daughters, (&row, samples), report)?;
    }
    mother
        .agent()?
        .exec(&ExecSpec::new(["sh", "-c", WORKLOAD]))?;
    mother.shell("until [ -s /run/count ]; do :; done")?;
    let boot = median(boots);
    for daughters in DAUGHTERS {
        let row = format!("linux/live-fork/{daughters}");
        for Median { name, micros } in forks(&mut mother, daughters, (&row, samples), report)? {
            report.ratio(&row, &format!("boot/{name}"), boot / micros);
        }
    }
    mother.end()
}

/// Forks into `daughters` for each sample of a row, all of which answer, and gives the medians of first and last answer.
fn forks(
    mother: &mut Machine,
    daughters: u32,
    (name, samples): (&str, usize),
    report: &mut Report,
) -> anyhow::Result<[Median; 2]> {
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        eprintln!("{name} {} of {samples}", sample + 1);
        let asked = now();
        let fork = fork::live(mother, daughters, Checkpoint::Drop)?;
        report.micros(name, "mother-pause", fork.mother_pause);
        report.micros(name, "workload-frozen", fork.workload_frozen);
        let born = fork.daughters.into_iter().collect::<Result<Vec<_>, _>>()?;
        // A daughter's times count from the cell's fork; the freezing of the workload before it is part of the wait.
        let frozen_after = fork.times.asked.micros_since(asked);
        let mut answers = Vec::new();
        let mut machines = Vec::new();
        for daughter in fork::stamp_all(born, identity) {
            let daughter = daughter?;
            let timing = daughter.timing;
            report.micros(name, "first-instruction", timing.first_instruction);
            for step in fork::Step::ALL {
                let micros = timing.steps.of(step).as_secs_f64() * 1e6;
                report.micros(name, &format!("step/{}", step.as_str()), micros);
            }
            let round_trip = timing.clock_round_trip_ns as f64 / 1000.0;
            report.micros(name, "confirm-round-trip", round_trip);
            report.micros(name, "confirmed", daughter.timing.confirmed);
            answers.push(frozen_after + daughter.timing.first_answer);
            machines.push(daughter.machine);
        }
        let first = answers.iter().copied().fold(f64::INFINITY, f64::min);
        let last = answers.iter().copied().fold(0.0, f64::max);
        report.micros(name, "first-answer", first);
        report.micros(name, "all-answered", last);
        firsts.push(first);
        lasts.push(last);
        machines.into_iter().try_for_each(Machine::end)?;
    }
    Ok([
        Median {
            name: "first-answer".to_owned(),
            micros: median(firsts),
        },
        Median {
            name: "all-answered".to_owned(),
            micros: median(lasts),
        },
    ])
}

fn identity(index: u32) -> IdentitySpec {
    IdentitySpec {
        hostname: format!("daughter-{index}"),
        ..IdentitySpec::default()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    crate::report::percentile(&values, 0.50)
}
