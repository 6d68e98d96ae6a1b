//! Every request and every reply. Invariant: a variant's position is its encoding, so new ones go to the end and any
//! other change raises [`crate::hello::VERSION`].

use brood_units::MachineId;
use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::error::AgentError;
use crate::exec::{
    AttachSpec, ExecId, ExecKey, ExecSpec, ExecState, ExecStatus, Output, Removal, SignalTarget,
    TtySize,
};
use crate::file::{DirPage, FileStat, MkdirParents, ReadSpec, RemoveDepth, WriteSpec};
use crate::fork::{ConfirmReport, ForkToken, QuiesceReport, StampReport, StampSpec};
use crate::stat::{Clocks, Power, Stats};

/// What the engine asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Run a program → [`Reply::Started`].
    Exec(Box<ExecSpec>),
    /// Write to a program's stdin → [`Reply::Done`] once the program's pipe took all of it.
    StdinWrite {
        /// The session.
        exec: ExecId,
        /// The bytes.
        bytes: Blob,
    },
    /// Close a program's stdin; on a terminal, type the end-of-file character → [`Reply::Done`].
    StdinClose {
        /// The session.
        exec: ExecId,
    },
    /// See a session's output → [`Reply::Output`]…, [`Reply::Ended`]. Sending anything meanwhile is an error.
    Attach(AttachSpec),
    /// → [`Reply::ExecStatus`].
    ExecStatus {
        /// The session.
        exec: ExecId,
    },
    /// → [`Reply::ExecList`].
    ExecList,
    /// Send a signal → [`Reply::Done`].
    Signal {
        /// The session.
        exec: ExecId,
        /// The signal's number, 1 to 64.
        signal: i32,
        /// Whom it is for.
        target: SignalTarget,
    },
    /// Resize a terminal → [`Reply::Done`].
    Resize {
        /// The session.
        exec: ExecId,
        /// Its new size.
        size: TtySize,
    },
    /// Forget a session → [`Reply::Done`].
    Remove {
        /// The session.
        exec: ExecId,
        /// What to do if it still runs.
        removal: Removal,
    },
    /// Read a file → [`Reply::Chunk`]…, [`Reply::FileEnd`].
    FileRead(ReadSpec),
    /// Write a file → [`Reply::Ready`]; then [`Request::Chunk`]…, [`Request::Finish`] → [`Reply::Written`].
    FileWrite(WriteSpec),
    /// Bytes of the file being written. No reply.
    Chunk(Blob),
    /// The file being written is complete.
    Finish,
    /// → [`Reply::DirPage`]….
    List {
        /// The directory.
        path: String,
    },
    /// → [`Reply::FileStat`].
    Stat {
        /// The path.
        path: String,
    },
    /// Remove a file or directory → [`Reply::Done`].
    RemovePath {
        /// The path.
        path: String,
        /// How deep.
        depth: RemoveDepth,
    },
    /// Make a directory → [`Reply::Done`].
    Mkdir {
        /// The path.
        path: String,
        /// Permission bits of the directories made.
        mode: u32,
        /// Whether to make missing ones on the way.
        parents: MkdirParents,
    },
    /// → [`Reply::Stats`].
    Stats,
    /// Read the clocks, having set `CLOCK_REALTIME` first if asked to → [`Reply::Clocks`].
    Clock {
        /// What to set `CLOCK_REALTIME` to, nanoseconds since the epoch.
        set_realtime_ns: Option<u64>,
    },
    /// Freeze the workload → [`Reply::Quiesced`] or [`AgentError::QuiesceRefused`].
    Quiesce {
        /// A fresh token.
        token: ForkToken,
        /// How long to try, milliseconds.
        timeout_ms: u32,
    },
    /// Thaw the mother, on the connection that quiesced → [`Reply::Done`].
    Thaw {
        /// The token of the quiesce.
        token: ForkToken,
    },
    /// Give a daughter its identity, on another connection → [`Reply::Stamped`].
    Stamp {
        /// The token of the quiesce.
        token: ForkToken,
        /// The identity.
        spec: Box<StampSpec>,
    },
    /// Ask a stamped daughter who it is → [`Reply::Confirmed`].
    Confirm,
    /// Thaw a confirmed daughter → [`Reply::Done`].
    ThawStamped {
        /// Whom the engine means.
        machine_id: MachineId,
    },
    /// Power off or reboot → [`Reply::Done`], then the guest ends.
    Power(Power),
    /// Move `CLOCK_REALTIME` by so much → [`Reply::Clocks`]. However long the request is on its way, the step is right.
    ClockStep {
        /// Nanoseconds, forward or back.
        by_ns: i64,
    },
    /// Thaw a mother whose quiescing connection has ended, for an engine that takes her over → [`Reply::Done`].
    Release,
    /// Whether a program was begun under a key → [`Reply::Begun`].
    ExecBegun {
        /// Whoever repeats a request has the same one.
        key: ExecKey,
    },
    /// Run a program, unless one was begun under this key → [`Reply::Started`] of that one.
    ExecOnce {
        /// Whoever repeats the request has the same one.
        key: ExecKey,
        /// The program.
        spec: Box<ExecSpec>,
    },
}

