//! The demo: one lineage from boot to bill of memory, every number measured in this run.
//!
//! Boot a template, seal it, fill a warm pool; claim a mother, start a workload in her that counts in memory and on
//! disk, fork her live into eight daughters, by way of the policies, run another command in each, fork a daughter again, keep a checkpoint, let
//! time pass, fork the past, claim from the pool again, show the tree, end everything and count what is left.
//! Machines that have shown what they can are paused: a workload that never rests would slow the rest of the demo.

mod policy;
mod residue;
mod tree;

use std::path::Path;
use std::time::Instant as Stopwatch;

use anyhow::{Context, ensure};
use brood_agent_proto::exec::ExecSpec;
use brood_cell::protocol::Checkpoint;
use brood_hooks::Resources;
use brood_service::ask::{ForkSpec, Mother, MotherKind};
use brood_service::fork::{self, Daughter, IdentitySpec, LiveFork, Template, Warm, wall_clock_ns};
use brood_service::host::Host;
use brood_service::machine::{Machine, Size};
use brood_service::process;
use serde::Serialize;

use policy::{Billed, Policy};

/// The daughters of the live fork.
const DAUGHTERS: u32 = 8;
/// More than the policy allows in one request.
const TOO_MANY: u32 = 65;
/// Warm daughters held ready; the mother and two more are claimed.
const POOL: u32 = 3;
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
    being: Being,
    row: Row,
    born_ns: u64,
}

/// What a member is.
enum Being {
    Template(Template),
    Machine(Box<Machine>),
}

impl Member {
    fn machine(&mut self) -> anyhow::Result<&mut Machine> {
        match &mut self.being {
            Being::Machine(machine) => Ok(machine),
            Being::Template(_) => anyhow::bail!("a template does not run"),
        }
    }

    fn machine_ref(&self) -> anyhow::Result<&Machine> {
        match &self.being {
            Being::Machine(machine) => Ok(machine),
            Being::Template(_) => anyhow::bail!("a template does not run"),
        }
    }

    fn pid(&self) -> u32 {
        match &self.being {
            Being::Template(template) => template.pid(),
            Being::Machine(machine) => machine.pid(),
        }
    }

    fn into_cell(self) -> brood_cell::Cell {
        match self.being {
            Being::Template(template) => template.into_cell(),
            Being::Machine(machine) => machine.into_cell(),
        }
    }
}

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
    brood_cell::Cell::end_all(members.into_iter().map(Member::into_cell))?;
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

/// Where the members of the lineage stand in the list.
const MOTHER: usize = 1;
const FIRST_DAUGHTER: usize = 2;

