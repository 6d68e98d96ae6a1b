//! What daughters are made of: a machine that runs, a checkpoint, or a template.

use brood_hooks::Resources;
use brood_store::{MachineKind, MachineRow, ShapeRow, TemplateRow};
use brood_units::MachineId;

use super::{Engine, EngineError, secret};
use crate::ask::{Mother, MotherKind};
use crate::secret::Given;

/// What daughters are made of.
#[derive(Clone)]
pub(super) enum Source {
    Machine(Box<MachineRow>),
    Template(Box<TemplateRow>),
}

impl Source {
    /// What it is, as a label.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Machine(row) => row.born.kind.as_str(),
            Self::Template(_) => "template",
        }
    }

    pub(super) fn id(&self) -> MachineId {
        match self {
            Self::Machine(row) => row.born.id,
            Self::Template(row) => row.id,
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
        }
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
        let Source::Machine(row) = source else {
            return Ok(Vec::new());
        };
        let rows = self.store().read(|read| read.given(row.born.id))?;
        Ok(rows.into_iter().map(secret::given).collect())
    }
}
