//! What can be seen of a process from outside, in /proc (man 5 proc).
//!
//! Invariant: looking changes nothing; a process that is gone reads as absent, never as an error.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long [`settle`] gives a condition; emulated hosts are slow, so only a broken one waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory of a process that is its own and not the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateMemory {
    /// Mappings, the guest's included.
    pub mappings: usize,
    /// Address space outside of guest RAM, in KiB.
    pub mapped_kib: u64,
    /// Anonymous pages outside of guest RAM, shared with a forked relative or not, in KiB.
    pub anonymous_kib: u64,
}

/// The processes that have `pid` as their parent, zombies included.
pub fn children_of(pid: u32) -> Vec<u32> {
    numbers_in("/proc")
        .into_iter()
        .filter(|child| parent_of(*child) == Some(pid))
        .collect()
}

/// All tasks of a process.
pub fn tasks_of(pid: u32) -> Vec<u32> {
    numbers_in(&format!("/proc/{pid}/task"))
}

/// The threads of a process, without those that KVM puts there for its own work.
pub fn threads_of(pid: u32) -> Vec<u32> {
    let tasks = format!("/proc/{pid}/task");
    let is_kvms = |thread: &u32| {
        fs::read_to_string(format!("{tasks}/{thread}/comm"))
            .is_ok_and(|name| name.starts_with("kvm"))
    };
    numbers_in(&tasks)
        .into_iter()
        .filter(|thread| !is_kvms(thread))
        .collect()
}

/// The state letter of a process (R, S, D, Z, …), or none if there is no such process.
pub fn state_of(pid: u32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

/// Whether the process exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// What each descriptor of a process leads to, in order of their numbers.
pub fn descriptors(pid: u32) -> Vec<(u32, PathBuf)> {
    let directory = format!("/proc/{pid}/fd");
    let mut found: Vec<_> = numbers_in(&directory)
        .into_iter()
        .filter_map(|fd| Some((fd, fs::read_link(format!("{directory}/{fd}")).ok()?)))
        .collect();
    found.sort();
    found
}

/// The memory of a cell outside of the `guest_bytes` of RAM its guest has.
///
/// Guest RAM is the run of adjacent read-write mappings without file, or of the sealed image, whose length is `guest_bytes`.
///
/// # Panics
/// The process is gone, or has no such run.
pub fn private_memory(pid: u32, guest_bytes: u64) -> PrivateMemory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps of a living process");
    let mappings = parse(&text);
    let ram = run_of(&mappings, guest_bytes).expect("a run of mappings as long as guest RAM");
    let outside = || {
        mappings
            .iter()
            .enumerate()
            .filter(|(at, _)| !ram.contains(at))
            .map(|(_, mapping)| mapping)
    };
    PrivateMemory {
        mappings: mappings.len(),
        mapped_kib: outside()
            .map(|mapping| (mapping.end - mapping.start) >> 10)
            .sum(),
        anonymous_kib: outside().map(|mapping| mapping.anonymous_kib).sum(),
    }
}

/// Waits until `reached` says so, looking again and again.
///
/// # Panics
/// It does not within a minute.
pub fn settle(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

struct Mapping {
    start: u64,
    end: u64,
    is_ram_like: bool,
    anonymous_kib: u64,
}

fn parse(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, end)) = first.split_once('-') {
            let number = |text| u64::from_str_radix(text, 16).expect("an address in smaps");
            let is_private = words
                .next()
                .is_some_and(|rights| rights.starts_with("rw-p"));
            let path = words.nth(3).unwrap_or_default();
            let is_ram_like =
                is_private && (path.is_empty() || path.starts_with("/memfd:brood-ram"));
            let (start, end) = (number(start), number(end));
            mappings.push(Mapping {
                start,
                end,
                is_ram_like,
                anonymous_kib: 0,
            });
        } else if let ("Anonymous:", Some(mapping)) = (first, mappings.last_mut()) {
            mapping.anonymous_kib = words
                .next()
                .and_then(|kib| kib.parse().ok())
                .expect("KiB in smaps");
        }
    }
    mappings
}

/// Which mappings are guest RAM: neighbours that look like it and together are as long.
fn run_of(mappings: &[Mapping], bytes: u64) -> Option<std::ops::Range<usize>> {
    (0..mappings.len()).find_map(|first| {
        let start = mappings.get(first)?.start;
        let mut at = start;
        for (index, mapping) in mappings.iter().enumerate().skip(first) {
            if mapping.start != at || !mapping.is_ram_like || mapping.end - start > bytes {
                return None;
            }
            at = mapping.end;
            if at - start == bytes {
                return Some(first..index + 1);
            }
        }
        None
    })
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_field(pid, 1)?.parse().ok()
}

/// A field of /proc/PID/stat, counted from the one behind the name (man 5 proc_pid_stat).
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(index)
        .map(str::to_owned)
}

fn numbers_in(directory: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}
