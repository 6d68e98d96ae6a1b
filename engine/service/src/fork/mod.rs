//! The stamped fork: quiesce → fork → thaw the mother; each daughter: stamp → confirm → thaw.
//!
//! ```text
//!  Machine ─ quiesce ─ fork(2) ─ thaw ─► Machine (the mother, her streams untouched)
//!                         └► Unstamped ─ stamp ─ confirm ─ thaw ─► Machine (a daughter)
//! ```
//!
//! Invariant: no workload instruction runs in a daughter before her identity is applied and confirmed: an
//! [`Unstamped`] has no method that runs a program, and one that does not confirm in time is killed.

mod clock;
mod introduction;
mod stamp;
mod unconfirmed;

use std::time::Duration;

use brood_agent_proto::{ClientError, Quiesced, StampTicket};
use brood_cell::protocol::{Checkpoint, ForkTimes, Start};
use brood_cell::{Cell, CellError, WarmParts, now};
use brood_units::{Instant, MachineId};

use crate::host::Host;
use crate::identity;
use crate::machine::Machine;

pub use clock::wall_clock_ns;
pub use stamp::{Daughter, HostKeys, IdentitySpec, Timing, Unstamped, patience, stamp_all};
pub use unconfirmed::{Ending, Step, Unconfirmed};

/// How long the workload may take to freeze before the fork is refused.
const FREEZE_PATIENCE: Duration = Duration::from_secs(20);

/// A live fork as its caller sees it.
pub struct LiveFork {
    /// The daughters, or why one is missing.
    pub daughters: Vec<Result<Unstamped, CellError>>,
    /// The checkpoint, if one was kept.
    pub checkpoint: Option<Frozen>,
    /// From freeze sent to thaw done in the mother, microseconds.
    pub workload_frozen: f64,
    /// From the cell's reading of the request until the mother's vCPU entered the guest again, microseconds.
    pub mother_pause: f64,
    /// When the mother's stages ended.
    pub times: ForkTimes,
}

/// A checkpoint: a frozen point, forkable at any time.
pub struct Frozen {
    cell: Cell,
    ticket: StampTicket,
    mother: MachineId,
    generation: u32,
}

/// A template: sealed parts that warm daughters are made of.
pub struct Template {
    parts: WarmParts,
    ticket: StampTicket,
    id: MachineId,
    generation: u32,
    cell: Cell,
}

/// Forks a running machine into `daughters` from one point; the mother runs on.
///
/// # Errors
/// The workload does not freeze (it is thawed again, the blocking pid is named), or the point cannot be taken.
pub fn live(mother: &mut Machine, daughters: u32, keep: Checkpoint) -> anyhow::Result<LiveFork> {
    let freeze_sent = now();
    let quiesced = quiesce(mother)?;
    let ticket = quiesced.ticket();
    // Her workload waits for the point alone, however many are born of it.
    let point = mother.cell.fork_point(daughters, keep, Start::Run);
    let agent = quiesced.thaw().map_err(|error| {
        failed(
            "the mother was forked and does not thaw, so her daughters are let go",
            error,
        )
    })?;
    let workload_frozen = now().micros_since(freeze_sent);
    mother.agent = Some(agent);
    let fork = point?.deliver();
    let mother_pause = mother.cell.stats()?.entered.micros_since(fork.times.asked);
    let family = Family {
        ticket: &ticket,
        mother: mother.id,
        generation: mother.generation + 1,
        asked: fork.asked,
    };
    let daughters = family.unstamped(fork.daughters);
    let checkpoint = fork.checkpoint.transpose()?.map(|cell| Frozen {
        cell,
        ticket: ticket.clone(),
        mother: mother.id,
        generation: mother.generation,
    });
    Ok(LiveFork {
        daughters,
        checkpoint,
        workload_frozen,
        mother_pause,
        times: fork.times,
    })
}

/// Freezes the workload. Where that fails the machine has no conversation until the next call begins one.
pub(crate) fn quiesce(machine: &mut Machine) -> anyhow::Result<Quiesced> {
    let token = identity::fork_token()?;
    let agent = machine.take_agent()?;
    agent
        .quiesce(token, FREEZE_PATIENCE)
        .map_err(|error| match error {
            ClientError::Agent(_) => failed(
                "the workload does not freeze, so the machine is not forked and runs on",
                error,
            ),
            _ => failed(
                "the agent does not say that the workload is frozen, so the machine is not forked; \
                 what had frozen stays so",
                error,
            ),
        })
}

