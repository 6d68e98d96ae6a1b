//! The fork protocol: quiesce → fork → stamp → confirm → thaw. Invariant: no instruction of the workload runs in a
//! daughter before its identity is applied and confirmed, and nothing but a message thaws a workload.
//!
//! ```text
//!            Quiesce{token}                      Thaw{token}, same connection: the mother only
//!  Running ────────────────▶ Quiesced ───────────────────────────────────────────────▶ Running
//!                               │ Stamp{token,…}, another connection
//!                               ▼                 Confirm, same         ThawStamped{id}, same
//!                            Stamped ──────────▶ Confirmed ──────────────────────────▶ Running
//!                               │ a step failed
//!                               ▼
//!                             Failed (for good)
//! ```
//!
//! A daughter never has the connection on which its mother was quiesced, so a thaw meant for the mother cannot thaw
//! her. Where that connection has ended, `Release` thaws the mother: an engine that takes machines over sends it to those
//! that it knows to be stamped, and to nobody else. A machine that was stamped but not thawed may be forked again: its daughters are stamped with the same token.

use std::fmt;

use brood_units::MachineId;
use serde::{Deserialize, Serialize};

use crate::blob::{Blob, EnvMap};

/// Names one quiesce. Random; `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkToken(pub [u8; 16]);

impl fmt::Debug for ForkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForkToken(..)")
    }
}

/// 64 bytes from the host's random number generator, used by one daughter only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed([u8; 32], [u8; 32]);

impl Seed {
    /// A seed of these bytes.
    pub fn new(bytes: [u8; 64]) -> Self {
        let (mut low, mut high) = ([0; 32], [0; 32]);
        low.iter_mut()
            .zip(bytes.iter())
            .for_each(|(to, from)| *to = *from);
        high.iter_mut()
            .zip(bytes.iter().skip(32))
            .for_each(|(to, from)| *to = *from);
        Self(low, high)
    }

    /// The bytes.
    pub fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes
            .iter_mut()
            .zip(self.0.iter().chain(self.1.iter()))
            .for_each(|(to, from)| *to = *from);
        bytes
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A boot id, shown as a UUID like `/proc/sys/kernel/random/boot_id` (random(4)).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the freezing took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuiesceReport {
    /// From the request to the last process frozen, nanoseconds.
    pub took_ns: u64,
    /// Top-level cgroups frozen.
    pub cgroups: u32,
}

/// What becomes of `/etc/ssh/ssh_host_*_key`. Nothing is done where no such key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SshHostKeys {
    /// Each key is made anew with `ssh-keygen`, of the same type. An RSA key costs some hundred milliseconds. Where
    /// the guest has no `ssh-keygen` the keys stay, and the stamp's report says so.
    Regenerate,
    /// Keys are removed, for the guest's own service to make at its next start.
    Remove,
    /// Mother and daughters share the keys.
    Keep,
}

/// A file to put into a daughter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampFile {
    /// Its absolute path; missing directories are made.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its contents. A whole stamp fits in one frame; longer files are written with a file write before confirm.
    pub bytes: Blob,
}

/// A program to run in a daughter before it is thawed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// The identity of a daughter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampSpec {
    /// The daughter.
    pub machine_id: MachineId,
    /// Whom it was forked from.
    pub mother: Option<MachineId>,
    /// Forks between the first machine of the lineage and this one.
    pub generation: u32,
    /// Which of its sisters of one fork it is.
    pub fork_index: u32,
    /// Its hostname (hostname(7)): 1 to 64 bytes of letters, digits, `-` and `.`.
    pub hostname: String,
    /// The host's `CLOCK_REALTIME` as the message is sent, nanoseconds since the epoch.
    pub wall_clock_ns: u64,
    /// The host's `CLOCK_MONOTONIC` at the same moment; comes back in the report, so that the error of the clock that
    /// was set is at most the time the stamp took.
    pub host_monotonic_ns: u64,
    /// Fresh randomness.
    pub seed: Seed,
    /// What `/proc/sys/kernel/random/boot_id` shall show.
    pub boot_id: BootId,
    /// Variables for later exec sessions, replacing those of the mother's own stamp of the same name.
    pub env: EnvMap,
    /// Files to write.
    pub files: Vec<StampFile>,
    /// What becomes of SSH host keys.
    pub ssh_host_keys: SshHostKeys,
    /// Programs to run after the guest's own `/etc/brood/fork.d`.
    pub commands: Vec<StampCommand>,
    /// The longest that all programs of the stamp (`ssh-keygen`, hooks, commands) may run together, milliseconds.
    pub hook_timeout_ms: u32,
}

/// A step of the stamp, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StampStep {
    /// Checking the stamp as a whole, before anything changes.
    Validate,
    /// Crediting the kernel's generator with the seed and reseeding it.
    Entropy,
    /// Setting `CLOCK_REALTIME`.
    Clock,
    /// The kernel's hostname and `/etc/hostname`.
    Hostname,
    /// `/etc/machine-id`.
    MachineId,
    /// The boot id.
    BootId,
    /// `/run/brood/env`.
    Env,
    /// `/run/brood/identity.json`.
    Identity,
    /// SSH host keys.
    SshHostKeys,
    /// The given files.
    Files,
    /// The counter in `/run/brood/generation`.
    Generation,
    /// The programs in `/etc/brood/fork.d`.
    Hooks,
    /// The given commands.
    Commands,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step.
    pub step: StampStep,
    /// How long it took, nanoseconds.
    pub took_ns: u64,
    /// What it applied, in a few words.
    pub applied: String,
}

/// What a stamp did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampReport {
    /// Every step taken, in order.
    pub steps: Vec<StepReport>,
    /// `CLOCK_REALTIME` before it was set, nanoseconds since the epoch.
    pub clock_before_ns: u64,
    /// `CLOCK_REALTIME` right after it was set.
    pub clock_after_ns: u64,
    /// [`StampSpec::host_monotonic_ns`].
    pub host_monotonic_ns: u64,
}

/// What a daughter says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmReport {
    /// uname(2).
    pub hostname: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// 32 bytes of getrandom(2).
    pub random: [u8; 32],
    /// `CLOCK_REALTIME`, nanoseconds since the epoch.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub monotonic_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_shows_as_a_uuid() {
        let id = BootId(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef");
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn a_seed_keeps_all_64_bytes_and_shows_none() {
        let bytes: [u8; 64] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(Seed::new(bytes).bytes(), bytes);
        assert_eq!(format!("{:?}", Seed::new(bytes)), "Seed(..)");
    }
}
