//! What is written down with a machine so that another engine can take it over.
//!
//! Invariant: it is made of a guest that lives and is enough to make one that is the same to its caller.

use brood_agent_proto::{ForkToken, StampTicket};
use brood_cell::Cell;
use brood_cell::protocol::Motion;
use brood_store::{Born, MachineKind, MachineState};
use brood_units::MachineId;
use serde::{Deserialize, Serialize};

use super::EngineError;
use super::guest::Guest;
use crate::fork::Frozen;
use crate::machine::Machine;

/// What an engine cannot learn from the cell.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Carried {
    /// The id under which the supervisor keeps the cell; none where no supervisor does.
    pub(super) cell: Option<MachineId>,
    guest: CarriedGuest,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CarriedGuest {
    Bare,
    Linux {
        hostname: String,
    },
    /// A frozen point, and what its daughters are stamped with.
    LinuxPoint {
        token: ForkToken,
        mother: MachineId,
        generation: u32,
    },
}

impl Carried {
    pub(super) fn of(guest: &Guest) -> Self {
        let cell = guest.kept_as();
        let guest = match guest {
            Guest::Bare(_) => CarriedGuest::Bare,
            Guest::Linux(machine) => CarriedGuest::Linux {
                hostname: machine.hostname.clone(),
            },
            Guest::LinuxPoint(point) => CarriedGuest::LinuxPoint {
                token: point.ticket().token(),
                mother: point.mother(),
                generation: point.generation(),
            },
        };
        Self { cell, guest }
    }

    pub(super) fn read(born: &Born) -> Result<Self, String> {
        serde_json::from_str(&born.carried)
            .map_err(|error| format!("what was written down of it cannot be read: {error}"))
    }

    pub(super) fn write(&self) -> Result<String, EngineError> {
        serde_json::to_string(self)
            .map_err(|error| EngineError::Failed(format!("a machine cannot be written: {error}")))
    }

    /// The guest in a cell that was taken over; it moves or stands still as was written down.
    pub(super) fn guest(
        self,
        born: &Born,
        mut cell: Cell,
        motion: Motion,
    ) -> Result<Guest, String> {
        let moved = match (born.state, motion) {
            (MachineState::Running, Motion::Paused) => cell.resume(),
            (MachineState::Paused, Motion::Running) => cell.pause(),
            _ => Ok(()),
        };
        moved.map_err(|error| error.to_string())?;
        let is_point = motion == Motion::Frozen;
        if is_point != (born.kind == MachineKind::Checkpoint) {
            return Err("its cell holds something else than was written down".to_owned());
        }
        Ok(match self.guest {
            CarriedGuest::Bare => Guest::Bare(cell),
            CarriedGuest::Linux { hostname } => Guest::Linux(Box::new(Machine {
                id: born.id,
                mother: born.mother,
                generation: born.generation,
                hostname,
                cell,
                agent: None,
            })),
            CarriedGuest::LinuxPoint {
                token,
                mother,
                generation,
            } => {
                let ticket = StampTicket::from_token(token);
                Guest::LinuxPoint(Box::new(Frozen::new(cell, ticket, mother, generation)))
            }
        })
    }
}
