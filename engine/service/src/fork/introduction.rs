//! The conversation in which a daughter gets her identity: connect, stamp, look, clock, confirm, thaw, first answer.
//!
//! Invariant: it is over by its deadline, whatever her agent does or does not say, and it ends in a confirmed daughter
//! or in the step that failed. It knows nothing of cells: whoever called kills her.

use std::time::{Duration, Instant as Deadline};

use anyhow::Context;
use brood_agent_proto::exec::ExecSpec;
use brood_agent_proto::fork::SshHostKeys;
use brood_agent_proto::{Client, ConfirmReport, StampReport, StampSpec, StampTicket};
use brood_cell::now;
use brood_units::{Instant, MachineId};

use super::clock::{self, Reading, wall_clock_ns};
use super::unconfirmed::{Failure, Step, at};
use super::{HostKeys, IdentitySpec};
use crate::identity;
use crate::machine::CALL_PATIENCE;

/// How long all hooks of a stamp may run, if the daughter has that long.
const HOOKS: Duration = Duration::from_secs(10);
/// The most that is read of a file in a daughter before her workload runs.
const LOOK_BYTES: u64 = 1 << 20;

/// Whom the engine talks to, and what she shall be.
pub(super) struct Introduction<'a> {
    pub(super) identity: &'a IdentitySpec,
    pub(super) ticket: &'a StampTicket,
    pub(super) mother: MachineId,
    pub(super) generation: u32,
    pub(super) index: u32,
    pub(super) deadline: Deadline,
}

/// A daughter whose workload runs.
pub(super) struct Introduced {
    pub(super) id: MachineId,
    pub(super) agent: Client,
    pub(super) stamp: StampReport,
    pub(super) confirm: ConfirmReport,
    pub(super) seen_frozen: Vec<u8>,
    pub(super) confirmed: Instant,
    pub(super) answered: Instant,
    /// Her wall clock in the exchange that confirmed her.
    pub(super) clock: Reading,
}

impl Introduction<'_> {
    /// Has the conversation over what `connect` reaches within the time it is given.
    pub(super) fn hold(
        &self,
        connect: impl FnOnce(Duration) -> anyhow::Result<Client>,
    ) -> Result<Introduced, Failure> {
        let mut spec = self.spec().map_err(at(Step::Identity))?;
        let mut client = connect(self.left()).map_err(at(Step::Connect))?;
        client.end_by(Some(self.deadline));
        spec.hook_timeout_ms = u32::try_from(HOOKS.min(self.left()).as_millis()).unwrap_or(0);
        spec.host_monotonic_ns = now().as_nanos();
        spec.wall_clock_ns = wall_clock_ns();
        let mut stamped = client.stamp(self.ticket, &spec).map_err(at(Step::Stamp))?;
        let stamp = stamped.report().clone();
        let seen_frozen = match &self.identity.read_frozen {
            Some(path) => stamped
                .client()
                .read_file_to_vec(path, LOOK_BYTES)
                .map_err(at(Step::Look))?,
            None => Vec::new(),
        };
        clock::set_right(stamped.client()).map_err(at(Step::Clock))?;
        let before = wall_clock_ns();
        let confirmed = stamped.confirm().map_err(at(Step::Confirm))?;
        let after = wall_clock_ns();
        let confirmed_at = now();
        let confirm = confirmed.report().clone();
        let mut agent = confirmed.thaw().map_err(at(Step::Thaw))?;
        agent
            .run(&ExecSpec::new(["true"]), CALL_PATIENCE, 1)
            .map_err(at(Step::Answer))?;
        let answered = now();
        agent.end_by(None);
        Ok(Introduced {
            id: spec.machine_id,
            agent,
            stamp,
            clock: Reading {
                before,
                reads: confirm.realtime_ns,
                after,
            },
            confirm,
            seen_frozen,
            confirmed: confirmed_at,
            answered,
        })
    }

    /// Who she shall be; nothing of it was ever used before.
    fn spec(&self) -> anyhow::Result<StampSpec> {
        let IdentitySpec {
            id,
            hostname,
            env,
            files,
            commands,
            entropy,
            read_frozen: _,
            host_keys,
        } = self.identity;
        let mut spec = StampSpec {
            machine_id: match id {
                Some(id) => *id,
                None => identity::machine_id()?,
            },
            mother: Some(self.mother),
            generation: self.generation,
            fork_index: self.index,
            hostname: hostname.clone(),
            wall_clock_ns: 0,
            host_monotonic_ns: 0,
            seed: identity::seed(entropy)?,
            boot_id: identity::boot_id()?,
            env: Default::default(),
            files: files.clone(),
            ssh_host_keys: match host_keys {
                HostKeys::Anew => SshHostKeys::Regenerate,
                HostKeys::Kept => SshHostKeys::Keep,
            },
            commands: commands.clone(),
            hook_timeout_ms: 0,
        };
        for (name, value) in env {
            spec.env
                .insert(name, value)
                .with_context(|| format!("the variable {}", name.escape_debug()))?;
        }
        Ok(spec)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Deadline::now())
    }
}

#[cfg(test)]
mod tests;
