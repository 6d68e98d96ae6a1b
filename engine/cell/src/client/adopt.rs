//! Cells that this engine is not the parent of: started by a supervisor, or taken over from an engine that has died.
//!
//! ```text
//!  supervisor ── Handle ──► Cell::started ─► boot, load …
//!             └─ Handle ──► Cell::adopt ── Hello{nonce} ──► the cell
//!                               ▲  what the dead engine left in the socket is thrown away up to …
//!                               └───────────────────────── Hello{nonce, state}
//! ```
//!
//! A cell answers in order, so the answer to the greeting is behind everything that was said to another. Daughters whose
//! birth nobody heard of are not in the socket of their mother: they end with their own. Invariant: an adopted cell is a
//! [`Cell`] like any other, or it is an error and no engine's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use brood_units::MachineId;
use rustix::rand::{GetRandomFlags, getrandom};

use super::error::call;
use super::exits::Exits;
use super::line::{Kin, OTHERS};
use super::{Cell, CellError, LayerSource};
use crate::protocol::{CellState, ChildEnd, Reply, Request, VERSION};

/// What a cell is reached by.
#[derive(Debug)]
pub struct Handle {
    /// The id under which the supervisor keeps it.
    pub id: MachineId,
    /// Its process id.
    pub pid: u32,
    /// The engine's end of its control socket.
    pub control: OwnedFd,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Where a supervisor's word of how cells ended goes, for all cells that it is the reaper of.
#[derive(Clone, Debug)]
pub struct Ends(Arc<Exits>);

impl Ends {
    /// Nobody has ended yet.
    #[expect(clippy::new_without_default, reason = "there is no usual supervisor")]
    pub fn new() -> Self {
        Self(Arc::new(Exits::of_supervisor()))
    }

    /// A process below the supervisor has ended.
    pub fn tell(&self, end: ChildEnd) {
        self.0.tell(end);
    }

    /// The supervisor has gone: nobody will tell how those that end from now on ended.
    pub fn lose(&self) {
        self.0.lose();
    }
}

impl Cell {
    /// A cell whose program a supervisor has just started; it waits for [`Cell::boot`] or [`Cell::load`].
    ///
    /// # Errors
    /// It cannot be heard.
    pub fn started(handle: Handle, layers: LayerSource, ends: &Ends) -> Result<Self, CellError> {
        let exits = Arc::clone(&ends.0);
        let mut cell = Self::over(handle.control, Kin { layers, exits }, 1)?;
        cell.pid = handle.pid;
        cell.pidfd = Some(handle.pidfd);
        cell.kept_as = Some(handle.id);
        Ok(cell)
    }

    /// Takes over a cell whose engine has died, and says what it is.
    ///
    /// # Errors
    /// It speaks another version, and is let go of as it is; or it does not answer, and is killed.
    pub fn adopt(
        handle: Handle,
        layers: LayerSource,
        ends: &Ends,
    ) -> Result<(Self, CellState), CellError> {
        let mut random = [0; 24];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(call("getrandom"))?;
        let (nonce, first) = random.split_at(16);
        let (Ok(nonce), Ok(first)) = (nonce.try_into(), first.try_into()) else {
            return Err(CellError::Confused("24 bytes are not 16 and 8".to_owned()));
        };
        let exits = Arc::clone(&ends.0);
        // Unlike any number of the dead engine, which counted from another; with the bit that says so.
        let first_ask = u64::from_le_bytes(first) | OTHERS | 1;
        let mut cell = Self::over(handle.control, Kin { layers, exits }, first_ask)?;
        cell.pid = handle.pid;
        cell.pidfd = Some(handle.pidfd);
        cell.kept_as = Some(handle.id);
        let version = VERSION;
        match cell.request(Request::Hello { version, nonce }, &[]) {
            Ok((
                Reply::Hello {
                    nonce: returned,
                    state,
                    ..
                },
                _,
            )) if returned == nonce => Ok((cell, state)),
            Ok((other, _)) => Err(CellError::Confused(format!("{other:?}"))),
            Err(CellError::Refused(refusal)) => {
                cell.leave();
                Err(refusal.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the cell which machine it is, for an engine that adopts it.
    ///
    /// # Errors
    /// The cell does not answer.
    pub fn name(&mut self, id: MachineId) -> Result<(), CellError> {
        self.done(Request::Name { id }, &[])
    }

    /// Lets go of a cell that a supervisor keeps, which goes on as it is.
    pub fn leave(mut self) {
        self.outlive();
    }

    /// From now on a cell that a supervisor keeps goes on when this is dropped; any other ends as before.
    pub fn outlive(&mut self) {
        self.outlives = self.kept_as.is_some();
    }

    /// The id under which a supervisor keeps it, if one does.
    pub fn kept_as(&self) -> Option<MachineId> {
        self.kept_as
    }

    /// A supervisor keeps it under this id.
    pub fn set_kept_as(&mut self, id: MachineId) {
        self.kept_as = Some(id);
    }

    /// The engine's end of the control socket, to have it kept.
    pub fn control(&self) -> BorrowedFd<'_> {
        self.line.control.fd()
    }

    /// Its pidfd, to have it kept; none if the host could not make one.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }
}
