//! What daughters are made of: a machine that runs, a checkpoint, a template or a snapshot.

use brood_hooks::Resources;
use brood_store::{MachineKind, MachineRow, ShapeRow, SnapshotRow, TemplateRow};
use brood_units::MachineId;

use super::{Engine, EngineError, secret};
use crate::ask::{Mother, MotherKind};
use crate::secret::Given;

/// What daughters are made of.
#[derive(Clone)]
pub(super) enum Source {
    Machine(Box<MachineRow>),
    Template(Box<TemplateRow>),
    Snapshot(Box<SnapshotRow>),
    /// A machine that is hibernated, and what she sleeps in: nobody but herself comes of it.
    Asleep(Box<MachineRow>, Box<SnapshotRow>),
}

impl Source {
    /// What it is, as a label.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Machine(row) => row.born.kind.as_str(),
            Self::Template(_) => "template",
            Self::Snapshot(_) => "snapshot",
            Self::Asleep(..) => "hibernated",
        }
    }

    pub(super) fn id(&self) -> MachineId {
        match self {
            Self::Machine(row) => row.born.id,
            Self::Template(row) => row.id,
            Self::Snapshot(row) => row.id,
            Self::Asleep(row, _) => row.born.id,
        }
    }

    /// The snapshot that it is.
    pub(super) fn snapshot(&self) -> Option<MachineId> {
        match self {
            Self::Snapshot(row) => Some(row.id),
            Self::Machine(_) | Self::Template(_) | Self::Asleep(..) => None,
        }
    }

    /// The mother's memory that is in this host's already, MiB: nothing of who is on disk is.
    pub(super) fn resident_mib(&self) -> u32 {
        match self {
            Self::Machine(row) => row.born.shape.memory_mib,
            Self::Template(row) => row.memory_mib,
            Self::Snapshot(_) | Self::Asleep(..) => 0,
        }
    }

    pub(super) fn mother(&self) -> Mother {
        match self {
            Self::Machine(row) => {
                let born = &row.born;
                Mother {
                    kind: match born.kind {
                        MachineKind::Machine => MotherKind::Running,
                        MachineKind::Checkpoint => MotherKind::Checkpoint,
                    },
                    id: born.id,
                    template: born.template,
                    generation: born.generation,
                    shape: resources(born.shape),
                    // Not measured on the way of a fork: all of it is the most that it can be.
                    private_mib: born.shape.memory_mib,
                    labels: born.labels.clone().into_iter().collect(),
                }
            }
            Self::Template(row) => Mother {
                kind: MotherKind::Template,
                id: row.id,
                template: row.id,
                generation: 0,
                shape: Resources {
                    vcpu_milli: row.vcpus.saturating_mul(1000),
                    memory_mib: row.memory_mib,
                    ..Resources::default()
                },
                private_mib: 0,
                labels: Vec::new(),
            },
            Self::Snapshot(row) => restored(MotherKind::Snapshot, row.id, row),
            Self::Asleep(machine, row) => restored(MotherKind::Hibernated, machine.born.id, row),
        }
    }
}

/// Who is restored shares nothing with anybody.
fn restored(kind: MotherKind, id: MachineId, row: &SnapshotRow) -> Mother {
    Mother {
        kind,
        id,
        template: row.template,
        generation: row.generation,
        shape: resources(row.shape),
        private_mib: row.shape.memory_mib,
        labels: row.labels.clone().into_iter().collect(),
    }
}

fn resources(shape: ShapeRow) -> Resources {
    Resources {
        vcpu_milli: shape.vcpu_milli,
        memory_mib: shape.memory_mib,
        disk_mib: shape.disk_mib,
        more: Vec::new(),
    }
}

impl Engine {
    /// What the mother was given.
    pub(super) fn given(&self, source: &Source) -> Result<Vec<Given>, EngineError> {
        let holder = match source {
            Source::Machine(row) | Source::Asleep(row, _) => row.born.id,
            Source::Snapshot(row) => row.id,
            Source::Template(_) => return Ok(Vec::new()),
        };
        let rows = self.store().read(|read| read.given(holder))?;
        Ok(rows.into_iter().map(secret::given).collect())
    }
}
