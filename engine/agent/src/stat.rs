//! Figures out of `/proc`. Invariant: a process that ends while it is looked at, or a field that is missing, gives a
//! neutral answer, never an error.

use std::fs;

use brood_agent_proto::stat::Stats;

/// include/linux/sched.h
const PF_KTHREAD: u64 = 0x0020_0000;

/// Threads of a process looked at when searching for one that does not freeze.
const MOST_THREADS: usize = 1024;

/// Whether some thread of a process keeps it from freezing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// A thread runs or sleeps uninterruptibly.
    Busy,
    /// All threads sleep or are stopped, as frozen ones do.
    Idle,
}

/// The fields of `/proc/PID/stat` from `state` on (proc_pid_stat(5), field 3); the name before them may hold anything.
fn fields(path: &str) -> Vec<String> {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| {
            let (_, rest) = text.rsplit_once(')')?;
            Some(rest.split_whitespace().map(str::to_owned).collect())
        })
        .unwrap_or_default()
}

/// Whether `pid` is a thread of the kernel's own.
pub(crate) fn is_kernel_thread(pid: u32) -> bool {
    // Field 9 is the kernel's flags word; `state` is field 3.
    fields(&format!("/proc/{pid}/stat"))
        .get(6)
        .and_then(|flags| flags.parse::<u64>().ok())
        .is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// Whether some thread of `pid` runs or sleeps uninterruptibly.
pub(crate) fn task_state(pid: u32) -> TaskState {
    let busy = fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| {
        tasks.flatten().take(MOST_THREADS).any(|task| {
            let state = fields(&task.path().join("stat").to_string_lossy());
            matches!(state.first().map(String::as_str), Some("D" | "R"))
        })
    });
    if busy {
        TaskState::Busy
    } else {
        TaskState::Idle
    }
}

/// The command name of `pid`, or "?" if it ended.
pub(crate) fn comm(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/comm")).map_or_else(
        |_| "?".to_owned(),
        |name| String::from_utf8_lossy(&name).trim_end().to_owned(),
    )
}

/// Figures of the guest.
pub(crate) fn stats(exec_sessions: usize) -> Stats {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let mut load_milli = load.split_whitespace().map(milli);
    Stats {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: uptime.split_whitespace().next().map_or(0, milli),
        load_milli: std::array::from_fn(|_| {
            u32::try_from(load_milli.next().unwrap_or(0)).unwrap_or(u32::MAX)
        }),
        mem_total_kib: kib(&meminfo, "MemTotal"),
        mem_free_kib: kib(&meminfo, "MemFree"),
        mem_available_kib: kib(&meminfo, "MemAvailable"),
        mem_cached_kib: kib(&meminfo, "Cached"),
        mem_shmem_kib: kib(&meminfo, "Shmem"),
        processes: process_count(),
        exec_sessions: u32::try_from(exec_sessions).unwrap_or(u32::MAX),
        agent_rss_kib: kib(&status, "VmRSS"),
    }
}

fn process_count() -> u32 {
    let numeric = |name: &std::ffi::OsStr| {
        name.to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let count = fs::read_dir("/proc").map_or(0, |entries| {
        entries
            .flatten()
            .filter(|entry| numeric(&entry.file_name()))
            .count()
    });
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The value of `key` in `KEY: VALUE kB` lines.
fn kib(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// A decimal number with up to three places, in thousandths.
fn milli(number: &str) -> u64 {
    let (whole, places) = number.split_once('.').unwrap_or((number, ""));
    let thousandths: String = places.chars().chain("000".chars()).take(3).collect();
    whole
        .parse::<u64>()
        .unwrap_or(0)
        .saturating_mul(1000)
        .saturating_add(thousandths.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_thousandths() {
        assert_eq!(milli("12.34"), 12_340);
        assert_eq!(milli("0.05"), 50);
        assert_eq!(milli("7"), 7000);
        assert_eq!(milli("garbage"), 0);
    }

    #[test]
    fn meminfo_lines_are_found_by_their_whole_name() {
        let text = "MemTotal:  100 kB\nSwapCached: 1 kB\nCached:   7 kB\n";
        assert_eq!(kib(text, "Cached"), 7);
        assert_eq!(kib(text, "Absent"), 0);
    }

    #[test]
    fn this_test_is_a_process_with_memory_and_no_kernel_thread() {
        let stats = stats(3);
        assert!(stats.mem_total_kib > 0 && stats.processes > 0 && stats.agent_rss_kib > 0);
        assert!(stats.uptime_ms > 0);
        assert!(!is_kernel_thread(std::process::id()));
        assert_eq!(task_state(std::process::id()), TaskState::Busy);
    }
}
