//! Time across a fork: the host's clock for timings, and what a daughter's clocks do.
//! Unsafe: one clock_gettime through libc, because `std::time::Instant` does not travel between processes.

use brood_units::Instant;
use serde::{Deserialize, Serialize};

/// Now, on the clock every process of this host shares.
pub fn now() -> Instant {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the out-pointer is a live local; CLOCK_MONOTONIC always exists.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    debug_assert_eq!(result, 0, "CLOCK_MONOTONIC exists");
    Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// What the monotonic clock of a daughter does with the time since her state was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockPolicy {
    /// It ran on meanwhile: a live fork, where mother and daughters agree.
    RunsOn,
    /// It resumes at the saved value: a checkpoint or template; only wall clock jumps, by the stamp.
    Resumes,
}

/// The host's time-stamp counter.
pub(crate) fn host_tsc() -> u64 {
    // SAFETY: rdtsc has no memory effect and every x86-64 CPU has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}
