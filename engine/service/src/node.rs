//! What this host has to offer to daughters, measured.
//!
//! Invariant: capacity is what the kernel says is free, not what was promised to anybody. A measurement is used for
//! `FRESH` and no longer, less what was placed since. Looking changes nothing.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use brood_hooks::placement::{Amounts, Candidate};

use crate::path::Node;

/// What a daughter is expected to write of her memory soon, MiB: she shares the rest with her mother.
const DAUGHTER_MIB: u32 = 32;

/// How old a measurement may be. One costs about 100 µs, a good part of a fork; a burst of forks needs one, not each its own.
const FRESH: Duration = Duration::from_millis(100);

/// This host, as it was measured a moment ago.
#[derive(Default)]
pub struct Gauge(Mutex<Option<Reading>>);

struct Reading {
    at: Instant,
    node: Node,
    /// Daughters placed since, who are not in what the kernel says yet.
    placed: u32,
}

impl Gauge {
    /// What is free on this host, see [`here`].
    ///
    /// # Errors
    /// /proc or the directory cannot be read.
    pub fn here(&self, layers: &Path, resident_mib: u32, tenant_live: u32) -> anyhow::Result<Node> {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = reading.take().filter(|one| one.at.elapsed() < FRESH);
        let one = match fresh {
            Some(one) => one,
            None => Reading {
                at: Instant::now(),
                node: here(layers, 0, 0)?,
                placed: 0,
            },
        };
        let one = reading.insert(one);
        let mut node = one.node.clone();
        let taken = one.placed.saturating_mul(DAUGHTER_MIB);
        node.room = node.room.saturating_sub(one.placed);
        let candidate = &mut node.candidate;
        candidate.free.memory_mib = candidate.free.memory_mib.saturating_sub(taken);
        candidate.parent_resident_mib = resident_mib;
        candidate.tenant_live = tenant_live;
        Ok(node)
    }

    /// Counts daughters who found their places here.
    pub fn place(&self, daughters: u32) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = reading.as_mut() {
            reading.placed = reading.placed.saturating_add(daughters);
        }
    }
}

/// What is free on this host, in one place. `layers` is the directory that disks grow in; `resident_mib` is the mother's
/// memory that is here already, `tenant_live` the tenant's machines.
///
/// # Errors
/// /proc or the directory cannot be read.
pub fn here(layers: &Path, resident_mib: u32, tenant_live: u32) -> anyhow::Result<Node> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let available = available_mib(&read("/proc/meminfo")?).context("MemAvailable is missing")?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let load = load_milli(&read("/proc/loadavg")?).unwrap_or(0) / cpus;
    // A kernel without pressure information has none to report (CONFIG_PSI).
    let pressure = fs::read_to_string("/proc/pressure/memory").unwrap_or_default();
    let disk =
        rustix::fs::statvfs(layers).with_context(|| format!("looking at {}", layers.display()))?;
    let disk_mib = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
    Ok(Node {
        candidate: Candidate {
            node: 0,
            numa: 0,
            warm_shells: 0,
            free: Amounts {
                vcpu_milli: cpus.saturating_mul(1000),
                memory_mib: available,
                disk_mib: u32::try_from(disk_mib).unwrap_or(u32::MAX),
            },
            parent_resident_mib: resident_mib,
            cpu_load: u16::try_from(load).unwrap_or(u16::MAX).min(1000),
            memory_pressure: some_avg10_milli(&pressure),
            tenant_live,
            labelset: 0,
        },
        room: available / DAUGHTER_MIB,
        labels: Vec::new(),
    })
}

fn available_mib(meminfo: &str) -> Option<u32> {
    let line = meminfo
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    u32::try_from(kib >> 10).ok()
}

/// The load of the last minute, 1/1000 of a CPU (man 5 proc_loadavg).
fn load_milli(loadavg: &str) -> Option<u32> {
    milli(loadavg.split_whitespace().next()?)
}

/// 1/1000 of the last ten seconds in which something waited for memory (Linux, Documentation/accounting/psi.rst).
fn some_avg10_milli(pressure: &str) -> u16 {
    let some = pressure
        .lines()
        .find_map(|line| line.strip_prefix("some avg10="));
    let percent = some.and_then(|rest| milli(rest.split_whitespace().next()?));
    // Percent in 1/1000 are ten times what is wanted, 1/1000 of the time.
    percent.map_or(0, |percent| u16::try_from(percent / 100).unwrap_or(1000))
}

/// A decimal fraction in 1/1000, cut off.
fn milli(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u32 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_become_the_units_that_policies_see() {
        assert_eq!(
            available_mib("MemTotal: 9 kB\nMemAvailable:   4194304 kB\n"),
            Some(4096)
        );
        assert_eq!(load_milli("1.25 0.80 0.50 1/200 99\n"), Some(1250));
        let pressure = "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=99.00\n";
        assert_eq!(some_avg10_milli(pressure), 125);
        assert_eq!(some_avg10_milli(""), 0);
    }

    #[test]
    fn daughters_placed_since_the_measurement_are_taken_off_it_and_the_next_knows_them_itself() {
        let gauge = Gauge::default();
        let look = || gauge.here(Path::new("/"), 7, 3).expect("a host");
        let before = look();
        gauge.place(5);
        let after = look();
        assert_eq!(after.room, before.room - 5);
        let free = |node: &Node| node.candidate.free.memory_mib;
        assert_eq!(free(&after), free(&before) - 5 * DAUGHTER_MIB);
        let seen = (
            after.candidate.parent_resident_mib,
            after.candidate.tenant_live,
        );
        assert_eq!(seen, (7, 3));
        if let Some(reading) = gauge.0.lock().expect("sound").as_mut() {
            reading.at -= FRESH;
        }
        let placed = |gauge: &Gauge| {
            gauge
                .0
                .lock()
                .expect("sound")
                .as_ref()
                .map(|one| one.placed)
        };
        assert_eq!(placed(&gauge), Some(5));
        look();
        assert_eq!(placed(&gauge), Some(0));
    }

    #[test]
    fn this_host_has_something_to_offer() {
        let node = here(Path::new("/"), 7, 3).expect("a host");
        assert!(node.candidate.free.memory_mib > 0 && node.candidate.free.vcpu_milli >= 1000);
        assert_eq!(node.room, node.candidate.free.memory_mib / DAUGHTER_MIB);
    }
}
