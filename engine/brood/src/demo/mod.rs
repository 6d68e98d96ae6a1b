//! The demo: one lineage from boot to bill of memory, every number measured in this run.
//!
//! Boot a template, seal it, fill a warm pool; claim a mother, start a workload in her that counts in memory and on
//! disk, fork her live into eight daughters, by way of the policies, run another command in each, fork a daughter
//! again, keep a checkpoint, let time pass, fork the past, claim from the pool again, show the tree, end everything and
//! count what is left.
//!
//! Machines that have shown what they can are paused: a workload that never rests would slow the rest of the demo.

mod member;
mod policy;
mod residue;
mod step;
mod template;
mod tree;

use std::path::Path;
use std::time::Instant as Stopwatch;

use anyhow::{Context, ensure};
use brood_service::fork::wall_clock_ns;
use brood_service::host::Host;
use brood_service::process;

use member::{Member, Row};
use policy::{Billed, Policy};
use step::{claim, denied, differ, live_fork, past, pause, shape, start_workload};

/// The daughters of the live fork.
const DAUGHTERS: u32 = 8;

/// What the demo is made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// A directory made by `brood prepare`.
    pub files: &'a Path,
    /// The file that binds plugins to hooks.
    pub policy: &'a Path,
    /// The directory with the components that it names.
    pub plugins: &'a Path,
}

/// Where the members of the lineage stand in the list.
const MOTHER: usize = 1;
const FIRST_DAUGHTER: usize = 2;

/// Runs the demo.
///
/// # Errors
/// Any step that does not do what it should.
pub fn run(sources: &Sources<'_>, json: bool) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    // What hears cells begins with the first of them and lives as long as this process: it is there before the look.
    Host::open(&program, Some(sources.files), &std::env::temp_dir())?
        .spawn()?
        .end()?;
    let before = residue::look()?;
    say("load and bind the policies");
    let watch = Stopwatch::now();
    let mut policy = Policy::open(&program, sources)?;
    println!(
        "  {} in {:.0} ms",
        sources.policy.display(),
        watch.elapsed().as_secs_f64() * 1e3
    );
    let host = Host::open(&program, Some(sources.files), &std::env::temp_dir())?;
    let mut members = lineage(&host, &mut policy)?;
    measure_memory(&mut members)?;
    bill(&members, &mut policy)?;
    let rows: Vec<&Row> = members.iter().map(|member| &member.row).collect();
    println!("\n{}", tree::draw(&rows));
    let rows = serde_json::to_value(&rows)?;
    let ids: Vec<_> = members.iter().map(Member::id).collect();
    brood_cell::Cell::end_all(members.into_iter().map(Member::into_cell))?;
    policy.ended(ids);
    drop(host);
    let decisions = serde_json::to_value(policy.end())?;
    let left = residue::look()?.beyond(&before);
    println!("left behind: {}", left.describe());
    if json {
        println!(
            "{}",
            serde_json::json!({
                "machines": rows,
                "decisions": decisions,
                "left_behind": left.count(),
            })
        );
    }
    ensure!(left.count() == 0, "something was left behind");
    Ok(())
}

/// Builds the whole lineage; every machine of it is alive at the end.
fn lineage(host: &Host, policy: &mut Policy) -> anyhow::Result<Vec<Member>> {
    let (template, mut pool) = template::template(host)?;
    let boot_us = template.row.first_answer_us;
    let mut members = vec![template];

    say("claim a mother from the pool; she counts in memory and on disk");
    claim(&mut members, &mut pool, "mother")?;
    start_workload(members.get_mut(MOTHER).context("no mother")?.machine()?)?;

    say(&format!(
        "fork the running machine into {DAUGHTERS} daughters"
    ));
    let slowest = live_fork(&mut members, policy, (MOTHER, DAUGHTERS, "daughter"))?;
    differ(&mut members)?;
    println!(
        "  all {DAUGHTERS} answered {:.1} times faster than one boot ({:.0} ms against {:.0} ms)",
        boot_us / slowest,
        slowest / 1000.0,
        boot_us / 1000.0
    );
    pause(members.get_mut(FIRST_DAUGHTER + 1..))?;

    say("ask for more daughters than the policy allows");
    denied(&mut members, policy)?;

    say("fork a daughter again");
    live_fork(&mut members, policy, (FIRST_DAUGHTER, 1, "granddaughter"))?;
    pause(members.get_mut(FIRST_DAUGHTER..))?;

    say("keep a checkpoint, let time pass, fork the past");
    past(&mut members, policy)?;
    pause(members.get_mut(MOTHER..))?;

    say("claim again from the warm pool");
    while !pool.is_empty() {
        let hostname = format!("w{}", pool.len());
        claim(&mut members, &mut pool, &hostname)?;
    }
    Ok(members)
}

/// What the lives of all machines cost until now.
fn bill(members: &[Member], policy: &mut Policy) -> anyhow::Result<()> {
    say("rate what the machines were given until now (an estimate of this demo, not a ledger)");
    let now = wall_clock_ns();
    let lives = members.iter().filter_map(|member| {
        let machine = member.machine_ref().ok()?;
        Some((machine.id, member.born_ns))
    });
    let Billed { lines, totals } = policy.bill(lives, &shape(), now)?;
    for line in lines {
        println!("  {line}");
    }
    println!("  together {totals}");
    Ok(())
}

/// Private and proportional memory of every machine while all are alive.
fn measure_memory(members: &mut [Member]) -> anyhow::Result<()> {
    for member in members {
        let memory = process::memory(member.pid())?;
        member.row.private_kib = memory.private_kib;
        member.row.pss_kib = memory.pss_kib;
    }
    Ok(())
}

fn say(what: &str) {
    println!("● {what}");
}
