//! What sits in a seat: a machine or a frozen point, with a Linux guest or a bare one.
//!
//! Invariant: whoever is in here was admitted, placed, planned, and stamped if there is an agent to stamp.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use brood_cell::protocol::{Checkpoint, Start};
use brood_cell::{Cell, CellError, EndCause};

use brood_units::MachineId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::decision::Decision;
use crate::fork::Frozen;
use crate::hold::Held;
use crate::machine::Machine;
use crate::path::{Fledged, Hatched, Stamp, Stamps, Stopped};

/// Which guest a template starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKind {
    /// Linux with an agent.
    Linux,
    /// The engine's own test guest, which counts.
    Bare,
}

impl GuestKind {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Bare => "bare",
        }
    }

    pub(super) fn of(word: &str) -> Option<Self> {
        [Self::Linux, Self::Bare]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

pub(super) enum Guest {
    Linux(Box<Machine>),
    LinuxPoint(Box<Frozen>),
    Bare(Cell),
}

/// A daughter with what she was planned to be, and when she got how far, microseconds from the fork call.
pub(super) struct Brought {
    pub(super) guest: Guest,
    pub(super) stamp: Stamp,
    pub(super) first_instruction_us: Option<f64>,
    pub(super) confirmed_us: Option<f64>,
}

/// What a fork brought.
pub(super) struct Brood {
    pub(super) daughters: Vec<Result<Brought, String>>,
    pub(super) decisions: Vec<Decision>,
    pub(super) warnings: Vec<String>,
    pub(super) held: Option<Held>,
    pub(super) mother_pause_us: Option<f64>,
    /// When they were born and their stamps began; none where there is nobody to stamp.
    pub(super) stamping: Option<Instant>,
}

impl Guest {
    /// Forks as was planned.
    pub(super) fn fork(&mut self, stamps: Stamps) -> Result<Brood, Box<Stopped>> {
        let (born, pause) = match self {
            Self::Bare(cell) => return hatch(cell, stamps),
            Self::Linux(machine) => {
                let born = stamps.fork_live(machine, Checkpoint::Drop)?;
                let pause = born.pause.map(|pause| pause.mother_pause);
                (born, pause)
            }
            Self::LinuxPoint(point) => (stamps.fork_checkpoint(point)?, None),
        };
        let stamping = Instant::now();
        Ok(Brood::fledged(born.stamp(), pause, stamping))
    }

    /// Takes a frozen point of it, of a frozen point as well.
    pub(super) fn point(&mut self) -> anyhow::Result<Self> {
        let Self::LinuxPoint(of) = self else {
            return self.checkpoint();
        };
        let fork = of.cell_mut().fork(0, Checkpoint::Keep, Start::Run)?;
        let point = fork.checkpoint;
        let point = point.ok_or_else(|| anyhow::anyhow!("no point was kept"))??;
        let (ticket, mother, generation) = (of.ticket().clone(), of.mother(), of.generation());
        let point = Frozen::new(point, ticket, mother, generation);
        Ok(Self::LinuxPoint(Box::new(point)))
    }

    /// Keeps a frozen point of it.
    pub(super) fn checkpoint(&mut self) -> anyhow::Result<Self> {
        match self {
            Self::Linux(machine) => {
                let forked = crate::fork::live(machine, 0, Checkpoint::Keep)?;
                let point = forked.checkpoint;
                let point = point.ok_or_else(|| anyhow::anyhow!("no point was kept"))?;
                Ok(Self::LinuxPoint(Box::new(point)))
            }
            Self::Bare(cell) => {
                let fork = cell.fork(0, Checkpoint::Keep, Start::Run)?;
                let point = fork.checkpoint;
                let point = point.ok_or_else(|| anyhow::anyhow!("no point was kept"))??;
                Ok(Self::Bare(point))
            }
            Self::LinuxPoint(_) => Err(anyhow::anyhow!("a checkpoint is a frozen point already")),
        }
    }

    pub(super) fn pause(&mut self) -> Result<(), CellError> {
        self.vcpus().map_or(Ok(()), Cell::pause)
    }

    pub(super) fn resume(&mut self) -> Result<(), CellError> {
        self.vcpus().map_or(Ok(()), Cell::resume)
    }

    /// Its machine's agent, for who runs programs.
    pub(super) fn linux(&mut self) -> Option<&mut Machine> {
        match self {
            Self::Linux(machine) => Some(machine),
            Self::LinuxPoint(_) | Self::Bare(_) => None,
        }
    }

    /// What becomes readable when its process ends.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        self.cell()
            .process()
            .and_then(|fd: BorrowedFd<'_>| fd.try_clone_to_owned().ok())
    }

    /// Whether its process has ended. One that the kernel gives no descriptor of is taken to have.
    pub(super) fn has_ended(&self) -> bool {
        let at_once = Timespec::default();
        let ended = self.cell().process().map(|process| {
            let mut polled = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
            poll(&mut polled, Some(&at_once)) != Ok(0)
        });
        ended.unwrap_or(true)
    }

    /// Its process on the host.
    pub(super) fn pid(&self) -> u32 {
        self.cell().pid()
    }

    /// The id under which a supervisor keeps its cell.
    pub(super) fn kept_as(&self) -> Option<MachineId> {
        self.cell().kept_as()
    }

    /// From now on it goes on when this engine is gone, if a supervisor keeps it.
    pub(super) fn outlive(&mut self) {
        self.cell_mut().outlive();
    }

    /// Ends it.
    pub(super) fn end(self) -> Result<EndCause, CellError> {
        self.into_cell().end()
    }

    /// Of one that ended by itself: how.
    pub(super) fn wait(self) -> Result<EndCause, CellError> {
        self.into_cell().wait()
    }

    /// The cell of one that runs.
    fn vcpus(&mut self) -> Option<&mut Cell> {
        match self {
            Self::Linux(machine) => Some(&mut machine.cell),
            Self::Bare(cell) => Some(cell),
            Self::LinuxPoint(_) => None,
        }
    }

    fn cell(&self) -> &Cell {
        match self {
            Self::Linux(machine) => &machine.cell,
            Self::Bare(cell) => cell,
            Self::LinuxPoint(point) => point.cell(),
        }
    }

    pub(super) fn cell_mut(&mut self) -> &mut Cell {
        match self {
            Self::Linux(machine) => &mut machine.cell,
            Self::Bare(cell) => cell,
            Self::LinuxPoint(point) => point.cell_mut(),
        }
    }

    fn into_cell(self) -> Cell {
        match self {
            Self::Linux(machine) => machine.into_cell(),
            Self::LinuxPoint(point) => point.into_cell(),
            Self::Bare(cell) => cell,
        }
    }
}

fn hatch(mother: &mut Cell, stamps: Stamps) -> Result<Brood, Box<Stopped>> {
    let hatched = stamps.fork_bare(mother)?;
    let heard = hatched.heard;
    let mut brood = Brood::hatched(hatched);
    // She runs before her daughters do, so this has happened.
    let entered = mother.stats().ok().map(|stats| stats.entered);
    brood.mother_pause_us = entered
        .zip(heard)
        .map(|(entered, heard)| entered.micros_since(heard));
    Ok(brood)
}

impl Brood {
    pub(super) fn fledged(
        fledged: Fledged,
        mother_pause_us: Option<f64>,
        stamping: Instant,
    ) -> Self {
        let daughters = fledged.daughters.into_iter().map(|one| match one {
            Ok((daughter, stamp)) => Ok(Brought {
                first_instruction_us: Some(daughter.timing.first_instruction),
                confirmed_us: Some(daughter.timing.confirmed),
                guest: Guest::Linux(Box::new(daughter.machine)),
                stamp,
            }),
            Err(error) => Err(format!("{error:#}")),
        });
        Self {
            daughters: daughters.collect(),
            decisions: fledged.decisions,
            warnings: fledged.warnings,
            held: fledged.held,
            mother_pause_us,
            stamping: Some(stamping),
        }
    }

    pub(super) fn hatched(hatched: Hatched) -> Self {
        let daughters = hatched.daughters.into_iter().map(|one| {
            let (mut cell, stamp) = one.map_err(|error| error.to_string())?;
            let first = cell
                .first_instruction()
                .map_err(|error| error.to_string())?;
            Ok(Brought {
                first_instruction_us: Some(first.micros_since(hatched.asked)),
                confirmed_us: None,
                guest: Guest::Bare(cell),
                stamp,
            })
        });
        Self {
            daughters: daughters.collect(),
            decisions: hatched.decisions,
            warnings: hatched.warnings,
            held: hatched.held,
            mother_pause_us: None,
            stamping: None,
        }
    }
}
