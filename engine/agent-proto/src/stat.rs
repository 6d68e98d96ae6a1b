//! Figures, clocks and power of the guest. Invariant: every figure names its unit.

use serde::{Deserialize, Serialize};

/// Figures of the guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Version of the agent's package.
    pub agent_version: String,
    /// Milliseconds since boot, `/proc/uptime`.
    pub uptime_ms: u64,
    /// Load averages over 1, 5 and 15 minutes, in thousandths.
    pub load_milli: [u32; 3],
    /// Memory of the guest, KiB.
    pub mem_total_kib: u64,
    /// Memory nobody uses, KiB.
    pub mem_free_kib: u64,
    /// Memory that could be used without swapping, KiB.
    pub mem_available_kib: u64,
    /// Page cache, KiB.
    pub mem_cached_kib: u64,
    /// Memory shared between processes and in tmpfs, KiB.
    pub mem_shmem_kib: u64,
    /// Processes, kernel threads included.
    pub processes: u32,
    /// Exec sessions, ended ones included.
    pub exec_sessions: u32,
    /// Resident memory of the agent, KiB.
    pub agent_rss_kib: u64,
}

/// The guest's clocks, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// `CLOCK_REALTIME`, since the epoch.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
}

/// How the guest is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    /// Power off.
    Off,
    /// Reboot.
    Reboot,
}
