//! The supervisor as the engine sees it: who keeps its cells while it is away.
//!
//! ```text
//!  Keeper ─ start ──► a cell under a new id          (templates, warm daughters)
//!         ─ keep ───► a daughter under her own id
//!         ─ list, adopt ◄── the next engine
//! ```
//!
//! Invariant: a supervisor that has gone took its cells with it; another is started when the next cell is wanted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use brood_cell::protocol::{CellState, ChildEnd};
use brood_cell::{Cell, CellError, CellProgram, Ends, Handle, LayerSource};
use brood_supervisor::protocol::Entry;
use brood_supervisor::{CellHandle, ConnectError, Said, Supervisor, SupervisorProgram};
use brood_units::MachineId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::identity;

/// The supervisor of a state directory.
pub(crate) struct Keeper {
    state: PathBuf,
    program: SupervisorProgram,
    link: Mutex<Arc<Link>>,
    told: UnboundedSender<MachineId>,
    /// Ids of cells that have ended, for whoever asks first.
    ended: Mutex<Option<UnboundedReceiver<MachineId>>>,
}

/// One connection.
struct Link {
    supervisor: Supervisor,
    ends: Ends,
}

impl Link {
    fn new(
        state: &Path,
        program: &SupervisorProgram,
        told: UnboundedSender<MachineId>,
    ) -> Result<Self, ConnectError> {
        let ends = Ends::new();
        let book = ends.clone();
        let heard = move |said| match said {
            Said::Ended(ended) => {
                book.tell(ChildEnd {
                    pid: ended.pid,
                    code: ended.end.code,
                    signal: ended.end.signal,
                    cpu_ns: ended.end.cpu_ns,
                });
                if let Some(id) = ended.id {
                    // An engine that is stopping does not want to know.
                    told.send(id).ok();
                }
            }
            Said::Gone { .. } => book.lose(),
        };
        let supervisor = Supervisor::connect(state, program, heard)?;
        Ok(Self { supervisor, ends })
    }
}

impl Keeper {
    /// Finds or starts the supervisor of `state`; `program` is one with the argument `supervisor`.
    pub(crate) fn connect(state: &Path, program: &Path) -> Result<Self, ConnectError> {
        let program = SupervisorProgram {
            path: program.to_owned(),
            arguments: vec!["supervisor".to_owned()],
        };
        let (told, ended) = unbounded_channel();
        let link = Link::new(state, &program, told.clone())?;
        Ok(Self {
            state: state.to_owned(),
            program,
            link: Mutex::new(Arc::new(link)),
            told,
            ended: Mutex::new(Some(ended)),
        })
    }

    fn link(&self) -> Result<Arc<Link>, ConnectError> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.supervisor.is_gone() {
            *link = Arc::new(Link::new(&self.state, &self.program, self.told.clone())?);
        }
        Ok(Arc::clone(&link))
    }

    /// Starts a cell, kept under a new id.
    pub(crate) fn start(
        &self,
        program: &CellProgram,
        layers: LayerSource,
    ) -> Result<Cell, CellError> {
        let failed = |error: anyhow::Error| CellError::Start {
            program: program.path.clone(),
            source: std::io::Error::other(format!("{error:#}")),
        };
        let start = || {
            let id = identity::machine_id()?;
            let link = self.link()?;
            let started = link
                .supervisor
                .start(id, &program.path, &program.arguments)?;
            anyhow::Ok((link, handle(id, started)))
        };
        let (link, handle) = start().map_err(failed)?;
        Cell::started(handle, layers, &link.ends)
    }

    /// Keeps cells under these ids; those that are kept already stay as they are.
    pub(crate) fn keep(&self, cells: &mut [(MachineId, &mut Cell)]) -> anyhow::Result<()> {
        let mut born: Vec<_> = cells
            .iter_mut()
            .filter(|(_, cell)| cell.kept_as().is_none())
            .collect();
        if born.is_empty() {
            return Ok(());
        }
        let mut kept = Vec::new();
        for (id, cell) in &born {
            let pidfd = cell.pidfd().context("a cell has no pidfd")?;
            kept.push((*id, cell.pid(), cell.control(), pidfd));
        }
        self.link()?.supervisor.keep(&kept)?;
        for (id, cell) in &mut born {
            cell.set_kept_as(*id);
        }
        Ok(())
    }

    /// All cells that are kept, and those whose end was not noted.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<Entry>> {
        Ok(self.link()?.supervisor.list()?)
    }

    /// Takes over a cell of an engine that has died.
    pub(crate) fn adopt(
        &self,
        id: MachineId,
        layers: LayerSource,
    ) -> anyhow::Result<(Cell, CellState)> {
        let link = self.link()?;
        let kept = link.supervisor.duplicate(id)?;
        Ok(Cell::adopt(handle(id, kept), layers, &link.ends)?)
    }

    /// How these have ended is written down, or of no interest.
    pub(crate) fn noted(&self, ids: &[MachineId]) -> anyhow::Result<()> {
        Ok(self.link()?.supervisor.noted(ids)?)
    }

    /// Kills a cell that no engine wants.
    pub(crate) fn kill(&self, id: MachineId) -> anyhow::Result<()> {
        Ok(self.link()?.supervisor.kill(id)?)
    }

    /// Where the ids of cells that end are told; once.
    pub(crate) fn ended(&self) -> Option<UnboundedReceiver<MachineId>> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.take()
    }
}

fn handle(id: MachineId, kept: CellHandle) -> Handle {
    Handle {
        id,
        pid: kept.pid,
        control: kept.control,
        pidfd: kept.pidfd,
    }
}
