//! The rows of `bench fork`.
//!
//! A mother touches half of her RAM, is sealed, and from then on rewrites a dirty set of 16 MiB over and over, one
//! port exit after each page. Each sample waits until the whole set was rewritten since the last fork; then the engine
//! collapses what is densely written, as it does for a mother that will be forked again, and the guest goes on rewriting.
//! The rows with `-uncollapsed` leave that out. The pause
//! lasts from the cell's reading of the request until the mother's first exit afterwards, which is an upper bound of
//! her next instruction; `first-instruction` from the engine's call to the daughter's first exit.

use std::time::Duration;

use brood_bare_guest::mailbox::Command;
use brood_bare_guest::pattern::Spread;
use brood_cell::Cell;
use brood_cell::protocol::{Checkpoint, Start};
use brood_units::{Instant, Stage};

use crate::baseline;
use crate::host::Host;
use crate::memory;
use crate::report::Report;

/// First byte of RAM the bare guest leaves free.
pub(crate) const FREE: u64 = 2 << 20;
/// Pages of the dirty set: 16 MiB.
const DIRTY_PAGES: u64 = 4096;
/// Samples of one row before the next row has its turn.
const BLOCK: usize = 10;

/// Which rows, and how many samples of each.
pub(crate) struct Plan {
    pub(crate) samples: usize,
    pub(crate) only: Option<String>,
}

impl Plan {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }
}

/// Runs every wanted row.
pub(crate) fn run(host: &Host, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if plan.wants("baseline") {
        baseline::fork_alone(plan.samples, report)?;
    }
    live(host, plan, report)?;
    if plan.wants("claim/256MiB") {
        claim(host, plan.samples, report)?;
    }
    if plan.wants("fan-out/64") {
        fan_out(host, plan.samples, report)?;
    }
    depth(host, plan, report)?;
    if plan.wants("density/200") {
        memory::density(host, report)?;
    }
    Ok(())
}

/// What is done for a mother between two forks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upkeep {
    /// Densely written memory gets huge pages.
    Collapse,
    /// Nothing.
    Nothing,
}

/// One mother of the live-fork rows.
struct Mother {
    name: String,
    upkeep: Upkeep,
    cell: Cell,
    done: usize,
}

fn live(host: &Host, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    use Spread::{Clustered, Scattered};
    use Upkeep::{Collapse, Nothing};
    let rows = [
        ("256MiB/16MiB-clustered", (256, 1), Clustered, Collapse),
        ("2GiB/16MiB-clustered", (2048, 1), Clustered, Collapse),
        ("256MiB/16MiB-scattered", (256, 1), Scattered, Collapse),
        ("2GiB/16MiB-scattered", (2048, 1), Scattered, Collapse),
        ("256MiB/4vcpu", (256, 4), Clustered, Collapse),
        (
            "256MiB/16MiB-clustered-uncollapsed",
            (256, 1),
            Clustered,
            Nothing,
        ),
        (
            "2GiB/16MiB-clustered-uncollapsed",
            (2048, 1),
            Clustered,
            Nothing,
        ),
    ]
    .map(|(row, size, spread, upkeep)| (format!("live-fork/{row}"), size, spread, upkeep));
    let mut mothers = Vec::new();
    for (name, (mib, vcpus), spread, upkeep) in rows.into_iter().filter(|row| plan.wants(&row.0)) {
        let mut cell = dirty_mother(host, mib, vcpus, spread)?;
        cell.pause()?;
        mothers.push(Mother {
            name,
            upkeep,
            cell,
            done: 0,
        });
    }
    while mothers.iter().any(|mother| mother.done < plan.samples) {
        for mother in &mut mothers {
            eprint!(
                "\r{:<40} {:>5} of {}",
                mother.name, mother.done, plan.samples
            );
            mother.cell.resume()?;
            for _ in 0..BLOCK.min(plan.samples - mother.done) {
                rewrite(&mut mother.cell)?;
                if mother.upkeep == Upkeep::Collapse {
                    collapse(&mother.name, &mut mother.cell, report)?;
                }
                sample_live(&mother.name, &mut mother.cell, report)?;
                mother.done += 1;
            }
            mother.cell.pause()?;
        }
    }
    eprintln!();
    Ok(())
}

/// A sealed mother whose vCPU 0 rewrites the dirty set for ever; further vCPUs count.
pub(crate) fn dirty_mother(
    host: &Host,
    mib: u64,
    vcpus: u32,
    spread: Spread,
) -> anyhow::Result<Cell> {
    let mut cell = host.bare(mib, vcpus)?;
    let half = (mib << 20) / 2;
    settle(cell.command(
        0,
        Command::Touch {
            start: FREE,
            bytes: half - FREE,
        },
    )?)?;
    cell.seal()?;
    for vcpu in 1..vcpus {
        let addr = half + (u64::from(vcpu) << 21);
        cell.begin_command(vcpu, Command::Count { addr })?;
    }
    cell.begin_command(0, dirty_loop(mib, spread))?;
    Ok(cell)
}

pub(crate) fn settle(outcome: brood_bare_guest::mailbox::Outcome) -> anyhow::Result<u64> {
    outcome
        .map_err(|(fault, detail)| anyhow::anyhow!("the bare guest reports {fault:?} ({detail})"))
}

/// What an engine does in the background of a mother it will fork again.
fn collapse(name: &str, mother: &mut Cell, report: &mut Report) -> anyhow::Result<()> {
    let began = brood_vmm::now();
    let collapsed = mother.collapse()?;
    report.micros(name, "collapse", brood_vmm::now().micros_since(began));
    for nanos in collapsed.paused_nanos {
        report.micros(name, "collapse-pause", nanos as f64 / 1000.0);
    }
    Ok(())
}

