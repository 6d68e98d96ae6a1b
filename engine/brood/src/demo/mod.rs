//! The demo: one lineage from boot to bill of memory, every number measured in this run.
//!
//! Boot, seal, start a workload that counts in memory and on disk, fork it live into eight daughters, run another
//! command in each, fork a daughter again, keep a checkpoint, let time pass, fork the past, claim from the warm pool,
//! show the tree, end everything and count what is left.

mod residue;
mod tree;

use std::path::Path;
use std::time::Instant as Stopwatch;

use anyhow::{Context, ensure};
use brood_agent_proto::exec::ExecSpec;
use brood_cell::protocol::Checkpoint;
use serde::Serialize;

use crate::fork::{self, Daughter, IdentitySpec, LiveFork, Template};
use crate::host::Host;
use crate::machine::{Machine, Size};

/// The daughters of the live fork.
const DAUGHTERS: u32 = 8;
/// Warm daughters held ready, and claimed.
const POOL: u32 = 2;
const SIZE: Size = Size {
    ram_mib: 256,
    vcpus: 1,
};
/// Where the workload counts in memory (a tmpfs) and on the disk.
const IN_MEMORY: &str = "/run/count";
const ON_DISK: &str = "/data/count";
/// Counts as long as it lives, one line a step, first on disk, then in memory.
const WORKLOAD: &str = "mkdir -p /data && mount -t ext4 /dev/vda /data && i=0 && \
    while :; do i=$((i+1)); echo $i >> /data/count; echo $i >> /run/count; done";
/// What the daughters are asked to do, one after the other.
const COMMANDS: [&str; 8] = [
    "echo \"I am $BROOD_NAME\"",
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
struct Row {
    id: String,
    mother: Option<String>,
    kind: &'static str,
    hostname: String,
    machine_id: String,
    random: String,
    count_at_fork: Option<u64>,
    answer: String,
    pause_us: Option<f64>,
    first_instruction_us: Option<f64>,
    confirmed_us: Option<f64>,
    first_answer_us: f64,
    private_kib: u64,
    pss_kib: u64,
}

/// A machine of the demo with its row.
struct Member {
    machine: Machine,
    row: Row,
}

/// Runs the demo with the guest files in `files`.
///
/// # Errors
/// Any step that does not do what it should.
pub fn run(files: &Path, json: bool) -> anyhow::Result<()> {
    let before = residue::look()?;
    let program = std::env::current_exe()?;
    let host = Host::open(&program, files)?;
    let mut members = lineage(&host)?;
    measure_memory(&mut members)?;
    let rows: Vec<&Row> = members.iter().map(|member| &member.row).collect();
    println!("\n{}", tree::draw(&rows));
    let rows = serde_json::to_value(&rows)?;
    brood_cell::Cell::end_all(members.into_iter().map(|member| member.machine.cell))?;
    drop(host);
    let left = residue::look()?.beyond(&before);
    println!("left behind: {}", left.describe());
    if json {
        println!(
            "{}",
            serde_json::json!({ "machines": rows, "left_behind": left.count() })
        );
    }
    ensure!(left.count() == 0, "something was left behind");
    Ok(())
}

/// Builds the whole lineage; every machine of it is alive at the end.
fn lineage(host: &Host) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    let mother = boot(host)?;
    members.push(mother);
    let boot_us = members
        .first()
        .map_or(0.0, |mother| mother.row.first_answer_us);

    say(&format!(
        "fork the running machine into {DAUGHTERS} daughters"
    ));
    let daughters = live_fork(&mut members, 0, DAUGHTERS, "daughter", "d")?;
    differ(&mut members)?;
    let slowest = daughters.iter().map(|row| row.1).fold(0.0, f64::max);
    println!(
        "  all {DAUGHTERS} answered {:.1} times faster than one boot ({:.0} ms against {:.0} ms)",
        boot_us / slowest,
        slowest / 1000.0,
        boot_us / 1000.0
    );

    say("fork a daughter again");
    live_fork(&mut members, 1, 1, "granddaughter", "g")?;

    say("keep a checkpoint, let time pass, fork the past");
    past(&mut members)?;

    say("claim from the warm pool of a sealed template");
    warm(host, &mut members)?;
    Ok(members)
}

fn boot(host: &Host) -> anyhow::Result<Member> {
    say(&format!(
        "boot a stock kernel: {} MiB, {} vCPU",
        SIZE.ram_mib, SIZE.vcpus
    ));
    let watch = Stopwatch::now();
    let mut machine = Machine::boot(host, SIZE, "")?;
    let kernel = machine.shell("uname -sr")?;
    let boot_us = watch.elapsed().as_secs_f64() * 1e6;
    let sealed = machine.cell().seal()?;
    println!(
        "  {kernel}; first answer after {:.0} ms; sealed {} MiB in {:.0} ms",
        boot_us / 1000.0,
        sealed.image_bytes >> 20,
        sealed.paused_nanos as f64 / 1e6
    );
    say("start a workload that counts in memory and on disk");
    machine
        .agent()?
        .exec(&ExecSpec::new(["sh", "-c", WORKLOAD]))?;
    while machine
        .shell(&format!("cat {IN_MEMORY} 2>/dev/null || true"))?
        .is_empty()
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let row = Row {
        id: machine.id.short(),
        mother: None,
        kind: "booted",
        hostname: machine.hostname.clone(),
        machine_id: machine.id.to_string(),
        random: machine.shell("head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \\n'")?,
        count_at_fork: None,
        answer: kernel,
        pause_us: None,
        first_instruction_us: None,
        confirmed_us: None,
        first_answer_us: boot_us,
        private_kib: 0,
        pss_kib: 0,
    };
    Ok(Member { machine, row })
}