/// Builds the whole lineage; every machine of it is alive at the end.
fn lineage(host: &Host, policy: &mut Policy) -> anyhow::Result<Vec<Member>> {
    let (template, mut pool) = template(host)?;
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

/// Boots a template, seals it and fills the pool.
fn template(host: &Host) -> anyhow::Result<(Member, Vec<Warm>)> {
    say(&format!(
        "boot a template with a stock kernel: {} MiB, {} vCPU",
        SIZE.ram_mib, SIZE.vcpus
    ));
    let watch = Stopwatch::now();
    let mut machine = Machine::boot(host, SIZE, "")?;
    let kernel = machine.shell("uname -sr")?;
    let boot_us = watch.elapsed().as_secs_f64() * 1e6;
    let mut row = Row {
        id: machine.id.to_string(),
        mother: None,
        kind: "template",
        hostname: "template".to_owned(),
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
    println!(
        "  {}; first answer after {:.0} ms",
        row.answer,
        boot_us / 1000.0
    );
    let watch = Stopwatch::now();
    let template = Template::seal(machine)?;
    println!(
        "  quiesced, paused and sealed in {:.0} ms",
        watch.elapsed().as_secs_f64() * 1e3
    );
    let watch = Stopwatch::now();
    let pool: Vec<_> = (0..POOL)
        .map(|index| template.warm(host, index))
        .collect::<Result<_, _>>()?;
    println!(
        "  {POOL} warm daughters in {:.0} ms",
        watch.elapsed().as_secs_f64() * 1e3
    );
    row.id = template.id().to_string();
    Ok((
        Member {
            being: Being::Template(template),
            row,
            born_ns: wall_clock_ns(),
        },
        pool,
    ))
}

/// Claims a warm daughter with one message.
fn claim(members: &mut Vec<Member>, pool: &mut Vec<Warm>, hostname: &str) -> anyhow::Result<()> {
    let warm = pool.pop().context("the pool is empty")?;
    let identity = IdentitySpec {
        read_frozen: None,
        ..identity(hostname)
    };
    let daughter = warm.claim()?.stamp(&identity, fork::patience(1))?;
    members.push(introduce(daughter, ("claimed", members.len()), None)?);
    Ok(())
}

fn start_workload(mother: &mut Machine) -> anyhow::Result<()> {
    mother
        .agent()?
        .exec(&ExecSpec::new(["sh", "-c", WORKLOAD]))?;
    while mother
        .shell(&format!("tail -n 1 {IN_MEMORY} 2>/dev/null || true"))?
        .is_empty()
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

fn pause(members: Option<&mut [Member]>) -> anyhow::Result<()> {
    for member in members.into_iter().flatten() {
        member.machine()?.cell().pause()?;
    }
    Ok(())
}

/// Whom the policies are told of; the template stands first in the list.
fn mother_of(members: &[Member], kind: MotherKind, machine: &Machine) -> Mother {
    let template = members.first().map(|member| &member.being);
    Mother {
        kind,
        id: machine.id,
        template: match template {
            Some(Being::Template(template)) => template.id(),
            _ => machine.id,
        },
        generation: machine.generation,
        shape: shape(),
        private_mib: process::memory(machine.pid()).map_or(0, |memory| {
            u32::try_from(memory.private_kib >> 10).unwrap_or(u32::MAX)
        }),
        labels: Vec::new(),
    }
}

/// What every machine of the demo has.
fn shape() -> Resources {
    Resources {
        vcpu_milli: SIZE.vcpus * 1000,
        memory_mib: u32::try_from(SIZE.ram_mib).unwrap_or(u32::MAX),
        ..Resources::default()
    }
}

/// Takes a member out of the list, for who needs her and the list.
fn machine_at(members: &mut [Member], at: usize) -> anyhow::Result<&mut Machine> {
    members.get_mut(at).context("no such member")?.machine()
}

/// Has member `mother` forked live by way of the policies; the slowest first answer of the daughters, microseconds.
fn live_fork(
    members: &mut Vec<Member>,
    policy: &mut Policy,
    (mother, count, kind): (usize, u32, &'static str),
) -> anyhow::Result<f64> {
    let alive = members.len();
    let known = mother_of(
        members,
        MotherKind::Running,
        members
            .get(mother)
            .context("no such member")?
            .machine_ref()?,
    );
    let stamps = policy.ask(&ForkSpec::of(count), &known, alive)??;
    let born = stamps.fork_live(machine_at(members, mother)?, Checkpoint::Drop)?;
    let pause = born.pause.context("she ran")?;
    println!(
        "  mother-pause {:.0} us, workload-frozen {:.0} us",
        pause.mother_pause, pause.workload_frozen
    );
    let daughters = policy.stamp(born, IN_MEMORY)?;
    let mut slowest = 0.0_f64;
    for daughter in daughters {
        let member = introduce(daughter, (kind, members.len()), Some(pause.mother_pause))?;
        slowest = slowest.max(member.row.first_answer_us);
        members.push(member);
    }
    one_count(members, count as usize)?;
    Ok(slowest)
}

/// A fork that the policy denies, in the plugin's own words; the machine runs on.
fn denied(members: &mut [Member], policy: &mut Policy) -> anyhow::Result<()> {
    let alive = members.len();
    let known = mother_of(
        members,
        MotherKind::Running,
        members.get(MOTHER).context("no mother")?.machine_ref()?,
    );
    let Err(stopped) = policy.ask(&ForkSpec::of(TOO_MANY), &known, alive)? else {
        anyhow::bail!("{TOO_MANY} daughters were not denied");
    };
    println!("  no fork of {TOO_MANY}: {stopped}");
    let mother = machine_at(members, MOTHER)?;
    let last = format!("tail -n 1 {IN_MEMORY}");
    let before: u64 = mother.shell(&last)?.parse()?;
    let line = format!("while [ $({last}) -le {before} ]; do :; done; {last}");
    let after: u64 = mother.shell(&line)?.parse()?;
    ensure!(after > before, "the mother stands at {before}");
    println!("  the mother runs on: count {before}, then {after}");
    Ok(())
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

fn identity(hostname: &str) -> IdentitySpec {
    IdentitySpec {
        hostname: hostname.to_owned(),
        env: vec![("BROOD_NAME".to_owned(), hostname.to_owned())],
        read_frozen: Some(IN_MEMORY.to_owned()),
        ..IdentitySpec::default()
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
    for member in members.iter_mut().skip(MOTHER) {
        let line = format!("tail -qn 1 {IN_MEMORY} {ON_DISK} | tr '\\n' ' '");
        let count = member.machine()?.shell(&line)?;
        counts.push(format!("{} {count}", member.row.hostname));
    }
    println!(
        "  and counts on for herself (memory, disk): {}",
        counts.join("; ")
    );
    Ok(())
}

fn past(members: &mut Vec<Member>, policy: &mut Policy) -> anyhow::Result<()> {
    let alive = members.len();
    let known = mother_of(
        members,
        MotherKind::Checkpoint,
        members.get(MOTHER).context("no mother")?.machine_ref()?,
    );
    let mother = machine_at(members, MOTHER)?;
    let (units, longest) = mother.tend()?;
    println!(
        "  tended first: {units} units of 2 MiB that she has written are huge pages, pause {longest:.0} us at most"
    );
    let LiveFork {
        checkpoint,
        mother_pause,
        ..
    } = fork::live(mother, 0, Checkpoint::Keep)?;
    let mut checkpoint = checkpoint.context("no checkpoint was kept")?;
    let last = format!("tail -n 1 {IN_MEMORY}");
    let kept: u64 = mother.shell(&last)?.parse()?;
    let now: u64 = mother
        .shell(&format!(
            "while [ $({last}) -lt {} ]; do :; done; {last}",
            kept + 20
        ))?
        .parse()?;
    let stamps = policy.ask(&ForkSpec::of(1), &known, alive)??;
    let born = stamps.fork_checkpoint(&mut checkpoint)?;
    for daughter in policy.stamp(born, IN_MEMORY)? {
        let place = ("checkpoint", members.len());
        let member = introduce(daughter, place, Some(mother_pause))?;
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
