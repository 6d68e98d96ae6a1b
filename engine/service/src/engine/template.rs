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
use std::sync::{Arc, Mutex, PoisonError};

use brood_cell::protocol::{DiskSpec, GuestSpec, MachineSpec};
use brood_cell::{Cell, CellError, WarmParts};
use brood_store::TemplateRow;
use brood_units::MachineId;

use super::guest::{Brood, GuestKind};
use crate::fork::{Template, Warm};
use crate::host::Host;
use crate::machine::{Machine, Size};
use crate::path::{Stamps, Stopped};

/// Blank disk of a bare guest, MiB.
const BARE_DISK_MIB: u64 = 64;
/// Warm daughters that wait in each pool.
const POOL: usize = 4;

/// All templates that were used since the engine started.
#[derive(Default)]
pub(super) struct Templates {
    known: Mutex<HashMap<MachineId, Arc<Mutex<Option<Sealed>>>>>,
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
        _origin: Cell,
    },
}

impl Templates {
    /// Claims daughters as they were planned. The first use boots and seals the template.
    pub(super) fn claim(
        &self,
        host: &Host,
        row: &TemplateRow,
        stamps: Stamps,
    ) -> Result<Brood, Box<Stopped>> {
        let place = self.place(row.id);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = match place.take() {
            Some(sealed) => Ok(sealed),
            None => Sealed::make(host, row),
        };
        match sealed {
            Ok(sealed) => place.insert(sealed).claim(host, stamps),
            Err(error) => Err(stamps.fail(error)),
        }
    }

    /// Fills the pool up again; failures show when the next daughter is wanted.
    pub(super) fn refill(&self, host: &Host, id: MachineId) {
        let place = self.place(id);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sealed) = place.as_mut() {
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

    fn place(&self, id: MachineId) -> Arc<Mutex<Option<Sealed>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(id).or_default())
    }
}

/// Ends the cells of a template; whoever fills its pool is waited for and finds it gone.
fn empty(place: &Mutex<Option<Sealed>>) {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    drop(place.take());
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
                    _origin: cell,
                })
            }
            None => Err(anyhow::anyhow!(
                "template {} starts the guest '{}', which this engine does not know",
                row.name,
                row.guest
            )),
        }
    }

    fn claim(&mut self, host: &Host, stamps: Stamps) -> Result<Brood, Box<Stopped>> {
        let wanted = stamps.stamps().len();
        if let Self::Linux { pool, .. } = self
            && pool.len() < wanted
            && let Err(error) = self.fill(host, wanted)
        {
            return Err(stamps.fail(error));
        }
        match self {
            Self::Linux { pool, .. } => Ok(Brood::fledged(stamps.claim(pool)?.stamp(), None)),
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
