//! Why vCPUs do not run: before they start, and for good.

use std::io;

use serde::{Deserialize, Serialize};

use crate::vcpu_state::StateError;

/// Why a vCPU stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VcpuEnd {
    /// The guest faulted while handling a double fault.
    TripleFault,
    /// The guest asked KVM for a power-off or reset.
    SystemEvent {
        /// KVM_SYSTEM_EVENT_*.
        kind: u32,
    },
    /// KVM could not enter or emulate the guest.
    Refused {
        /// Which exit and its numbers.
        reason: String,
    },
}

/// Why vCPUs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// No thread could be made.
    #[error("cannot start a vCPU thread")]
    Thread(#[source] io::Error),
    /// A vCPU refused its state.
    #[error("vCPU {index} refused its state")]
    State {
        /// Which vCPU.
        index: u32,
        /// What it refused.
        #[source]
        source: StateError,
    },
    /// A parked vCPU's state could not be read.
    #[error("the state of vCPU {index} cannot be read")]
    Save {
        /// Which vCPU.
        index: u32,
        /// What failed.
        #[source]
        source: StateError,
    },
    /// A vCPU has ended, so there is no machine to park or resume.
    #[error("vCPU {index} has ended")]
    Ended {
        /// Which vCPU.
        index: u32,
    },
}
