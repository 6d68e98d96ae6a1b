//! Running programs: with their output shown, with their output read, and with a limit on time.
//!
//! Invariant: a program that runs past its limit is killed together with everything it started.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Says what happens next, on standard error.
pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}

/// Runs a program with its output shown, says how long it took, and refuses a status other than zero.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    let status = status(what, command)?;
    if status != 0 {
        bail!("{what}: {} ended with status {status}", name_of(command));
    }
    Ok(())
}

/// Runs a program with its output shown, says how long it took, and returns its status as a shell would give it.
pub(crate) fn status(what: &str, command: &mut Command) -> Result<u8> {
    say(what);
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("starting {}", name_of(command)))?;
    eprintln!("    {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(shell_status(status))
}

/// Runs a program to its end and returns its standard output; its standard error is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {}", name_of(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} ended with status {}: {}",
            name_of(command),
            shell_status(output.status),
            said.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} wrote something that is not UTF-8", name_of(command)))
}

/// Whether a program ended well; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Tells the watchdog of a child what to do next.
pub(crate) enum Leash {
    /// From now on the child has so much time.
    Within(Duration),
    /// The child has ended.
    Ended,
}

/// Waits for a child, and kills it with all its descendants when the limit has passed. `None`: it was killed for that.
pub(crate) fn wait_at_most(child: Child, limit: Duration) -> Result<Option<u8>> {
    let (leash, orders) = channel();
    wait_on_leash(child, limit, leash, orders)
}

/// Like [`wait_at_most`], with a limit that whoever else holds the sender may set anew while the child runs.
pub(crate) fn wait_on_leash(
    mut child: Child,
    first: Duration,
    leash: Sender<Leash>,
    orders: Receiver<Leash>,
) -> Result<Option<u8>> {
    let root = child.id();
    let watchdog = thread::spawn(move || {
        let mut limit = first;
        loop {
            match orders.recv_timeout(limit) {
                Ok(Leash::Within(next)) => limit = next,
                Ok(Leash::Ended) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        kill_tree(root);
        true
    });
    let status = child.wait().context("waiting for a child")?;
    // A watchdog that is gone already has done its duty.
    leash.send(Leash::Ended).ok();
    let expired = watchdog.join().unwrap_or(false);
    Ok((!expired).then(|| shell_status(status)))
}

/// A status as a shell gives it: the exit code, or 128 and the signal.
pub(crate) fn shell_status(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn name_of(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Kills a process and all that descend from it. The list is taken before the first kill, since orphans lose their parent.
fn kill_tree(root: u32) {
    for pid in tree(root, &parents()) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::KILL))
            && error != rustix::io::Errno::SRCH
        {
            eprintln!("    a process of the overdue program could not be killed: {error}");
        }
    }
}

/// The root and its descendants among (process, parent) pairs.
fn tree(root: u32, parents: &[(u32, u32)]) -> BTreeSet<u32> {
    let mut members = BTreeSet::from([root]);
    let mut known = 0;
    while known < members.len() {
        known = members.len();
        let children = parents
            .iter()
            .filter(|(_, parent)| members.contains(parent))
            .map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        members.extend(children);
    }
    members
}

/// (process, parent) of every process that /proc shows.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter_map(|stat| pid_and_parent(&stat)).collect()
}

/// man 5 proc_pid_stat: `pid (comm) state ppid …`, where comm may hold spaces and parentheses.
fn pid_and_parent(stat: &str) -> Option<(u32, u32)> {
    let (pid, rest) = stat.split_once(' ')?;
    let parent = rest.rsplit_once(") ")?.1.split(' ').nth(1)?;
    Some((pid.parse().ok()?, parent.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_is_found_behind_a_hostile_process_name() {
        assert_eq!(pid_and_parent("77 (a) R 1 (b) S 42 77 0"), Some((77, 42)));
        assert_eq!(pid_and_parent("garbage"), None);
    }

    #[test]
    fn tree_holds_grandchildren_and_no_strangers() {
        let parents = [(4, 3), (2, 1), (3, 2), (9, 8), (8, 1)];
        assert_eq!(tree(2, &parents), BTreeSet::from([2, 3, 4]));
    }

    #[test]
    fn overdue_program_is_killed_with_what_it_started() {
        let mut program = Command::new("sh");
        program
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(std::process::Stdio::piped());
        let mut child = program.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_eq!(wait_at_most(child, Duration::from_millis(1)).unwrap(), None);
        // The pipe reports its end only once the grandchild, its last writer, is gone.
        assert_eq!(
            std::io::Read::read_to_string(&mut stdout, &mut line).unwrap(),
            0
        );
    }

    #[test]
    fn leash_can_be_made_longer_while_the_program_runs() {
        let (leash, orders) = channel();
        leash.send(Leash::Within(Duration::from_secs(600))).unwrap();
        let child = Command::new("sh")
            .args(["-c", "sleep 0.2; exit 4"])
            .spawn()
            .unwrap();
        let status = wait_on_leash(child, Duration::from_millis(1), leash, orders);
        assert_eq!(status.unwrap(), Some(4));
    }

    #[test]
    fn punctual_program_keeps_its_status() {
        let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        assert_eq!(
            wait_at_most(child, Duration::from_secs(600)).unwrap(),
            Some(7)
        );
        let child = Command::new("sh")
            .args(["-c", "kill -TERM $$"])
            .spawn()
            .unwrap();
        assert_eq!(
            wait_at_most(child, Duration::from_secs(600)).unwrap(),
            Some(128 + 15)
        );
    }
}
