//! What a machine costs its host right now.
//!
//! Invariant: numbers are the kernel's own, read as they are asked for (man 5 proc_pid_smaps).

use brood_units::MachineId;
use serde::{Deserialize, Serialize};

use super::life::Living;
use super::owner::After;
use super::{Caller, Engine, EngineError, Scope};
use crate::process;

/// What a machine costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsAnswer {
    /// The host process that is its cell.
    pub pid: u32,
    /// Memory that is its own, KiB.
    pub private_kib: u64,
    /// Memory with its part of what it shares, KiB (Pss).
    pub pss_kib: u64,
}

impl Engine {
    /// What a machine or checkpoint costs.
    ///
    /// # Errors
    /// There is none, it has ended, or the kernel does not say.
    pub async fn stats(&self, caller: &Caller, id: MachineId) -> Result<StatsAnswer, EngineError> {
        caller.may(Scope::Read)?;
        let living = Living::of(&self.living(caller, id)?.born);
        self.work_with(living, move |guest| {
            let pid = guest.pid();
            let told = process::memory(pid).map_err(|error| {
                let words = format!("cannot read the memory of machine {id}: {error:#}");
                EngineError::Failed(words)
            });
            let told = told.map(|memory| StatsAnswer {
                pid,
                private_kib: memory.private_kib,
                pss_kib: memory.pss_kib,
            });
            (told, After::back(guest))
        })
        .await
    }
}
