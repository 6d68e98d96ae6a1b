//! The steps of the demo, each of which shows one thing and fails if it is not so.

use anyhow::{Context, ensure};
use brood_agent_proto::exec::ExecSpec;
use brood_cell::protocol::Checkpoint;
use brood_hooks::Resources;
use brood_service::ask::{ForkSpec, Mother, MotherKind};
use brood_service::fork::{self, IdentitySpec, LiveFork, Warm};
use brood_service::machine::{Machine, Size};
use brood_service::process;

use super::MOTHER;
use super::member::{Being, Member, introduce};
use super::policy::Policy;

/// More than the policy allows in one request.
const TOO_MANY: u32 = 65;
pub(super) const SIZE: Size = Size {
    ram_mib: 256,
    vcpus: 1,
};
/// Where the workload counts in memory (a tmpfs) and on the disk.
const IN_MEMORY: &str = "/run/count";
const ON_DISK: &str = "/data/count";
/// Counts as long as it lives, one line a step, first on disk, then in memory.
const WORKLOAD: &str = "mkdir -p /data && mount -t ext4 /dev/vda /data && i=0 && \
    while :; do i=$((i+1)); echo $i >> /data/count; echo $i >> /run/count; done";

/// Claims a warm daughter with one message.
pub(super) fn claim(
    members: &mut Vec<Member>,
    pool: &mut Vec<Warm>,
    hostname: &str,
) -> anyhow::Result<()> {
    let warm = pool.pop().context("the pool is empty")?;
    let identity = IdentitySpec {
        read_frozen: None,
        ..identity(hostname)
    };
    let daughter = warm.claim()?.stamp(&identity, fork::patience(1))?;
    members.push(introduce(daughter, ("claimed", members.len()), None)?);
    Ok(())
}

pub(super) fn start_workload(mother: &mut Machine) -> anyhow::Result<()> {
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

pub(super) fn pause(members: Option<&mut [Member]>) -> anyhow::Result<()> {
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
pub(super) fn shape() -> Resources {
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
pub(super) fn live_fork(
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
pub(super) fn denied(members: &mut [Member], policy: &mut Policy) -> anyhow::Result<()> {
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

pub(super) fn past(members: &mut Vec<Member>, policy: &mut Policy) -> anyhow::Result<()> {
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

/// From the fork on each counts for herself, in memory and on her own disk.
pub(super) fn differ(members: &mut [Member]) -> anyhow::Result<()> {
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

fn identity(hostname: &str) -> IdentitySpec {
    IdentitySpec {
        hostname: hostname.to_owned(),
        env: vec![("BROOD_NAME".to_owned(), hostname.to_owned())],
        read_frozen: Some(IN_MEMORY.to_owned()),
        ..IdentitySpec::default()
    }
}
