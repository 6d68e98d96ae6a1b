//! The fork protocol from the host. Invariant: the order is a type. Each step consumes the last one's result, so a
//! thaw without confirm, or a mother's thaw sent to a daughter, cannot be written.
//!
//! ```text
//! Client ─quiesce─▶ Quiesced ─thaw─▶ Client                                  the mother
//!                      └─ticket─▶ StampTicket (one for all daughters, kept with a template)
//! Client ─stamp(&ticket)─▶ Stamped ─confirm─▶ Confirmed ─thaw─▶ Client        each daughter
//! ```

use std::time::Duration;

use brood_units::MachineId;

use super::{Client, ClientError};
use crate::fork::{BootId, ConfirmReport, ForkToken, QuiesceReport, StampReport, StampSpec};
use crate::message::{Reply, Request};

/// A mother whose workload is frozen. Dropping it leaves the workload frozen: for good in a mother, until the stamp
/// in a daughter or a template.
#[must_use = "a quiesced workload stays frozen until it is thawed or stamped"]
#[derive(Debug)]
pub struct Quiesced {
    client: Client,
    ticket: StampTicket,
    report: QuiesceReport,
}

/// The right to stamp what is forked from one quiesced mother.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampTicket {
    token: ForkToken,
}

/// A daughter that was given its identity. Its workload is frozen.
#[must_use = "a stamped daughter stays frozen until it is confirmed and thawed"]
#[derive(Debug)]
pub struct Stamped {
    client: Client,
    machine_id: MachineId,
    hostname: String,
    boot_id: BootId,
    report: StampReport,
}

/// A daughter that has the identity it was given. Its workload is frozen.
#[must_use = "a confirmed daughter stays frozen until it is thawed"]
#[derive(Debug)]
pub struct Confirmed {
    client: Client,
    machine_id: MachineId,
    report: ConfirmReport,
}

impl StampTicket {
    /// The ticket of a template, from the token kept with it.
    pub fn from_token(token: ForkToken) -> Self {
        Self { token }
    }

    /// The token, to keep with a template or checkpoint.
    pub fn token(&self) -> ForkToken {
        self.token
    }
}

impl Client {
    /// Freezes the workload, trying for `timeout` (at most `u32::MAX` milliseconds). `token` must be fresh random.
    ///
    /// # Errors
    /// [`crate::AgentError::QuiesceRefused`] with the processes in the way; everything runs again then. After a
    /// [`ClientError::Timeout`] or lost connection the workload may be frozen.
    pub fn quiesce(mut self, token: ForkToken, timeout: Duration) -> Result<Quiesced, ClientError> {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let wait = Duration::from_millis(u64::from(timeout_ms));
        match self.call(&Request::Quiesce { token, timeout_ms }, wait)? {
            Reply::Quiesced(report) => Ok(Quiesced {
                client: self,
                ticket: StampTicket { token },
                report,
            }),
            other => Err(self.unexpected("Quiesced", &other)),
        }
    }

    /// Thaws a mother that an engine which has died had frozen for a fork. Only for a machine that is known to have been
    /// stamped: a daughter that was not would run under her mother's identity.
    ///
    /// # Errors
    /// [`crate::AgentError::Fork`] if she is not frozen, or the connection that froze her has not ended yet.
    pub fn release(&mut self) -> Result<(), ClientError> {
        self.call_done(&Request::Release)
    }

    /// Gives a daughter its identity. `self` must be a connection made to the daughter after the fork.
    ///
    /// # Errors
    /// [`crate::AgentError::StampFailed`]: that daughter can only be ended. [`crate::AgentError::Fork`] if she is not
    /// quiesced under this ticket.
    pub fn stamp(mut self, ticket: &StampTicket, spec: &StampSpec) -> Result<Stamped, ClientError> {
        let hooks = Duration::from_millis(u64::from(spec.hook_timeout_ms));
        let request = Request::Stamp {
            token: ticket.token,
            spec: Box::new(spec.clone()),
        };
        match self.call(&request, hooks)? {
            Reply::Stamped(report) => Ok(Stamped {
                client: self,
                machine_id: spec.machine_id,
                hostname: spec.hostname.clone(),
                boot_id: spec.boot_id,
                report,
            }),
            other => Err(self.unexpected("Stamped", &other)),
        }
    }
}

impl Quiesced {
    /// What the freezing took.
    pub fn report(&self) -> &QuiesceReport {
        &self.report
    }

    /// The right to stamp what is forked from this mother.
    pub fn ticket(&self) -> StampTicket {
        self.ticket.clone()
    }

    /// Thaws the mother.
    ///
    /// # Errors
    /// [`crate::AgentError::Fork`], or a lost connection: the workload is frozen still.
    pub fn thaw(mut self) -> Result<Client, ClientError> {
        self.client.call_done(&Request::Thaw {
            token: self.ticket.token,
        })?;
        Ok(self.client)
    }
}

impl Stamped {
    /// What the stamp did.
    pub fn report(&self) -> &StampReport {
        &self.report
    }

    /// The connection, for files too long for the stamp. Nothing of the workload runs yet.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Asks the daughter who it is and compares hostname, machine id and boot id with the stamp.
    ///
    /// # Errors
    /// [`ClientError::Identity`] if they differ.
    pub fn confirm(mut self) -> Result<Confirmed, ClientError> {
        let report = match self.client.call(&Request::Confirm, Duration::ZERO)? {
            Reply::Confirmed(report) => report,
            other => return Err(self.client.unexpected("Confirmed", &other)),
        };
        let same = |field, stamped: String, reported: &str| {
            if stamped == reported {
                return Ok(());
            }
            Err(ClientError::Identity {
                field,
                stamped,
                reported: reported.chars().take(128).collect(),
            })
        };
        same("hostname", self.hostname, &report.hostname)?;
        same(
            "machine id",
            self.machine_id.to_string(),
            &report.machine_id,
        )?;
        same("boot id", self.boot_id.to_string(), &report.boot_id)?;
        Ok(Confirmed {
            client: self.client,
            machine_id: self.machine_id,
            report,
        })
    }
}

impl Confirmed {
    /// What the daughter said: compare its random bytes with its sisters', and its clock with the host's.
    pub fn report(&self) -> &ConfirmReport {
        &self.report
    }

    /// Lets the daughter's workload run.
    ///
    /// # Errors
    /// [`crate::AgentError::Fork`], or a lost connection: the workload may be frozen still.
    pub fn thaw(mut self) -> Result<Client, ClientError> {
        self.client.call_done(&Request::ThawStamped {
            machine_id: self.machine_id,
        })?;
        Ok(self.client)
    }
}