/// Forks member `mother` live; hostnames and first-answer times of the daughters.
fn live_fork(
    members: &mut Vec<Member>,
    mother: usize,
    count: u32,
    kind: &'static str,
    letter: &str,
) -> anyhow::Result<Vec<(String, f64)>> {
    let member = members.get_mut(mother).context("no such member")?;
    let LiveFork {
        daughters,
        workload_frozen,
        mother_pause,
        ..
    } = fork::live(&mut member.machine, count, Checkpoint::Drop)?;
    println!("  mother-pause {mother_pause:.0} us, workload-frozen {workload_frozen:.0} us");
    let daughters = daughters.into_iter().collect::<Result<Vec<_>, _>>()?;
    let named = |index: u32| identity(&format!("{letter}{index}"));
    let mut answers = Vec::new();
    for daughter in fork::stamp_all(daughters, named) {
        let member = introduce(daughter?, (kind, members.len()), Some(mother_pause))?;
        answers.push((member.row.hostname.clone(), member.row.first_answer_us));
        members.push(member);
    }
    one_count(members, count as usize)?;
    Ok(answers)
}

fn identity(hostname: &str) -> IdentitySpec {
    IdentitySpec {
        hostname: hostname.to_owned(),
        env: vec![("BROOD_NAME".to_owned(), hostname.to_owned())],
        read_frozen: Some(IN_MEMORY.to_owned()),
    }
}

/// Runs a command of her own in a daughter and writes her row.
fn introduce(
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
        id: machine.id.short(),
        mother: machine.mother.map(|mother| mother.short()),
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
    Ok(Member { machine, row })
}

/// The last `count` members were forked from one point: they hold one count.
fn one_count(members: &[Member], count: usize) -> anyhow::Result<()> {
    let newest = members
        .get(members.len().saturating_sub(count)..)
        .unwrap_or_default();
    let counts: Vec<_> = newest
        .iter()
        .map(|member| member.row.count_at_fork)
        .collect();
    let first = counts.first().copied().flatten();
    ensure!(first.is_some(), "no count was read in the daughters");
    ensure!(
        counts.iter().all(|count| *count == first),
        "one point, one count: {counts:?}"
    );
    println!(
        "  every daughter stands at count {}",
        first.unwrap_or_default()
    );
    Ok(())
}

/// From the fork on each counts for herself, in memory and on her own disk.
fn differ(members: &mut [Member]) -> anyhow::Result<()> {
    let mut counts = Vec::new();
    for member in members.iter_mut() {
        let line = format!("tail -qn 1 {IN_MEMORY} {ON_DISK} | tr '\\n' ' '");
        counts.push(format!(
            "{} {}",
            member.row.hostname,
            member.machine.shell(&line)?
        ));
    }
    println!(
        "  and counts on for herself (memory, disk): {}",
        counts.join("; ")
    );
    Ok(())
}

fn past(members: &mut Vec<Member>) -> anyhow::Result<()> {
    let mother = members.first_mut().context("no mother")?;
    let LiveFork {
        checkpoint,
        mother_pause,
        ..
    } = fork::live(&mut mother.machine, 0, Checkpoint::Keep)?;
    let mut checkpoint = checkpoint.context("no checkpoint was kept")?;
    let kept: u64 = mother
        .machine
        .shell(&format!("tail -n 1 {IN_MEMORY}"))?
        .parse()?;
    let line = format!(
        "while [ $(tail -n 1 {IN_MEMORY}) -lt {} ]; do :; done; tail -n 1 {IN_MEMORY}",
        kept + 20
    );
    let now: u64 = mother.machine.shell(&line)?.parse()?;
    let daughters = checkpoint.fork(1)?;
    for daughter in fork::stamp_all(daughters, |_| identity("past")) {
        let member = introduce(daughter?, ("checkpoint", members.len()), Some(mother_pause))?;
        let count = member.row.count_at_fork.context("no count in the past")?;
        ensure!(
            count <= kept && now >= kept + 20,
            "the past stands at {count}, the mother at {now}"
        );
        println!("  the past stands at count {count}, the mother at {now}");
        members.push(member);
    }
    checkpoint.end()
}

fn warm(host: &Host, members: &mut Vec<Member>) -> anyhow::Result<()> {
    let mut machine = Machine::boot(host, SIZE, "")?;
    machine.shell(&format!("echo 0 > {IN_MEMORY}"))?;
    let template = Template::seal(machine)?;
    let mut pool = Vec::new();
    for index in 0..POOL {
        pool.push(template.warm(host, index)?);
    }
    for (index, warm) in pool.into_iter().enumerate() {
        let daughter = warm.claim()?.stamp(&identity(&format!("w{index}")), 1)?;
        members.push(introduce(daughter, ("claimed", members.len()), None)?);
    }
    template.end()
}

/// Private and proportional memory of every machine while all are alive.
fn measure_memory(members: &mut [Member]) -> anyhow::Result<()> {
    for member in members {
        let pid = member.machine.cell.pid();
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let field = |name: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum()
        };
        member.row.private_kib = field("Private_Clean:") + field("Private_Dirty:");
        member.row.pss_kib = field("Pss:");
    }
    Ok(())
}

fn say(what: &str) {
    println!("● {what}");
}
