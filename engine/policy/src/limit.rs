//! Limits of a binding, with their defaults.
//!
//! Invariant: a default lets a policy of ordinary size through with an order of magnitude to spare, and ends one that
//! runs away within milliseconds.

use brood_hooks::HookName;
use serde::{Deserialize, Serialize};

/// What one call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Fuel, in units of wasmtime, about one a Wasm instruction. The budget: exact, and the same in a replay.
    pub fuel: u64,
    /// The backstop, milliseconds by the clock: for a budget of fuel that is too high, and for a host that is too slow.
    pub deadline_ms: u64,
    /// Each linear memory, MiB.
    pub memory_mib: u32,
    /// All tables together, elements.
    pub table_elements: u32,
    /// Bytes that the component may hand to the host in one call: its answer, or the arguments of an import.
    pub answer_kib: u32,
    /// Calls of imports.
    pub host_calls: u32,
    /// Bytes of state and settings that the host hands to the component, KiB.
    pub host_answer_kib: u32,
    /// Lines of log; more are dropped and counted.
    pub log_lines: u32,
    /// Bytes of log, KiB; more are dropped and counted.
    pub log_kib: u32,
}

impl Limits {
    /// The defaults of a hook.
    pub const fn of(hook: HookName) -> Self {
        let (fuel, deadline_ms) = match hook {
            HookName::Admission => (2_000_000, 5),
            // Two patches each for 2000 daughters, nearly all that is taken, cost the shipped component 4.2 million.
            HookName::Mutation => (5_000_000, 5),
            HookName::Placement => (10_000_000, 5),
            HookName::Billing => (100_000_000, 1000),
        };
        Self {
            fuel,
            deadline_ms,
            memory_mib: 16,
            table_elements: 20_000,
            answer_kib: 1024,
            host_calls: 4096,
            host_answer_kib: 4096,
            log_lines: 64,
            log_kib: 16,
        }
    }
}

/// How many calls of a binding run and wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// At once.
    pub running: u32,
    /// More than these are refused as overloaded.
    pub waiting: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            running: 2,
            waiting: 256,
        }
    }
}

/// When repeated failures stop the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures within the window that open it.
    pub failures: u32,
    /// The window, milliseconds.
    pub window_ms: u64,
    /// How long it stays open before one call is tried, milliseconds.
    pub open_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            window_ms: 10_000,
            open_ms: 5_000,
        }
    }
}
