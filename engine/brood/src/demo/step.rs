//! The steps of the demo, each of which shows one thing and fails if it is not so.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::command::Command;

const DAUGHTERS: usize = 8;
/// More than the policy allows in one request.
const TOO_MANY: &str = "65";
/// Counts as long as it lives, one line a step, under the host name of that moment: on disk, then in memory.
const WORKLOAD: &str = "mkdir -p /data && mount -t ext4 /dev/vda /data && i=0 && \
    while read h < /proc/sys/kernel/hostname; do i=$((i+1)); echo $h $i >> /data/count; echo $h $i >> /run/count; done";
/// Who somebody is, randomness of her own, and where she began to count for herself, in memory and on disk.
const WHO: &str = "h=$(uname -n); echo $h; cat /proc/sys/kernel/random/uuid; \
    until grep -qs \"^$h \" /data/count && grep -qs \"^$h \" /run/count; do :; done; \
    grep -m 1 \"^$h \" /run/count; grep -m 1 \"^$h \" /data/count";
/// How far somebody has counted.
const LAST: &str = "tail -qn 1 /run/count 2>/dev/null | cut -d ' ' -f 2";

/// What a fork has brought.
pub(super) struct Fork {
    answer: Value,
    took_us: f64,
}

impl Fork {
    pub(super) fn timing(&self) -> Value {
        let mut timing = self.answer["timing"].clone();
        if let Some(timing) = timing.as_object_mut() {
            timing.insert("command_us".to_owned(), self.took_us.into());
        }
        timing
    }

    fn daughters(&self) -> impl Iterator<Item = &str> {
        let all = self.answer["daughters"].as_array();
        let ids = all.into_iter().flatten();
        ids.filter_map(|one| one["machine"]["id"].as_str())
    }
}

/// Microseconds until a machine of a template that has never run answers.
pub(super) fn boot(brood: &Command) -> anyhow::Result<f64> {
    brood.does(&["template", "create", "debian", "--memory", "256"])?;
    let (_, took) = brood.does(&["create", "debian", "--name", "mother"])?;
    let kernel = exec(brood, "mother", "uname -sr")?;
    println!(
        "  {} is up, sealed and claimed after {:.0} ms",
        kernel.trim(),
        took / 1e3
    );
    Ok(took)
}

pub(super) fn start_workload(brood: &Command) -> anyhow::Result<()> {
    brood.does(&[
        "exec",
        "mother",
        "--detach",
        "--timeout",
        "1h",
        "--",
        "sh",
        "-c",
        WORKLOAD,
    ])?;
    while exec(brood, "mother", LAST)?.trim().is_empty() {}
    println!("  she stands at {}", exec(brood, "mother", LAST)?.trim());
    Ok(())
}

fn fork(brood: &Command, arguments: &[&str]) -> anyhow::Result<Fork> {
    let (answer, took_us) = brood.does(arguments)?;
    let millis = |what: &str| answer["timing"][what].as_f64().unwrap_or(0.0) / 1e3;
    let pause = match answer["timing"]["mother_pause_us"].as_f64() {
        Some(pause) => format!(", of which she stood still for {pause:.0} us"),
        None => String::new(),
    };
    println!(
        "  {} of {}: policies {:.1} ms, fork, stamps and commit {:.1} ms{pause}; {:.0} ms with the command",
        answer["ready"],
        answer["requested"],
        millis("decided_us"),
        millis("forked_us"),
        took_us / 1e3
    );
    Ok(Fork { answer, took_us })
}

pub(super) fn fork_live(brood: &Command) -> anyhow::Result<Fork> {
    let forked = fork(
        brood,
        &["fork", "mother", "-n", "8", "--label", "family=eight"],
    )?;
    let ready = forked.daughters().count();
    ensure!(ready == DAUGHTERS, "{ready} daughters of {DAUGHTERS}");
    Ok(forked)
}

/// What was said of a fork, as its record has it.
pub(super) fn decisions(brood: &Command, fork: &Fork) -> anyhow::Result<Value> {
    let intent = fork.answer["intent"].as_str().context("no intent")?;
    println!("{}", brood.show(&["policy", "decisions", intent])?);
    Ok(brood.quietly(&["policy", "decisions", intent])?["items"].clone())
}

