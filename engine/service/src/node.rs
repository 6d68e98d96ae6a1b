//! What this host has to offer to daughters, measured as the request comes.
//!
//! Invariant: capacity is what the kernel says is free, not what was promised to anybody. Looking changes nothing.

use std::fs;
use std::path::Path;

use anyhow::Context;
use brood_hooks::placement::{Amounts, Candidate};

use crate::path::Node;

/// What a daughter is expected to write of her memory soon, MiB: she shares the rest with her mother.
const DAUGHTER_MIB: u32 = 32;

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
    fn this_host_has_something_to_offer() {
        let node = here(Path::new("/"), 7, 3).expect("a host");
        assert!(node.candidate.free.memory_mib > 0 && node.candidate.free.vcpu_milli >= 1000);
        assert_eq!(node.room, node.candidate.free.memory_mib / DAUGHTER_MIB);
    }
}
