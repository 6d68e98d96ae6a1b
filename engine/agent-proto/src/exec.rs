//! Exec sessions: a program in the guest, its input, its bounded output and its end. Invariant: output is addressed
//! by absolute offsets from the start of each stream, which neither a lost connection nor a fork changes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::blob::{Blob, EnvMap};

/// The smallest and largest output ring, in bytes a stream.
pub const RING_BYTES: std::ops::RangeInclusive<u32> = 4096..=16 * 1024 * 1024;

/// An exec session of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecId(pub u32);

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Where a program's stdin comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// `/dev/null`. With a terminal, the terminal nobody types at.
    None,
    /// What [`crate::Request::StdinWrite`] sends.
    Pipe,
}

/// Where a guest has its [`ProgramDefaults`], as JSON. It is below a file system in memory, so a fork copies it.
pub const DEFAULTS_FILE: &str = "/run/brood/defaults.json";

/// What a program gets that its client said nothing about: what the image of the root disk says of its programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramDefaults {
    /// Variables under those that stamps set.
    pub env: EnvMap,
    /// The working directory.
    pub cwd: Option<String>,
    /// As [`ExecSpec::user`].
    pub user: Option<String>,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments. A program without `/` is looked for in `PATH`.
    pub argv: Vec<String>,
    /// Variables put over the guest's own environment.
    pub env: EnvMap,
    /// The working directory; `/` if none.
    pub cwd: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; root if none.
    pub user: Option<String>,
    /// A terminal of this size, in which stdout and stderr are merged.
    pub tty: Option<TtySize>,
    /// Ends the program and its descendants after it has *run* for so many milliseconds; time quiesced does not count.
    pub timeout_ms: Option<u64>,
    /// Where its stdin comes from.
    pub stdin: Stdin,
    /// Bytes kept of each output stream, clamped to [`RING_BYTES`].
    pub ring_bytes: u32,
}

impl ExecSpec {
    /// `argv` as root in `/`, without stdin, terminal or timeout, keeping 256 KiB of each output stream.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: EnvMap::new(),
            cwd: None,
            user: None,
            tty: None,
            timeout_ms: None,
            stdin: Stdin::None,
            ring_bytes: 256 * 1024,
        }
    }
}

/// Whether and how a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecState {
    /// It runs.
    Running,
    /// It exited.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// It ran longer than its timeout and was killed.
    TimedOut,
}

/// What is known of an exec session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStatus {
    /// The session.
    pub exec: ExecId,
    /// The program's process id in the guest.
    pub pid: u32,
    /// The program, `argv[0]`.
    pub program: String,
    /// Whether it ended.
    pub state: ExecState,
    /// Bytes of stdout made so far (of both, with a terminal).
    pub stdout_end: u64,
    /// Bytes of stderr made so far.
    pub stderr_end: u64,
}

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// From where a stream is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// The oldest byte still kept; nothing counts as lost.
    Oldest,
    /// This absolute offset. Bytes overwritten since are reported as lost.
    Offset(u64),
    /// What is made from now on.
    Now,
}

/// When an attachment ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Follow {
    /// When the program has ended and all its output was sent.
    UntilExit,
    /// When the output kept at this moment was sent.
    Snapshot,
    /// When the program has ended. No output is sent.
    Exit,
}

/// A wish to see a session's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachSpec {
    /// The session.
    pub exec: ExecId,
    /// From where stdout is sent.
    pub stdout: From,
    /// From where stderr is sent.
    pub stderr: From,
    /// When to end.
    pub follow: Follow,
}

impl AttachSpec {
    /// From the first byte on, of which what is not kept any more counts as lost, until the program ends.
    pub fn all(exec: ExecId) -> Self {
        Self {
            exec,
            stdout: From::Offset(0),
            stderr: From::Offset(0),
            follow: Follow::UntilExit,
        }
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its stream.
    pub stream: Stream,
    /// Bytes between the last piece (or the offset asked for) and this one that were overwritten before they were sent.
    pub lost: u64,
    /// The absolute offset of the first byte.
    pub offset: u64,
    /// The bytes.
    pub bytes: Blob,
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalTarget {
    /// The program's process group.
    Group,
    /// The program alone.
    Leader,
}

/// What to do with a session whose program still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Removal {
    /// Refuse to remove it.
    EndedOnly,
    /// Kill the program and everything it started, then remove it.
    Kill,
}