/// Each daughter is somebody else, and all of them come from one point.
pub(super) fn talk(brood: &Command, fork: &Fork, boot_us: f64) -> anyhow::Result<Value> {
    let (mut answers, mut began, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for id in fork.daughters() {
        let said = exec(brood, id, WHO)?;
        let lines: Vec<&str> = said.lines().collect();
        let [name, random, memory, disk] = lines.as_slice() else {
            anyhow::bail!("a daughter says: {said}");
        };
        println!("  {name}: randomness {random}, counts on from '{memory}', on disk from '{disk}'");
        began.push(count(memory)?);
        names.push(((*name).to_owned(), (*random).to_owned()));
        answers.push(
            json!({ "id": id, "hostname": name, "count": count(memory)?, "on_disk": count(disk)? }),
        );
        brood.quietly(&["pause", id])?;
    }
    let first = began.first().copied().unwrap_or_default();
    ensure!(
        began.iter().all(|count| *count == first),
        "one point, one count: {began:?}"
    );
    let (names, random): (std::collections::BTreeSet<_>, std::collections::BTreeSet<_>) =
        names.into_iter().unzip();
    ensure!(
        names.len() == DAUGHTERS && random.len() == DAUGHTERS,
        "two daughters are the same"
    );
    println!(
        "  all came from one count, {first}; the fork took {:.0} ms for all of them, one boot took {:.0} ms",
        fork.took_us / 1e3,
        boot_us / 1e3
    );
    Ok(answers.into())
}

/// A fork that the policy denies, in the plugin's own words; the machine runs on.
pub(super) fn denied(brood: &Command) -> anyhow::Result<Value> {
    let (problem, status) = brood.refused(&["fork", "mother", "-n", TOO_MANY])?;
    ensure!(problem["code"] == "denied", "{problem}");
    println!(
        "  exit status {status}, {}: {}",
        problem["denial"]["binding"].as_str().unwrap_or_default(),
        problem["detail"].as_str().unwrap_or_default()
    );
    let before = last(brood)?;
    let after = until(brood, before + 1)?;
    println!("  the mother runs on: count {before}, then {after}");
    Ok(problem["denial"].clone())
}

pub(super) fn granddaughter(brood: &Command, family: &Fork) -> anyhow::Result<()> {
    let daughter = family.daughters().next().context("no daughter")?;
    brood.does(&["resume", daughter])?;
    let forked = fork(brood, &["fork", daughter])?;
    let one = forked.daughters().next().context("no granddaughter")?;
    let said = exec(brood, one, WHO)?;
    println!("  {}", said.trim().replace('\n', ", "));
    brood.quietly(&["pause", one])?;
    brood.quietly(&["pause", daughter])?;
    Ok(())
}

/// A daughter of the past stands where it stood, however far her mother has come.
pub(super) fn past(brood: &Command) -> anyhow::Result<Value> {
    let (kept, _) = brood.does(&["checkpoint", "mother"])?;
    let point = kept["id"].as_str().context("no checkpoint")?;
    let at_most = last(brood)?;
    let now = until(brood, at_most + 20)?;
    let forked = fork(brood, &["fork", point])?;
    let one = forked.daughters().next().context("no daughter")?;
    let said = exec(brood, one, WHO)?;
    let began = count(said.lines().nth(2).unwrap_or_default())?;
    // Hers is the first after the point.
    ensure!(
        began <= at_most + 1 && now >= at_most + 20,
        "the past stands at {began}, the mother at {now}"
    );
    println!("  the past goes on from count {began}, the mother stands at {now}");
    brood.quietly(&["pause", one])?;
    brood.quietly(&["pause", "mother"])?;
    brood.quietly(&["kill", point])?;
    Ok(json!({ "count": began, "mother": now }))
}

pub(super) fn claim(brood: &Command) -> anyhow::Result<()> {
    let forked = fork(brood, &["fork", "--template", "debian", "-n", "2"])?;
    for id in forked.daughters() {
        let uptime = exec(brood, id, "uname -n; cut -d ' ' -f 1 /proc/uptime")?;
        println!("  {}", uptime.trim().replace('\n', ", up for s: "));
    }
    Ok(())
}

/// Counts and rates all usage until now.
pub(super) fn bill(brood: &Command) -> anyhow::Result<Value> {
    let (rated, _) = brood.does(&["usage", "rate"])?;
    ensure!(
        rated["held"] == 0 && rated["dead"] == 0,
        "not all is rated: {rated}"
    );
    println!("{}", brood.show(&["usage"])?);
    brood.quietly(&["usage"])
}

pub(super) fn end_all(brood: &Command) -> anyhow::Result<()> {
    let (ended, took) = brood.does(&["kill", "mother", "--cascade"])?;
    println!("  {} in {:.0} ms", ended, took / 1e3);
    Ok(())
}

/// What a command of a shell in a machine says.
fn exec(brood: &Command, machine: &str, line: &str) -> anyhow::Result<String> {
    brood.text(&["exec", machine, "--", "sh", "-c", line])
}

/// The number of a line of the workload.
fn count(line: &str) -> anyhow::Result<u64> {
    let number = line.split_whitespace().last();
    let number = number.with_context(|| format!("no count in '{line}'"))?;
    number
        .parse()
        .with_context(|| format!("no count in '{line}'"))
}

fn last(brood: &Command) -> anyhow::Result<u64> {
    count(&exec(brood, "mother", LAST)?)
}

/// Waits until the mother has counted so far, and says where she stands.
fn until(brood: &Command, least: u64) -> anyhow::Result<u64> {
    let line = format!("while [ $({LAST}) -lt {least} ]; do :; done; {LAST}");
    count(&exec(brood, "mother", &line)?)
}
