//! How a cell ends: told to, killed, or found to have ended.
//!
//! Invariant: a status is taken once and kept, and a [`Cell`] that is dropped, not left, leaves no process.

use std::sync::PoisonError;

use rustix::process::{Signal, pidfd_send_signal};

use super::error::call;
use super::{Cell, CellError, EndCause, exits, reader};
use crate::protocol::Request;

impl Cell {
    /// Asks the cell to end, then waits until it is gone.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn end(mut self) -> Result<EndCause, CellError> {
        self.begin_end();
        self.reap()
    }

    /// Kills the process without a word, as the kernel's out-of-memory killer would.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&self) -> Result<(), CellError> {
        match &self.pidfd {
            Some(pidfd) => {
                pidfd_send_signal(pidfd, Signal::KILL).map_err(call("pidfd_send_signal"))
            }
            None => Ok(()),
        }
    }

    /// Waits until the process has ended by itself and says how.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn wait(mut self) -> Result<EndCause, CellError> {
        self.reap()
    }

    /// Ends many cells at once: all are told first, then all are reaped.
    ///
    /// # Errors
    /// One cannot be reaped; the others are.
    pub fn end_all(cells: impl IntoIterator<Item = Self>) -> Result<Vec<EndCause>, CellError> {
        let mut cells: Vec<_> = cells.into_iter().collect();
        cells.iter_mut().for_each(Self::begin_end);
        let causes: Vec<_> = cells.iter_mut().map(Self::reap).collect();
        causes.into_iter().collect()
    }

    fn begin_end(&mut self) {
        // A cell that hears it says so; one that cannot be told has ended or ends by the signal.
        if self.reaped.is_none() && self.ask(Request::Kill, &[]).is_err() {
            self.kill().ok();
        }
    }

    /// How a cell that closed its socket has ended; one that goes on without it is killed.
    pub(super) fn ended(&mut self) -> CellError {
        if self
            .pidfd
            .as_ref()
            .is_some_and(|pidfd| !exits::ends_soon(pidfd))
        {
            // It has ended after all if this fails.
            self.kill().ok();
        }
        self.reap().map_or_else(|error| error, CellError::Ended)
    }

    fn reap(&mut self) -> Result<EndCause, CellError> {
        if let Some(cause) = &self.reaped {
            return Ok(cause.clone());
        }
        let mut cause = match &self.pidfd {
            Some(pidfd) => self.line.kin.exits.status_of(self.pid, pidfd)?,
            None => EndCause::unknown(),
        };
        // The reader sees the end of the socket once the process is gone, after everything the cell said.
        let mut inbox = self.line.inbox();
        while !inbox.closed {
            inbox = self
                .line
                .changed
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        cause.ending = inbox.ending.clone();
        drop(inbox);
        self.reaped = Some(cause.clone());
        Ok(cause)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if self.outlives && self.reaped.is_none() {
            reader::forget(&self.line);
            return;
        }
        // First, so that nobody waits for the words of one whose process is not known.
        rustix::net::shutdown(self.line.control.fd(), rustix::net::Shutdown::Both).ok();
        // Killing what is gone already is the only way these fail, and then there is nothing to do.
        self.kill().ok();
        self.reap().ok();
    }
}
