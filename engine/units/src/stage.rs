//! The stages of a fork, one vocabulary for messages, metrics and benches.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One stage on the way from the fork call to the daughter's first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// From the fork call until the mother's cell has read it.
    Ask,
    /// Until every vCPU of the mother stands still.
    Park,
    /// Reading what only the kernel holds: registers, interrupt controllers, clock.
    Save,
    /// fork(2) of the cell into the frozen point.
    Clone,
    /// Until the new process has let go of everything that is its mother's.
    Part,
    /// In the daughter: a new VM over the same host addresses, its vCPUs and interrupt controllers.
    CreateVm,
    /// In the daughter: writing the saved state back, new event descriptors, queues read again.
    Restore,
    /// In the daughter: from "go" to the first guest instruction seen.
    Run,
}

impl Stage {
    /// All stages in the order they happen.
    pub const ALL: [Self; 8] = [
        Self::Ask,
        Self::Park,
        Self::Save,
        Self::Clone,
        Self::Part,
        Self::CreateVm,
        Self::Restore,
        Self::Run,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask => "ask",
            Self::Park => "park",
            Self::Save => "save",
            Self::Clone => "clone",
            Self::Part => "part",
            Self::CreateVm => "create-vm",
            Self::Restore => "restore",
            Self::Run => "run",
        })
    }
}
