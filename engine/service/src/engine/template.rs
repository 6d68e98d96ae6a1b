//! Templates as they live: sealed once, claimed again and again.
//!
//! ```text
//!  first use: boot ─► seal ─► ┌ warm ┐                 later uses: claim (one message), then refill
//!                             │ warm │ ─ claim ─► daughters with a lineage of their own each
//!                             └ warm ┘
//! ```
//!
//! Invariant: a template is booted at most once at a time, and nobody waits for another template. One that does not
//! come up leaves nothing behind and is tried again at its next use.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use brood_cell::protocol::{DiskSpec, GuestSpec, MachineSpec};
use brood_cell::{Cell, CellError, WarmParts};
use brood_store::TemplateRow;
use brood_units::MachineId;

use super::guest::{Brood, GuestKind};
use super::metric::Metrics;
use crate::fork::{Template, Warm};
use crate::host::Host;
use crate::machine::{Machine, Size};
use crate::path::{Stamps, Stopped};

/// Blank disk of a bare guest, MiB.
const BARE_DISK_MIB: u64 = 64;
/// Warm daughters that wait in each pool.
pub(super) const POOL: usize = 4;

/// All templates that were used since the engine started.
#[derive(Default)]
pub(super) struct Templates {
    known: Mutex<HashMap<MachineId, Arc<Place>>>,
}

/// Where a template is, or will be.
#[derive(Default)]
struct Place {
    sealed: Mutex<Option<Sealed>>,
    /// Its process and those of who is warm, as they were when it was last let go of. A leaf lock.
    seen: Mutex<(Option<u32>, Vec<u32>)>,
}

/// The template, held; what was done with it is seen once it is let go of.
struct Occupied<'a> {
    place: &'a Place,
    sealed: MutexGuard<'a, Option<Sealed>>,
}

impl Place {
    fn hold(&self) -> Occupied<'_> {
        Occupied {
            place: self,
            sealed: self.sealed.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        let now = self.sealed.as_ref().map(Sealed::cells);
        let mut seen = self
            .place
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *seen = now.map_or((None, Vec::new()), |(template, warm)| {
            (Some(template), warm)
        });
    }
}

/// A template, sealed, with its pool.
enum Sealed {
    Linux {
        template: Template,
        pool: Vec<Warm>,
    },
    Bare {
        parts: WarmParts,
        pool: Vec<Cell>,
        /// Whose memory it is.
        origin: Cell,
    },
}

impl Templates {
    /// Claims daughters as they were planned. The first use boots and seals the template.
    pub(super) fn claim(
        &self,
        host: &Host,
        row: &TemplateRow,
        stamps: Stamps,
        metrics: &Metrics,
    ) -> Result<Brood, Box<Stopped>> {
        let place = self.place(row.id);
        let mut place = place.hold();
        let sealed = match place.sealed.take() {
            Some(sealed) => Ok(sealed),
            None => Sealed::make(host, row),
        };
        match sealed {
            Ok(sealed) => place.sealed.insert(sealed).claim(host, stamps, metrics),
            Err(error) => Err(stamps.fail(error)),
        }
    }

    /// Fills the pool up again; failures show when the next daughter is wanted.
    pub(super) fn refill(&self, host: &Host, id: MachineId) {
        let place = self.place(id);
        let mut place = place.hold();
        if let Some(sealed) = place.sealed.as_mut() {
            sealed.fill(host, POOL).ok();
        }
    }

    /// Lets go of one that is removed. Her daughters live on.
    pub(super) fn forget(&self, id: MachineId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.remove(&id);
        drop(known);
        place.as_deref().map(empty);
    }

    /// Lets go of all of them, and of what is being made for them.
    pub(super) fn forget_all(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let places = std::mem::take(&mut *known);
        drop(known);
        places.into_values().for_each(|place| empty(&place));
    }

