//! The fork of a bare guest: it has no agent, so daughters are who they are for the engine alone.
//!
//! Invariant: what only an agent could apply is refused before anything is forked, not left out in silence.

use brood_cell::protocol::{Checkpoint, Start};
use brood_cell::{Cell, CellError, now};
use brood_units::Instant;

use super::{Course, Stamp, Stamps, Stopped, Why};
use crate::decision::Decision;
use crate::hold::Held;

/// Daughters of a bare guest, running.
#[must_use = "units are held for it"]
pub struct Hatched {
    /// Each daughter with what she was planned to be, or why she is missing.
    pub daughters: Vec<Result<(Cell, Stamp), CellError>>,
    /// What was said at every hook.
    pub decisions: Vec<Decision>,
    /// Of policies.
    pub warnings: Vec<String>,
    /// Units for all that were planned.
    pub held: Option<Held>,
    /// When the engine asked for them.
    pub asked: Instant,
    /// When the mother read that; none where there was no mother to stop.
    pub heard: Option<Instant>,
}

impl Stamps {
    /// Forks a bare guest, running or frozen.
    ///
    /// # Errors
    /// The plan has variables or files, which nobody in a bare guest could apply, or the point cannot be taken.
    pub fn fork_bare(self, mother: &mut Cell) -> Result<Hatched, Box<Stopped>> {
        let Self { course, stamps } = self.without_agent()?;
        let daughters = u32::try_from(stamps.len()).unwrap_or(u32::MAX);
        match mother.fork(daughters, Checkpoint::Drop, Start::Run) {
            Ok(fork) => {
                let heard = Some(fork.times.asked);
                Ok(hatched(course, stamps, fork.daughters, fork.asked, heard))
            }
            Err(error) => Err(course.stopped(Why::Fork(error.into()))),
        }
    }

    /// Claims warm cells of a bare template, which `warm` gives out one at a time.
    ///
    /// # Errors
    /// The plan has variables or files. A cell that cannot be had is an error in its place.
    pub fn claim_bare(
        self,
        mut warm: impl FnMut() -> Result<Cell, CellError>,
    ) -> Result<Hatched, Box<Stopped>> {
        let Self { course, stamps } = self.without_agent()?;
        let cells: Vec<_> = stamps.iter().map(|_| warm()).collect();
        let asked = now();
        let resumed = cells.into_iter().map(|cell| {
            let mut cell = cell?;
            cell.resume()?;
            Ok(cell)
        });
        let resumed = resumed.collect();
        Ok(hatched(course, stamps, resumed, asked, None))
    }

    fn without_agent(self) -> Result<Self, Box<Stopped>> {
        let carries = |stamp: &Stamp| {
            let identity = &stamp.identity;
            !identity.env.is_empty() || !identity.files.is_empty() || !stamp.secrets.is_empty()
        };
        if self.stamps.iter().any(carries) {
            return Err(self.course.stopped(Why::NoAgent));
        }
        Ok(self)
    }
}

fn hatched(
    course: Course,
    stamps: Vec<Stamp>,
    cells: Vec<Result<Cell, CellError>>,
    asked: Instant,
    heard: Option<Instant>,
) -> Hatched {
    let born = cells.into_iter().zip(stamps);
    Hatched {
        daughters: born.map(|(cell, stamp)| Ok((cell?, stamp))).collect(),
        decisions: course.decisions,
        warnings: course.warnings,
        held: course.held,
        asked,
        heard,
    }
}
