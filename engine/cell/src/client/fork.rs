//! A fork as the engine asks for it: first the point, so that the mother goes on, then who was born of it.
//!
//! ```text
//!  Cell ─ fork_point ─► Births (the mother's vCPUs run again) ─ deliver ─► Fork
//! ```
//!
//! Invariant: nobody born of a point is lost: a [`Births`] that is dropped lets them go and sees them reaped.

use std::os::fd::{AsFd, OwnedFd};

use brood_units::Instant;
use brood_vmm::now;

use super::error::call;
use super::line::Kin;
use super::{Cell, CellError, birth};
use crate::protocol::{
    Checkpoint, ForkSpec, ForkTimes, MAX_DAUGHTERS, Refusal, Reply, Request, Start,
};
use brood_control::Control;

/// A fork as the engine sees it.
#[derive(Debug)]
pub struct Fork {
    /// When the engine asked.
    pub asked: Instant,
    /// When the mother's stages ended.
    pub times: ForkTimes,
    /// The daughters, or why one is missing, in order.
    pub daughters: Vec<Result<Cell, CellError>>,
    /// The checkpoint, if one was to be kept.
    pub checkpoint: Option<Result<Cell, CellError>>,
}

/// A point that was taken: the mother runs again, her daughters are being born.
#[derive(Debug)]
pub struct Births {
    /// When the engine asked.
    pub asked: Instant,
    /// When the mother's stages ended.
    pub times: ForkTimes,
    checkpoint: Checkpoint,
    nursery: Nursery,
}

/// The engine's ends of the sockets of those who are being born.
#[derive(Debug)]
struct Nursery {
    ours: Vec<OwnedFd>,
    kin: Kin,
    /// The process that is the point, if the mother could say.
    point: Option<u32>,
}

impl Births {
    /// Waits until each of them has said that she lives, or has ended.
    pub fn deliver(mut self) -> Fork {
        let mut born = self.nursery.deliver();
        let checkpoint = match self.checkpoint {
            Checkpoint::Keep => born.pop(),
            Checkpoint::Drop => None,
        };
        Fork {
            asked: self.asked,
            times: self.times,
            daughters: born,
            checkpoint,
        }
    }
}

impl Nursery {
    fn deliver(&mut self) -> Vec<Result<Cell, CellError>> {
        birth::deliver(std::mem::take(&mut self.ours), &self.kin, self.point)
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // Cells that are dropped are killed and reaped.
        drop(self.deliver());
    }
}

impl Cell {
    /// Forks the machine as it is now into `daughters`, all from one point, and waits until they are born.
    ///
    /// # Errors
    /// As [`Cell::fork_point`].
    pub fn fork(
        &mut self,
        daughters: u32,
        checkpoint: Checkpoint,
        start: Start,
    ) -> Result<Fork, CellError> {
        Ok(self.fork_point(daughters, checkpoint, start)?.deliver())
    }

    /// Takes the point of which `daughters` are born, and waits until the machine runs again, not for them.
    ///
    /// # Errors
    /// The point could not be taken; the mother runs on. If she herself ends before she answers, whoever was born of it
    /// ends as well. A daughter that failed is an error in her place.
    pub fn fork_point(
        &mut self,
        daughters: u32,
        checkpoint: Checkpoint,
        start: Start,
    ) -> Result<Births, CellError> {
        if daughters > MAX_DAUGHTERS {
            return Err(Refusal {
                operation: format!("fork into {daughters} daughters"),
                cause: format!("one fork makes at most {MAX_DAUGHTERS}"),
                remedy: "keep a checkpoint and fork that several times".to_owned(),
            }
            .into());
        }
        let count = daughters + u32::from(checkpoint == Checkpoint::Keep);
        let mut ours = Vec::with_capacity(count as usize);
        let mut theirs = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (our, their) = Control::pair_that_names_senders().map_err(call("socketpair"))?;
            ours.push(our);
            theirs.push(their);
        }
        let asked = now();
        let request = Request::Fork(ForkSpec {
            daughters,
            checkpoint,
            start,
        });
        let files: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        let id = self.ask(request, &files)?;
        drop(files);
        drop(theirs);
        let mut nursery = Nursery {
            ours,
            kin: self.line.kin.clone(),
            point: None,
        };
        match self.answer(id) {
            Ok((Reply::Forked { times, point }, _)) => {
                nursery.point = Some(point);
                Ok(Births {
                    asked,
                    times,
                    checkpoint,
                    nursery,
                })
            }
            Ok((other, _)) => Err(CellError::Confused(format!("{other:?}"))),
            Err(error) => Err(error),
        }
    }
}