impl Request {
    /// The point at which an engine that sends it can be killed.
    pub(crate) fn point(&self) -> &'static str {
        match self {
            Self::Exec(_) => "agent: exec",
            Self::StdinWrite { .. } => "agent: stdin write",
            Self::StdinClose { .. } => "agent: stdin close",
            Self::Attach(_) => "agent: attach",
            Self::ExecStatus { .. } => "agent: exec status",
            Self::ExecList => "agent: exec list",
            Self::Signal { .. } => "agent: signal",
            Self::Resize { .. } => "agent: resize",
            Self::Remove { .. } => "agent: remove",
            Self::FileRead(_) => "agent: file read",
            Self::FileWrite(_) => "agent: file write",
            Self::Chunk(_) => "agent: chunk",
            Self::Finish => "agent: finish",
            Self::List { .. } => "agent: list",
            Self::Stat { .. } => "agent: stat",
            Self::RemovePath { .. } => "agent: remove path",
            Self::Mkdir { .. } => "agent: mkdir",
            Self::Stats => "agent: stats",
            Self::Clock { .. } => "agent: clock",
            Self::Quiesce { .. } => "agent: quiesce",
            Self::Thaw { .. } => "agent: thaw",
            Self::Stamp { .. } => "agent: stamp",
            Self::Confirm => "agent: confirm",
            Self::ThawStamped { .. } => "agent: thaw stamped",
            Self::Power(_) => "agent: power",
            Self::ClockStep { .. } => "agent: clock step",
            Self::Release => "agent: release",
            Self::ExecBegun { .. } => "agent: exec begun",
            Self::ExecOnce { .. } => "agent: exec once",
        }
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It was done.
    Done,
    /// It was not done.
    Error(AgentError),
    /// A program runs.
    Started {
        /// Its session.
        exec: ExecId,
        /// Its process id in the guest.
        pid: u32,
    },
    /// A piece of output.
    Output(Output),
    /// The end of an attachment.
    Ended {
        /// How the program ended, if it did.
        state: ExecState,
        /// Where stdout was sent to: the offset to attach from next.
        stdout_end: u64,
        /// Where stderr was sent to.
        stderr_end: u64,
    },
    /// A session.
    ExecStatus(ExecStatus),
    /// All sessions, sorted by id.
    ExecList(Vec<ExecStatus>),
    /// The file is open; send chunks.
    Ready,
    /// A piece of a file.
    Chunk(Blob),
    /// The end of what was asked of a file.
    FileEnd {
        /// The file's length in bytes at that moment.
        size: u64,
    },
    /// A file was written.
    Written {
        /// Bytes written.
        bytes: u64,
    },
    /// Entries of a directory.
    DirPage(DirPage),
    /// Metadata.
    FileStat(FileStat),
    /// Figures.
    Stats(Stats),
    /// Clocks.
    Clocks(Clocks),
    /// The workload is frozen.
    Quiesced(QuiesceReport),
    /// The identity is applied.
    Stamped(StampReport),
    /// Who the daughter is.
    Confirmed(ConfirmReport),
    /// The session that was begun under a key, if one was.
    Begun(Option<ExecId>),
}

impl Reply {
    /// The reply's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::Error(_) => "Error",
            Self::Started { .. } => "Started",
            Self::Output(_) => "Output",
            Self::Ended { .. } => "Ended",
            Self::ExecStatus(_) => "ExecStatus",
            Self::ExecList(_) => "ExecList",
            Self::Ready => "Ready",
            Self::Chunk(_) => "Chunk",
            Self::FileEnd { .. } => "FileEnd",
            Self::Written { .. } => "Written",
            Self::DirPage(_) => "DirPage",
            Self::FileStat(_) => "FileStat",
            Self::Stats(_) => "Stats",
            Self::Clocks(_) => "Clocks",
            Self::Quiesced(_) => "Quiesced",
            Self::Stamped(_) => "Stamped",
            Self::Confirmed(_) => "Confirmed",
            Self::Begun(_) => "Begun",
        }
    }
}