    /// The processes of all templates, and of all who are warm. One that is being made or claimed is seen as it was before.
    pub(super) fn cells(&self) -> (Vec<u32>, Vec<u32>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut templates, mut warm) = (Vec::new(), Vec::new());
        for place in known.values() {
            let seen = place.seen.lock().unwrap_or_else(PoisonError::into_inner);
            templates.extend(seen.0);
            warm.extend(&seen.1);
        }
        (templates, warm)
    }

    fn place(&self, id: MachineId) -> Arc<Place> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(id).or_default())
    }
}

/// Ends the cells of a template; whoever fills its pool is waited for and finds it gone.
fn empty(place: &Place) {
    drop(place.hold().sealed.take());
}

impl Sealed {
    fn make(host: &Host, row: &TemplateRow) -> anyhow::Result<Self> {
        let size = Size {
            ram_mib: row.memory_mib.into(),
            vcpus: row.vcpus,
        };
        match GuestKind::of(&row.guest) {
            Some(GuestKind::Linux) => Ok(Self::Linux {
                template: Template::seal(Machine::boot(host, size, "")?)?,
                pool: Vec::new(),
            }),
            Some(GuestKind::Bare) => {
                let mut cell = host.spawn()?;
                let spec = MachineSpec {
                    ram_bytes: size.ram_mib << 20,
                    vcpus: size.vcpus,
                    disk: Some(DiskSpec::Blank {
                        bytes: BARE_DISK_MIB << 20,
                    }),
                };
                cell.boot(&spec, &GuestSpec::Bare, &[host.kvm.as_fd()])?;
                cell.resume()?;
                cell.first_instruction()?;
                cell.pause()?;
                Ok(Self::Bare {
                    parts: cell.template()?,
                    pool: Vec::new(),
                    origin: cell,
                })
            }
            None => Err(anyhow::anyhow!(
                "template {} starts the guest '{}', which this engine does not know",
                row.name,
                row.guest
            )),
        }
    }

    /// The template's process, and those of who is warm.
    fn cells(&self) -> (u32, Vec<u32>) {
        match self {
            Self::Linux { template, pool } => {
                (template.pid(), pool.iter().map(Warm::pid).collect())
            }
            Self::Bare { origin, pool, .. } => (origin.pid(), pool.iter().map(Cell::pid).collect()),
        }
    }

    fn claim(
        &mut self,
        host: &Host,
        stamps: Stamps,
        metrics: &Metrics,
    ) -> Result<Brood, Box<Stopped>> {
        let wanted = stamps.stamps().len();
        let waiting = self.cells().1.len().min(wanted);
        metrics.claimed("pool", waiting);
        metrics.claimed("loaded", wanted - waiting);
        if let Self::Linux { pool, .. } = self
            && pool.len() < wanted
            && let Err(error) = self.fill(host, wanted)
        {
            return Err(stamps.fail(error));
        }
        match self {
            Self::Linux { pool, .. } => {
                let born = stamps.claim(pool)?;
                let stamping = Instant::now();
                Ok(Brood::fledged(born.stamp(), None, stamping))
            }
            Self::Bare { parts, pool, .. } => {
                let warm = || pool.pop().map_or_else(|| load(host, parts), Ok);
                Ok(Brood::hatched(stamps.claim_bare(warm)?))
            }
        }
    }

    fn fill(&mut self, host: &Host, to: usize) -> anyhow::Result<()> {
        match self {
            Self::Linux { template, pool } => {
                while pool.len() < to {
                    pool.push(template.warm(host, 0)?);
                }
            }
            Self::Bare { parts, pool, .. } => {
                while pool.len() < to {
                    pool.push(load(host, parts)?);
                }
            }
        }
        Ok(())
    }
}

fn load(host: &Host, parts: &WarmParts) -> Result<Cell, CellError> {
    let mut cell = host.cell()?;
    cell.load(host.kvm.as_fd(), parts)?;
    Ok(cell)
}
