//! What the engine and the supervisor say to each other.
//!
//! Every packet from the engine is an [`Ask`], every packet from the supervisor a [`FromSupervisor`]. The first ask is
//! [`Request::Hello`] with [`VERSION`]. Messages are postcard; enums grow at the end only, so that a supervisor of any
//! version can read the greeting of any other and refuse it in words.

use std::path::PathBuf;

use brood_units::MachineId;
use serde::{Deserialize, Serialize};

use crate::{End, EndOfProcess};

/// The version of these messages.
pub const VERSION: u32 = 2;

/// The name of the socket in the state directory.
pub const SOCKET: &str = "supervisor.sock";

/// The most cells of one [`Request::Keep`]: each has two descriptors, and a packet carries 253.
pub const MAX_KEPT: usize = 120;
/// The most entries of one [`Reply::List`], so that it fits one packet.
pub const MAX_LISTED: usize = 40;
/// The most bytes of program, arguments and words around them in [`Request::Start`].
pub const MAX_COMMAND: usize = 8 << 10;

/// One ask of the engine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Returned with the answer; the engine's own numbering.
    pub id: u64,
    /// What is asked for.
    pub request: Request,
}

/// What the supervisor can be asked for. Descriptors travel with the packet in the order named.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// First ask.
    Hello {
        /// Protocol version of the engine.
        version: u32,
    },
    /// Start the program of a cell, with its end of a control socket on standard input.
    Start {
        /// The machine it will be.
        id: MachineId,
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// Keep cells that were born and not started. Descriptors: for each the engine's end of her control socket, then her
    /// pidfd. All of them are kept or none.
    Keep {
        /// Machine and process id of each, at most [`MAX_KEPT`].
        cells: Vec<(MachineId, u32)>,
    },
    /// All cells that are kept or whose end was not noted, by id.
    List {
        /// Only those behind this one.
        after: Option<MachineId>,
    },
    /// A duplicate of a living cell's control socket and of its pidfd.
    Duplicate {
        /// Which machine.
        id: MachineId,
    },
    /// How these have ended was noted: forget them.
    Noted {
        /// Which machines; those that are not known are forgotten already.
        ids: Vec<MachineId>,
    },
    /// Kill a cell by SIGKILL. Its end is told as any other.
    Kill {
        /// Which machine.
        id: MachineId,
    },
}

/// One packet from the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromSupervisor {
    /// The answer to one ask.
    Answer {
        /// The ask's number; 0 if what was asked could not be read.
        id: u64,
        /// What came of it.
        result: Result<Reply, Refusal>,
    },
    /// A process has ended. Of those that ended while no engine was there [`Request::List`] tells.
    Ended(EndOfProcess),
}

/// What the supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The greeting is returned.
    Welcome {
        /// Protocol version of the supervisor.
        version: u32,
        /// Its process id.
        pid: u32,
    },
    /// Done, nothing to tell.
    Done,
    /// One cell. Descriptors: the engine's end of its control socket, its pidfd.
    Cell {
        /// Its process id.
        pid: u32,
    },
    /// Cells, by id.
    List {
        /// At most [`MAX_LISTED`].
        entries: Vec<Entry>,
        /// Whether there are others behind the last.
        more: bool,
    },
}

/// One cell, as the supervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which machine.
    pub id: MachineId,
    /// Its process id.
    pub pid: u32,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// Why the supervisor did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{operation}: {cause}; {remedy}")]
pub struct Refusal {
    /// What was asked.
    pub operation: String,
    /// Why it cannot be.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn new(
        operation: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            operation: operation.into(),
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }
}
