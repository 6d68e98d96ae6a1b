//! What the engine writes into a snapshot besides state and memory, so that another engine can take it.
//!
//! Invariant: whatever comes out of [`Meta::read`] has been checked as a caller's request would be: a snapshot may have
//! been made by anybody.

use std::collections::BTreeMap;
use std::io;

use brood_agent_proto::{ForkToken, StampTicket};
use brood_store::{Born, ShapeRow, SnapshotRow};
use brood_units::{MachineId, Timestamp};
use serde::{Deserialize, Serialize};

use super::super::guest::{Guest, GuestKind};
use super::super::{EngineError, now};
use crate::ask::check_labels;
use crate::snapshot::{Incoming, SnapshotError};

/// The version that this engine writes, and the only one that it reads.
const VERSION: u32 = 1;

/// Where a snapshot comes from and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    version: u32,
    machine: MachineId,
    template: MachineId,
    lineage: MachineId,
    generation: u32,
    vcpu_milli: u32,
    memory_mib: u32,
    disk_mib: u32,
    labels: BTreeMap<String, String>,
    guest: CarriedPoint,
    created: Timestamp,
}

/// What daughters are stamped with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CarriedPoint {
    Bare,
    Linux { token: ForkToken, hostname: String },
}

impl CarriedPoint {
    /// Of a frozen point, or of a machine that has no agent.
    pub(super) fn of(point: &Guest) -> Result<Self, EngineError> {
        match point {
            Guest::Bare(_) => Ok(Self::Bare),
            Guest::LinuxPoint(point) => Ok(Self::linux(point.ticket(), "")),
            Guest::Linux(_) => Err(EngineError::Failed(
                "a machine that is not quiesced has no ticket for a stamp".to_owned(),
            )),
        }
    }

    pub(super) fn linux(ticket: &StampTicket, hostname: &str) -> Self {
        Self::Linux {
            token: ticket.token(),
            hostname: hostname.to_owned(),
        }
    }

    pub(super) fn read(row: &SnapshotRow) -> Result<Self, EngineError> {
        serde_json::from_str(&row.carried).map_err(|error| {
            EngineError::Failed(format!(
                "what was written down of snapshot {} cannot be read: {error}",
                row.id
            ))
        })
    }

    fn kind(&self) -> GuestKind {
        match self {
            Self::Bare => GuestKind::Bare,
            Self::Linux { .. } => GuestKind::Linux,
        }
    }
}

impl Meta {
    /// Of a machine or checkpoint, as of now. Labels are the machine's own unless some are given.
    pub(super) fn of(born: &Born, guest: CarriedPoint, labels: BTreeMap<String, String>) -> Self {
        let labels = match labels.is_empty() {
            true => born.labels.clone(),
            false => labels,
        };
        let is_point = born.kind == brood_store::MachineKind::Checkpoint;
        Self {
            version: VERSION,
            // A checkpoint is a moment of its machine.
            machine: born.mother.filter(|_| is_point).unwrap_or(born.id),
            template: born.template,
            lineage: born.lineage,
            generation: born.generation,
            vcpu_milli: born.shape.vcpu_milli,
            memory_mib: born.shape.memory_mib,
            disk_mib: born.shape.disk_mib,
            labels,
            guest,
            created: now(),
        }
    }

    pub(super) fn write(&self) -> Result<String, EngineError> {
        serde_json::to_string(self)
            .map_err(|error| EngineError::Failed(format!("a snapshot cannot be written: {error}")))
    }

    /// Of a snapshot that is being imported. How much memory it takes says its memory, not whoever made it.
    pub(super) fn read<R: io::Read>(incoming: &Incoming<R>) -> Result<Self, SnapshotError> {
        let meta = Self::parse(incoming.about())?;
        let most = incoming.vcpus().saturating_mul(1000);
        if meta.vcpu_milli == 0 || meta.vcpu_milli > most {
            return Err(SnapshotError::Damaged(format!(
                "it says that its machine has {} of {most} thousandths of a vCPU",
                meta.vcpu_milli
            )));
        }
        let memory_mib = u32::try_from(incoming.ram_mib()).unwrap_or(u32::MAX);
        Ok(Self { memory_mib, ..meta })
    }

    fn parse(text: &str) -> Result<Self, SnapshotError> {
        let damaged = |error: serde_json::Error| {
            SnapshotError::Damaged(format!(
                "what it says of its machine cannot be read: {error}"
            ))
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text).map_err(damaged)?;
        if version != VERSION {
            return Err(SnapshotError::Unfit(format!(
                "what it says of its machine is of version {version}, and this engine reads version {VERSION}"
            )));
        }
        let meta: Self = serde_json::from_str(text).map_err(damaged)?;
        check_labels(&meta.labels).map_err(|error| SnapshotError::Damaged(error.to_string()))?;
        Ok(meta)
    }

    /// vCPUs of its machine.
    pub(super) const fn vcpus(&self) -> u32 {
        self.vcpu_milli.div_ceil(1000)
    }

    /// Its row.
    pub(super) fn row(
        self,
        id: MachineId,
        owner: Owner,
        bytes: u64,
    ) -> Result<SnapshotRow, EngineError> {
        let carried = serde_json::to_string(&self.guest).map_err(|error| {
            EngineError::Failed(format!("a snapshot cannot be written: {error}"))
        })?;
        Ok(SnapshotRow {
            seq: 0,
            id,
            tenant: owner.tenant,
            name: owner.name,
            machine: self.machine,
            sleeper: owner.sleeper,
            template: self.template,
            lineage: self.lineage,
            generation: self.generation,
            guest: self.guest.kind().as_str().to_owned(),
            shape: ShapeRow {
                vcpu_milli: self.vcpu_milli,
                memory_mib: self.memory_mib,
                disk_mib: self.disk_mib,
            },
            labels: self.labels,
            carried,
            bytes,
            created: self.created,
        })
    }
}

/// Whose a snapshot is.
pub(super) struct Owner {
    pub(super) tenant: String,
    pub(super) name: Option<String>,
    pub(super) sleeper: Option<MachineId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        let id = MachineId::from_bytes([3; 16]);
        Meta {
            version: VERSION,
            machine: id,
            template: id,
            lineage: id,
            generation: 2,
            vcpu_milli: 1000,
            memory_mib: 64,
            disk_mib: 0,
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            guest: CarriedPoint::Linux {
                token: ForkToken([9; 16]),
                hostname: "one".to_owned(),
            },
            created: Timestamp::from_millis(7),
        }
    }

    #[test]
    fn what_travels_comes_back_as_it_was_and_nothing_else_is_taken() {
        let text = meta().write().expect("text");
        assert_eq!(Meta::parse(&text).ok(), Some(meta()));
        let newer = text.replace("\"version\":1", "\"version\":2");
        let refused = Meta::parse(&newer).expect_err("newer");
        assert!(matches!(refused, SnapshotError::Unfit(_)), "{refused}");
        for hostile in [
            text.replace("\"team\"", "\"brood.node\""),
            text.replace("\"team\"", "\"\""),
            text.replace("64", "-64"),
            text.replace("linux", "windows"),
            text.get(..text.len() / 2).unwrap_or_default().to_owned(),
        ] {
            let refused = Meta::parse(&hostile).expect_err(&hostile);
            assert!(matches!(refused, SnapshotError::Damaged(_)), "{refused}");
        }
    }
}
