//! What the engine hears from the guest of a cell, and says to it: streams, the bare guest's mailbox, its first step.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use brood_bare_guest::mailbox::{self, Command, Outcome};
use brood_units::Instant;

use super::{Cell, CellError, PATIENCE};
use crate::protocol::{Event, Request};

impl Cell {
    /// A stream to the guest's vsock `port`; it fails at the first read if nobody listens there.
    ///
    /// # Errors
    /// The cell refuses.
    pub fn connect(&mut self, port: u32) -> Result<UnixStream, CellError> {
        let (ours, theirs) = UnixStream::pair().map_err(|source| CellError::Call {
            operation: "socketpair",
            source,
        })?;
        self.done(Request::VsockOpen { port }, &[theirs.as_fd()])?;
        Ok(ours)
    }

    /// Sends a command to the bare guest's vCPU and waits for its answer.
    ///
    /// # Errors
    /// The cell refuses, or no answer comes in time.
    pub fn command(&mut self, vcpu: u32, command: Command) -> Result<Outcome, CellError> {
        self.begin_command(vcpu, command)?;
        self.outcome(vcpu)
    }

    /// Sends a command to the bare guest's vCPU without waiting; [`Cell::outcome`] waits.
    ///
    /// # Errors
    /// The cell refuses.
    pub fn begin_command(&mut self, vcpu: u32, command: Command) -> Result<(), CellError> {
        let (operation, arguments) = command.encode();
        self.done(
            Request::Mailbox {
                vcpu,
                operation,
                arguments,
            },
            &[],
        )
    }

    /// The bare guest's next answer on `vcpu`.
    ///
    /// # Errors
    /// None comes in time, or the cell ended.
    pub fn outcome(&mut self, vcpu: u32) -> Result<Outcome, CellError> {
        let wanted = |event: &Event| matches!(event, Event::MailboxReply { vcpu: from, .. } if *from == vcpu);
        match self.event(wanted, PATIENCE)? {
            (Event::MailboxReply { value, .. }, _) => Ok(mailbox::outcome(value)),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// When the guest first ran after its last resume; waits for it.
    ///
    /// # Errors
    /// It did not run in time, or the cell ended.
    pub fn first_instruction(&mut self) -> Result<Instant, CellError> {
        match self.event(
            |event| matches!(event, Event::FirstInstruction { .. }),
            PATIENCE,
        )? {
            (Event::FirstInstruction { at }, _) => Ok(at),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }
}
