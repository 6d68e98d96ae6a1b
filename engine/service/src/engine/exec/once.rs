//! Programs whose start is asked for again.
//!
//! ```text
//!  engine dies …       before the agent's answer   before the commit        after it
//!  a repetition finds  the session by its key, or  the session by its key   the key's answer: the number of the program
//!                      none, and starts it
//! ```
//!
//! Invariant: what is kept of a start is which program it began, in one commit with its row and the caller's key; how the
//! program is doing and what it has said is looked up for each repetition, and never kept twice.

use brood_agent_proto::exec::{ExecKey, Follow};
use brood_store::Write;
use brood_units::MachineId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ExecRow, Started, Which};
use crate::engine::once::Deed;
use crate::engine::{Caller, Engine, EngineError, Idempotency, report};

/// What is kept of a start.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) exec: u32,
}

/// The key under which an agent begins what a request is for. A daughter has her mother's sessions under their keys, so the
/// machine is drawn into it; so is the body, as an agent compares no programs.
pub(super) fn exec_key(tenant: &str, machine: MachineId, own: &Idempotency) -> ExecKey {
    let mut hash = Sha256::new();
    hash.update(machine.as_bytes());
    for text in [tenant, &own.route, &own.key] {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hash.update(own.body_hash);
    let mut key = [0; 16];
    key.iter_mut()
        .zip(hash.finalize())
        .for_each(|(to, from)| *to = from);
    ExecKey(key)
}

impl Engine {
    /// Writes down that a program was begun, with the key of whoever asked for it.
    pub(super) async fn write_start(
        &self,
        caller: &Caller,
        deed: Deed,
        row: ExecRow,
    ) -> Result<(), EngineError> {
        let write = move |write: &mut Write<'_>| -> Result<Begun, EngineError> {
            write.put_exec(&row)?;
            let data = serde_json::json!({ "exec": row.exec });
            report(write, &row.tenant, "exec.started", row.machine, &data)?;
            Ok(Begun { exec: row.exec })
        };
        self.once(caller, deed, write).await?;
        self.metrics().exec("started");
        Ok(())
    }

    /// A program that the same request has begun before, as it is now.
    pub(super) async fn shown_again(
        &self,
        caller: &Caller,
        which: Which,
    ) -> Result<Started, EngineError> {
        let exec = self.exec(caller, which).await?;
        Ok(Started { exec, ran: None })
    }

    /// The same for somebody who waits: with its output, once it has ended.
    pub(super) async fn awaited_again(
        &self,
        caller: &Caller,
        which: Which,
    ) -> Result<Started, EngineError> {
        let (agent, _) = self.program(caller, which).await?;
        let Which { machine, exec } = which;
        let row = self
            .store()
            .read(|read| read.exec(caller.tenant(), machine, exec))?;
        let row = row.ok_or_else(|| EngineError::NotFound {
            what: "exec",
            which: exec.to_string(),
        })?;
        let busy = self.busy(machine);
        let ended = self.await_end(agent, row.clone(), Follow::UntilExit).await;
        drop(busy);
        let (seen, ran) = ended?;
        Ok(Started {
            // An end that is written down stays as it was first seen.
            exec: if row.ended.is_some() { row } else { seen },
            ran: Some(ran),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_that_of_one_request_to_one_machine() {
        let own = |route: &str, key: &str, body: u8| Idempotency {
            route: route.to_owned(),
            key: key.to_owned(),
            body_hash: [body; 32],
        };
        let [one, two] = [1, 2].map(|byte| MachineId::from_bytes([byte; 16]));
        let keys = [
            exec_key("a", one, &own("r", "k", 0)),
            exec_key("a", two, &own("r", "k", 0)),
            exec_key("b", one, &own("r", "k", 0)),
            exec_key("a", one, &own("rk", "", 0)),
            exec_key("a", one, &own("r", "l", 0)),
            exec_key("a", one, &own("r", "k", 1)),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], exec_key("a", one, &own("r", "k", 0)));
    }
}