/// What does not work, the cause, and what can be done.
fn failed(what: &'static str, error: ClientError) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    let remedy = unconfirmed::remedy(&error);
    error.context(format!("{what} ({remedy})"))
}

/// What sisters have in common.
struct Family<'a> {
    ticket: &'a StampTicket,
    mother: MachineId,
    generation: u32,
    asked: Instant,
}

impl Family<'_> {
    fn unstamped(&self, born: Vec<Result<Cell, CellError>>) -> Vec<Result<Unstamped, CellError>> {
        let sisters = (0..).zip(born).map(|(index, cell)| {
            Ok(Unstamped {
                cell: cell?,
                ticket: self.ticket.clone(),
                mother: self.mother,
                generation: self.generation,
                index,
                asked: self.asked,
            })
        });
        sisters.collect()
    }
}

impl Frozen {
    /// A point in a cell that was taken over.
    pub(crate) fn new(cell: Cell, ticket: StampTicket, mother: MachineId, generation: u32) -> Self {
        Self {
            cell,
            ticket,
            mother,
            generation,
        }
    }

    pub(crate) fn ticket(&self) -> &StampTicket {
        &self.ticket
    }

    pub(crate) fn mother(&self) -> MachineId {
        self.mother
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn cell(&self) -> &Cell {
        &self.cell
    }

    pub(crate) fn cell_mut(&mut self) -> &mut Cell {
        &mut self.cell
    }

    /// Forks the checkpoint: daughters of the past, or why one is missing.
    ///
    /// # Errors
    /// The checkpoint is gone.
    pub fn fork(&mut self, daughters: u32) -> anyhow::Result<Vec<Result<Unstamped, CellError>>> {
        let fork = self.cell.fork(daughters, Checkpoint::Drop, Start::Run)?;
        let family = Family {
            ticket: &self.ticket,
            mother: self.mother,
            generation: self.generation + 1,
            asked: fork.asked,
        };
        Ok(family.unstamped(fork.daughters))
    }

    /// The cell alone, for who ends many at once.
    pub fn into_cell(self) -> Cell {
        self.cell
    }

    /// Lets go of the point.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn end(self) -> anyhow::Result<()> {
        self.cell.end()?;
        Ok(())
    }
}

impl Template {
    /// Turns a warmed machine into a template: quiesced, paused, sealed; it does not run again.
    ///
    /// # Errors
    /// The workload does not freeze, or the host is out of memory.
    pub fn seal(mut machine: Machine) -> anyhow::Result<Self> {
        let quiesced = quiesce(&mut machine)?;
        let ticket = quiesced.ticket();
        machine.cell.pause()?;
        let parts = machine.cell.template()?;
        Ok(Self {
            parts,
            ticket,
            id: machine.id,
            generation: machine.generation,
            cell: machine.cell,
        })
    }

    /// A warm daughter: mapped, split, state loaded, never yet in the guest.
    ///
    /// # Errors
    /// The host is out of memory or descriptors.
    pub fn warm(&self, host: &Host, index: u32) -> anyhow::Result<Warm> {
        use std::os::fd::AsFd;
        let mut cell = host.spawn()?;
        cell.load(host.kvm.as_fd(), &self.parts)?;
        Ok(Warm {
            unstamped: Unstamped {
                cell,
                ticket: self.ticket.clone(),
                mother: self.id,
                generation: self.generation + 1,
                index,
                asked: Instant::default(),
            },
        })
    }

    /// The template's identity.
    pub fn id(&self) -> MachineId {
        self.id
    }

    /// The process that holds the template.
    pub fn pid(&self) -> u32 {
        self.cell.pid()
    }

    /// The cell alone, for who ends many at once.
    pub fn into_cell(self) -> Cell {
        self.cell
    }

    /// Lets go of the template; warm daughters live on.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn end(self) -> anyhow::Result<()> {
        self.cell.end()?;
        Ok(())
    }
}

/// A warm daughter in the pool.
pub struct Warm {
    unstamped: Unstamped,
}

impl Warm {
    /// Her process.
    pub fn pid(&self) -> u32 {
        self.unstamped.pid()
    }

    /// Claims her with one message: from here on she runs towards her stamp.
    ///
    /// # Errors
    /// Her cell is gone.
    pub fn claim(self) -> anyhow::Result<Unstamped> {
        let index = self.unstamped.index;
        self.claim_as(index)
    }

    /// The same, as the daughter of that index of a request.
    pub(crate) fn claim_as(mut self, index: u32) -> anyhow::Result<Unstamped> {
        self.unstamped.index = index;
        self.unstamped.asked = now();
        self.unstamped.cell.resume()?;
        Ok(self.unstamped)
    }
}
