//! What the engine answers, as it is kept for repeated requests too.
//!
//! Invariant: an answer is made of committed rows and says nothing that is not in them, but for timings.

use std::collections::BTreeMap;

use brood_store::{Born, EventRow, Life, MachineRow, SnapshotRow};
use brood_units::{IntentId, MachineId, Timestamp};
use serde::{Deserialize, Serialize};

/// A machine or a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineAnswer {
    /// Its id.
    pub id: MachineId,
    /// `machine` or `checkpoint`.
    pub kind: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// A part of the tenant.
    pub project: String,
    /// `running`, `paused`, `frozen`, `hibernated` or `ended`.
    pub state: String,
    /// Whom it was forked from.
    pub mother: Option<MachineId>,
    /// The first machine of its lineage.
    pub lineage: MachineId,
    /// The template at the root.
    pub template: MachineId,
    /// Forks between the first machine and this one.
    pub generation: u32,
    /// 1/1000 vCPU.
    pub vcpu_milli: u32,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it came to be, milliseconds since the epoch.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// How long nobody may ask anything of it before it ends, milliseconds.
    #[serde(default)]
    pub idle_ms: Option<u64>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub ending: Option<String>,
}

impl From<Born> for MachineAnswer {
    fn from(born: Born) -> Self {
        Self {
            id: born.id,
            kind: born.kind.as_str().to_owned(),
            name: born.name,
            project: born.project,
            state: born.state.as_str().to_owned(),
            mother: born.mother,
            lineage: born.lineage,
            template: born.template,
            generation: born.generation,
            vcpu_milli: born.shape.vcpu_milli,
            memory_mib: born.shape.memory_mib,
            labels: born.labels,
            created: born.created,
            expires: born.expires,
            idle_ms: born.idle_ms,
            ended: None,
            ending: None,
        }
    }
}

impl From<MachineRow> for MachineAnswer {
    fn from(row: MachineRow) -> Self {
        let (ended, ending) = match row.life {
            Life::Alive => (None, None),
            Life::Ended { at, how } => (Some(at), Some(how)),
        };
        Self {
            ended,
            ending,
            ..Self::from(row.born)
        }
    }
}

/// A daughter of a fork.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaughterAnswer {
    /// She.
    pub machine: MachineAnswer,
    /// Her host name, where she has an agent to set it.
    pub hostname: String,
    /// From the fork call to her first instruction, microseconds.
    pub first_instruction_us: Option<f64>,
    /// From the fork call until her identity was confirmed, microseconds; none without an agent.
    pub confirmed_us: Option<f64>,
}

/// What became of a fork, or of a machine that was made of a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForkAnswer {
    /// The intent that it is written down under.
    pub intent: IntentId,
    /// Who lives.
    pub daughters: Vec<DaughterAnswer>,
    /// Why others do not.
    pub missing: Vec<String>,
    /// Of policies.
    pub warnings: Vec<String>,
    /// How long the mother's vCPUs stood still, microseconds; none where none ran.
    pub mother_pause_us: Option<f64>,
    /// How long all hooks took together, microseconds.
    pub decided_us: f64,
    /// How long the fork and the stamps took, microseconds.
    pub forked_us: f64,
}

/// A checkpoint that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointAnswer {
    /// It.
    pub checkpoint: MachineAnswer,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAnswer {
    /// Its id.
    pub id: MachineId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whom it was taken of.
    pub machine: MachineId,
    /// The machine that is hibernated in it.
    pub hibernates: Option<MachineId>,
    /// The template at the root of that machine's lineage.
    pub template: MachineId,
    /// The first machine of that lineage.
    pub lineage: MachineId,
    /// Forks between that one and the machine.
    pub generation: u32,
    /// What runs in it.
    pub guest: String,
    /// 1/1000 vCPU.
    pub vcpu_milli: u32,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it takes on disk by itself, bytes.
    pub bytes: u64,
    /// When it was taken, milliseconds since the epoch.
    pub created: Timestamp,
}

impl From<SnapshotRow> for SnapshotAnswer {
    fn from(row: SnapshotRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            machine: row.machine,
            hibernates: row.sleeper,
            template: row.template,
            lineage: row.lineage,
            generation: row.generation,
            guest: row.guest,
            vcpu_milli: row.shape.vcpu_milli,
            memory_mib: row.shape.memory_mib,
            labels: row.labels,
            bytes: row.bytes,
            created: row.created,
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageAnswer<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Behind which place the next page begins; none after the last.
    pub next: Option<i64>,
}

/// Events behind a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsAnswer {
    /// Set if events behind the number asked for are gone: the last of them.
    pub gap: Option<i64>,
    /// The events, in order.
    pub events: Vec<EventRow>,
}
