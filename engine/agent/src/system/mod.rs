//! What a stamp changes in the kernel. Invariant: everything that would change the machine as a whole (clock, hostname,
//! random numbers, mounts, power) goes through [`System`], so a test on a machine that must not change can record it.

mod kernel;

use std::io;
use std::path::Path;

use brood_agent_proto::stat::{Clocks, Power};

pub use kernel::Kernel;

/// The kernel under the agent.
pub trait System: Send + Sync {
    /// Credits the kernel's random number generator with `seed` and has it reseed itself from it (random(4)).
    ///
    /// # Errors
    /// That of the ioctl.
    fn add_entropy(&self, seed: &[u8; 64]) -> io::Result<()>;

    /// Sets `CLOCK_REALTIME`, nanoseconds since the epoch.
    ///
    /// # Errors
    /// That of clock_settime(2).
    fn set_realtime(&self, realtime_ns: u64) -> io::Result<()>;

    /// Moves `CLOCK_REALTIME` by `by_ns` in one step, during which it is never read and written back: a vCPU that is
    /// descheduled half-way adds no error.
    ///
    /// # Errors
    /// That of clock_adjtime(2).
    fn step_realtime(&self, by_ns: i64) -> io::Result<()>;

    /// Reads the clocks.
    fn clocks(&self) -> Clocks;

    /// sethostname(2).
    ///
    /// # Errors
    /// That of the call.
    fn set_hostname(&self, hostname: &str) -> io::Result<()>;

    /// The hostname, uname(2).
    fn hostname(&self) -> String;

    /// Shows `file` at `target`, which exists, in place of what is there, and never two deep.
    ///
    /// # Errors
    /// That of mount(2) or umount(2).
    fn show_at(&self, file: &Path, target: &Path) -> io::Result<()>;

    /// What `/proc/sys/kernel/random/boot_id` shows, without the newline.
    ///
    /// # Errors
    /// That of reading it.
    fn boot_id(&self) -> io::Result<String>;

    /// 32 bytes of getrandom(2).
    ///
    /// # Errors
    /// That of the call.
    fn random(&self) -> io::Result<[u8; 32]>;

    /// Synchronises file systems and ends the guest. Returns only if that failed, or if somebody else has to do it.
    ///
    /// # Errors
    /// That of reboot(2).
    fn power(&self, power: Power) -> io::Result<()>;
}