/// Waits until the whole dirty set was rewritten.
pub(crate) fn rewrite(cell: &mut Cell) -> anyhow::Result<()> {
    let target = cell.stats()?.ticks + DIRTY_PAGES;
    while cell.stats()?.ticks < target {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn sample_live(name: &str, mother: &mut Cell, report: &mut Report) -> anyhow::Result<()> {
    mother.clear_events();
    let fork = mother.fork(1, Checkpoint::Drop, Start::Run)?;
    let mut daughters = fork.daughters.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mother_again = mother.first_instruction()?;
    let entered = mother.stats()?.entered;
    report.micros(
        name,
        "stage/resume",
        entered.micros_since(fork.times.cloned),
    );
    for daughter in &mut daughters {
        let first = daughter.first_instruction()?;
        report.micros(
            name,
            "mother-pause",
            mother_again.micros_since(fork.times.asked),
        );
        report.micros(name, "first-instruction", first.micros_since(fork.asked));
        let (times, birth) = (fork.times, daughter.birth());
        let ends = [
            (Stage::Ask, fork.asked, times.asked),
            (Stage::Part, times.cloned, birth.born),
            (Stage::Park, times.asked, times.parked),
            (Stage::Save, times.parked, times.saved),
            (Stage::Clone, times.saved, times.cloned),
            (Stage::CreateVm, birth.born, birth.created),
            (Stage::Restore, birth.created, birth.restored),
            (Stage::Run, birth.restored, first),
        ];
        for (stage, from, to) in ends {
            report.micros(name, &format!("stage/{stage}"), to.micros_since(from));
        }
    }
    Cell::end_all(daughters)?;
    Ok(())
}

/// A daughter claimed from a pool of warm ones of a sealed template.
fn claim(host: &Host, samples: usize, report: &mut Report) -> anyhow::Result<()> {
    use std::os::fd::AsFd;
    let name = "claim/256MiB";
    let mut template = host.bare(256, 1)?;
    settle(template.command(
        0,
        Command::Touch {
            start: FREE,
            bytes: 128 << 20,
        },
    )?)?;
    template.begin_command(0, Command::Count { addr: FREE })?;
    template.pause()?;
    let parts = template.template()?;
    let mut done = 0;
    while done < samples {
        eprint!("\r{name:<40} {done:>5} of {samples}");
        let mut pool = Vec::new();
        for _ in 0..BLOCK {
            let mut cell = host.spawn()?;
            cell.load(host.kvm.as_fd(), &parts)?;
            pool.push(cell);
        }
        for daughter in &mut pool {
            let asked = brood_vmm::now();
            daughter.resume()?;
            let first = daughter.first_instruction()?;
            report.micros(name, "first-instruction", first.micros_since(asked));
            daughter.pause()?;
        }
        done += pool.len();
        Cell::end_all(pool)?;
    }
    eprintln!();
    Ok(())
}

/// One live fork into 64 daughters. The guest waits for a command at the fork, as a sandbox waits for its caller:
/// 64 guests that spin on two cores would measure the scheduler.
fn fan_out(host: &Host, samples: usize, report: &mut Report) -> anyhow::Result<()> {
    const DAUGHTERS: u32 = 64;
    let name = "fan-out/64";
    let mut mother = dirty_mother(host, 256, 1, Spread::Clustered)?;
    for sample in 0..samples.div_ceil(DAUGHTERS as usize).max(10) {
        eprint!("\r{name:<40} {sample:>5}");
        rewrite(&mut mother)?;
        collapse(name, &mut mother, report)?;
        settle(mother.command(0, Command::Idle {})?)?;
        settle(mother.outcome(0)?)?;
        mother.clear_events();
        let fork = mother.fork(DAUGHTERS, Checkpoint::Drop, Start::Run)?;
        let mut daughters = fork.daughters.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut last = Instant::default();
        for daughter in &mut daughters {
            last = last.max(daughter.first_instruction()?);
        }
        report.micros(name, "all-running", last.micros_since(fork.asked));
        let again = mother.first_instruction()?;
        report.micros(name, "mother-pause", again.micros_since(fork.times.asked));
        Cell::end_all(daughters)?;
        mother.begin_command(0, dirty_loop(256, Spread::Clustered))?;
    }
    eprintln!();
    Ok(())
}

/// Rewrites the dirty set within the touched half of `mib` MiB for ever.
fn dirty_loop(mib: u64, spread: Spread) -> Command {
    let bytes = (mib << 20) / 2 - FREE;
    Command::DirtyLoop {
        start: FREE,
        bytes,
        pages: DIRTY_PAGES,
        spread,
    }
}

/// A chain of daughters of daughters, all ancestors alive (and paused, so that they do not compete for the cores).
fn depth(host: &Host, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let depths = [1_usize, 8, 32];
    if !depths
        .iter()
        .any(|depth| plan.wants(&format!("depth/{depth}")))
    {
        return Ok(());
    }
    let mut line = vec![dirty_mother(host, 256, 1, Spread::Clustered)?];
    for depth in 1..=32 {
        let Some(mother) = line.last_mut() else { break };
        rewrite(mother)?;
        if depths.contains(&depth) {
            let name = format!("depth/{depth}");
            for sample in 0..plan.samples {
                eprint!("\r{name:<40} {sample:>5} of {}", plan.samples);
                collapse(&name, mother, report)?;
                sample_live(&name, mother, report)?;
                rewrite(mother)?;
            }
            eprintln!();
        }
        let fork = mother.fork(1, Checkpoint::Drop, Start::Run)?;
        mother.pause()?;
        for daughter in fork.daughters {
            line.push(daughter?);
        }
    }
    Cell::end_all(line)?;
    Ok(())
}
