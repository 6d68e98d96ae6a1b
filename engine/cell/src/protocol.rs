//! What the engine and a cell say to each other.
//!
//! Every packet from the engine is an [`Ask`]; every packet from a cell is a [`FromCell`]: the answer to one ask, or
//! an event. The first packet in each direction carries [`VERSION`]. Messages are postcard; enums grow at the end
//! only, so that a cell keeps speaking the protocol it was born with.

use brood_units::{Instant, MachineId};
use serde::{Deserialize, Serialize};

pub use brood_control::ChildEnd;
/// The command line that a Linux guest of a cell needs.
pub use brood_vmm::boot::CMDLINE;

/// The version of these messages.
pub const VERSION: u32 = 2;

/// The most daughters of one fork: each needs a descriptor in one packet.
pub const MAX_DAUGHTERS: u32 = 240;

/// The most units of RAM one [`Request::Collapse`] names: meanwhile the cell does nothing else, about 2 ms.
pub const MAX_UNITS: usize = 8;

/// The hardware of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Bytes of RAM, a multiple of 2 MiB, 64 MiB at least.
    pub ram_bytes: u64,
    /// vCPUs, 1 to 8.
    pub vcpus: u32,
    /// The disk, if there is one.
    pub disk: Option<DiskSpec>,
}

/// A disk: a read-only base below a copy-on-write overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskSpec {
    /// A base image comes as a descriptor; the capacity is its size.
    Base,
    /// No base: a blank disk of this many bytes, a multiple of 512.
    Blank {
        /// Capacity in bytes.
        bytes: u64,
    },
}

/// What runs in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestSpec {
    /// The bare-metal guest of the engine's own tests and benches.
    Bare,
    /// A Linux kernel and initramfs, which come as descriptors.
    Linux {
        /// The kernel command line.
        command_line: String,
    },
}

/// One ask of the engine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Returned with the answer; the engine's own numbering.
    pub id: u64,
    /// What is asked for.
    pub request: Request,
}

/// What a cell can be asked for. Descriptors travel with the packet in the order named.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// First packet: make a machine and jail the cell; the guest does not run yet. Descriptors: `/dev/kvm`, the
    /// base image if the disk has one, then kernel and initramfs for Linux.
    Boot {
        /// Protocol version of the engine.
        version: u32,
        /// Hardware.
        machine: MachineSpec,
        /// Software.
        guest: GuestSpec,
    },
    /// First packet: make a warm daughter of a sealed template, held before her first instruction. Descriptors:
    /// `/dev/kvm`, sealed RAM, state, then the template's disk files.
    Load {
        /// Protocol version of the engine.
        version: u32,
    },
    /// Let the vCPUs run (boot, resume, or claim of a warm daughter).
    Resume,
    /// Stop the vCPUs between two instructions.
    Pause,
    /// Fork the machine as it is now. Descriptors: one control socket per daughter, then one for the checkpoint.
    Fork(ForkSpec),
    /// Move RAM into a sealed image; the vCPUs stand still meanwhile.
    Seal,
    /// Seal the paused machine and give out what warm daughters are made of.
    Template,
    /// Turn units of RAM, each the 2 MiB at that multiple, into private huge pages, at most [`MAX_UNITS`]; the vCPUs
    /// stand still for each of them.
    Collapse {
        /// Which ones.
        units: Vec<u32>,
    },
    /// Counters and times.
    Stats,
    /// Console output from an offset on.
    Console {
        /// Bytes since the guest started.
        offset: u64,
    },
    /// A command for the bare guest.
    Mailbox {
        /// Which vCPU takes it.
        vcpu: u32,
        /// The operation, as `brood_bare_guest::mailbox` defines them.
        operation: u32,
        /// Its arguments.
        arguments: [u64; 4],
    },
    /// Connect a stream to a guest's vsock port. Descriptor: the engine's end of the stream.
    VsockOpen {
        /// The port the guest listens on.
        port: u32,
    },
    /// Serve a Unix socket whose clients say `CONNECT port`. Descriptor: the listening socket.
    VsockListen,
    /// Let the guest connect to a host port; each connection comes as [`Event::GuestConnect`].
    VsockServe {
        /// The host port.
        port: u32,
    },
    /// A new empty layer for the disk's writes. Descriptor: an unlinked file.
    GiveLayer,
    /// Whether the cell ends when this socket closes.
    Orphan(OrphanPolicy),
    /// End now.
    Kill,
    /// An engine takes the cell over: what was said before the answer was for another.
    Hello {
        /// Protocol version of the engine.
        version: u32,
        /// Returned with the answer.
        nonce: [u8; 16],
    },
    /// Which machine the engine calls this. Daughters have no name until they are given one.
    Name {
        /// Its id.
        id: MachineId,
    },
    /// Give out everything of a frozen checkpoint or a paused machine, to be restored elsewhere. Descriptors: where RAM
    /// is written to, as `brood_snapshot::stream` says; then this process's `/proc/PID/pagemap`, if the engine may open
    /// it. Meanwhile the cell does nothing else.
    Save,
    /// First packet: make a machine of a snapshot, held before its next instruction; RAM comes as it is touched. What
    /// wants all of RAM is done, and answered, once it is there. Descriptors: `/dev/kvm`, the table
    /// (`brood_snapshot::table`, a sealed memfd), state, disk files, then the files that the table names: files of
    /// chunks, or one socket of a page server.
    Restore {
        /// Protocol version of the engine.
        version: u32,
        /// Where chunks come from.
        source: ChunkSource,
        /// Which chunks come that nobody touches.
        fetch: Fetch,
    },
    /// Answered once RAM is whole, which then comes as fast as it can; at once by a machine that was not restored.
    Fill,
    /// Which chunks of RAM the guest and its devices have waited for since the restore. From then on the others come in
    /// the background.
    WorkingSet,
}

/// Where the chunks of a snapshot come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkSource {
    /// Files.
    Files,
    /// A server that speaks [`crate::pages`]; the table names one file.
    Server {
        /// How long it may take for one chunk, milliseconds.
        patience_ms: u32,
    },
}

/// Which chunks of a snapshot are fetched that nobody touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetch {
    /// None, until [`Request::WorkingSet`] or whatever wants all of RAM: so a working set is recorded.
    OnlyTouched,
    /// The working set at once, then all others in the background.
    Ahead,
    /// All, as fast as they can.
    AtOnce,
}

impl Request {
    /// What is asked for, as crash points and logs name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boot { .. } => "cell: boot",
            Self::Load { .. } => "cell: load",
            Self::Resume => "cell: resume",
            Self::Pause => "cell: pause",
            Self::Fork(_) => "cell: fork",
            Self::Seal => "cell: seal",
            Self::Template => "cell: template",
            Self::Collapse { .. } => "cell: collapse",
            Self::Stats => "cell: stats",
            Self::Console { .. } => "cell: console",
            Self::Mailbox { .. } => "cell: mailbox",
            Self::VsockOpen { .. } => "cell: vsock open",
            Self::VsockListen => "cell: vsock listen",
            Self::VsockServe { .. } => "cell: vsock serve",
            Self::GiveLayer => "cell: give layer",
            Self::Orphan(_) => "cell: orphan",
            Self::Kill => "cell: kill",
            Self::Hello { .. } => "cell: hello",
            Self::Name { .. } => "cell: name",
            Self::Save => "cell: save",
            Self::Restore { .. } => "cell: restore",
            Self::Fill => "cell: fill",
            Self::WorkingSet => "cell: working set",
        }
    }
}

/// What a cell does when the engine's end of its socket closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrphanPolicy {
    /// It ends; the rule.
    End,
    /// It stays, paused or running as it is.
    Stay,
}

/// What a fork makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkSpec {
    /// How many daughters.
    pub daughters: u32,
    /// Whether the frozen point is kept as a checkpoint.
    pub checkpoint: Checkpoint,
    /// Whether daughters run at once.
    pub start: Start,
}

/// Whether a fork keeps its frozen point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Checkpoint {
    /// It disappears with the fork.
    Drop,
    /// It stays and can be forked again.
    Keep,
}

/// Whether a daughter runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// As soon as her state is in place.
    Run,
    /// Held until she is resumed.
    Hold,
}

/// One packet from a cell.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromCell {
    /// The answer to one ask.
    Answer {
        /// The ask's number.
        id: u64,
        /// What came of it.
        result: Result<Reply, Refusal>,
    },
    /// Something happened.
    Event(Event),
}

/// What a cell answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// The machine is made.
    Ready {
        /// Protocol version of the cell.
        version: u32,
    },
    /// The point of the fork is taken; daughters report themselves.
    Forked {
        /// When the stages ended.
        times: ForkTimes,
        /// The process of the point, which becomes the last of those that come out.
        point: u32,
    },
    /// RAM is sealed.
    Sealed(Sealed),
    /// What warm daughters are made of. Descriptors: sealed RAM, state, disk files.
    Template,
    /// Units of RAM are collapsed.
    Collapsed {
        /// For each, nanoseconds the vCPUs stood still.
        paused_nanos: Vec<u64>,
    },
    /// Counters and times.
    Stats(Stats),
    /// Console output.
    Console {
        /// Bytes before `bytes` that were overwritten.
        lost: u64,
        /// Offset behind the last byte.
        next: u64,
        /// Output.
        bytes: Vec<u8>,
    },
    /// The greeting is returned.
    Hello {
        /// Protocol version of the cell.
        version: u32,
        /// As it was sent.
        nonce: [u8; 16],
        /// What the cell is.
        state: CellState,
    },
    /// RAM is written. Descriptors: state, disk files.
    Saved,
    /// The chunks that were waited for. Descriptor: their numbers, u32 little-endian, in the order of the first wait.
    WorkingSet {
        /// How many.
        chunks: u32,
    },
}

/// What a cell is, for an engine that did not start it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellState {
    /// Which machine an engine called it, if one has.
    pub name: Option<MachineId>,
    /// The hardware.
    pub machine: MachineSpec,
    /// Whether it runs.
    pub motion: Motion,
    /// How often this machine's line was forked before it was born.
    pub depth: u32,
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Motion {
    /// Its vCPUs run.
    Running,
    /// They stand still and can be resumed.
    Paused,
    /// A checkpoint, which has none.
    Frozen,
}

/// What a sealing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Bytes in the image.
    pub image_bytes: u64,
    /// Bytes of it in huge pages.
    pub huge_bytes: u64,
    /// Nanoseconds the vCPUs stood still.
    pub paused_nanos: u64,
}

/// When the stages of a fork ended in the mother.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ForkTimes {
    /// The mother read the request.
    pub asked: Instant,
    /// Every vCPU stood still.
    pub parked: Instant,
    /// State was read.
    pub saved: Instant,
    /// The frozen point existed.
    pub cloned: Instant,
}

/// When the stages of a fork ended in a daughter.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct BirthTimes {
    /// The daughter's process existed.
    pub born: Instant,
    /// Her machine existed.
    pub created: Instant,
    /// Her state was in place.
    pub restored: Instant,
}

/// Counters and times of a cell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Units of progress the bare guest reported.
    pub ticks: u64,
    /// Its vCPUs stand still.
    pub paused: bool,
    /// When vCPU 0 was last parked.
    pub parked: Instant,
    /// When vCPU 0 last entered the guest after a resume.
    pub entered: Instant,
    /// The first exit of vCPU 0 after that.
    pub first_exit: Instant,
    /// Disk layers below the next write.
    pub layers: u32,
    /// How often this machine's line was forked before it was born.
    pub depth: u32,
    /// Where RAM begins in the cell's address space.
    pub ram_address: u64,
    /// Bytes of RAM.
    pub ram_bytes: u64,
}

/// Things a cell tells unasked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A daughter or checkpoint exists. Descriptor: her pidfd.
    Born {
        /// Protocol version of the cell.
        version: u32,
        /// Which one of the fork she is; the checkpoint comes after the daughters.
        index: u32,
        /// How long it took.
        times: BirthTimes,
    },
    /// A daughter could not be made; her process ends.
    Stillborn {
        /// Which one of the fork.
        index: u32,
        /// Why.
        reason: String,
    },
    /// The guest ran after a resume: its first exit, or the first queue it kicked.
    FirstInstruction {
        /// When.
        at: Instant,
    },
    /// The bare guest answered a command.
    MailboxReply {
        /// Which vCPU.
        vcpu: u32,
        /// Its answer.
        value: u64,
    },
    /// The disk needs a writable layer: [`Request::GiveLayer`].
    WantsLayer,
    /// The guest opened a vsock connection to the host. Descriptor: the stream.
    GuestConnect {
        /// The host port.
        port: u32,
    },
    /// The machine will not run again; the cell's process ends next.
    Ended(Ending),
    /// Whom a frozen point has forked, said over the socket of the last one, which the point itself becomes.
    Delivered {
        /// Process ids of the others in the order of the sockets; 0 where fork(2) failed.
        infants: Vec<u32>,
    },
    /// A process this cell had forked has ended, and its status was the cell's to take.
    ChildEnded(ChildEnd),
    /// RAM of a restored machine is whole: the files of the snapshot, or the page server, are needed no more.
    Whole,
}

/// How a machine came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reboot,
    /// The guest's kernel panicked; its own words.
    Panic {
        /// The panic line of the console.
        message: String,
    },
    /// The guest triple-faulted.
    TripleFault {
        /// Which vCPU.
        vcpu: u32,
    },
    /// KVM could not go on.
    Refused {
        /// Why.
        reason: String,
    },
    /// The engine asked for it.
    Killed,
    /// The other end of the control socket closed, or the supervisor has gone.
    Orphaned,
    /// A chunk of a restored machine's RAM could not be had, or is not what was saved.
    Unreadable {
        /// Its number: RAM is cut into chunks of 64 KiB.
        chunk: u32,
        /// Where it should have been, and what is wrong.
        reason: String,
    },
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered off"),
            Self::Reboot => f.write_str("the guest asked for a reset"),
            Self::Panic { message } => write!(f, "the guest's kernel panicked: {message}"),
            Self::TripleFault { vcpu } => write!(f, "the guest triple-faulted on vCPU {vcpu}"),
            Self::Refused { reason } => write!(f, "the machine could not go on: {reason}"),
            Self::Killed => f.write_str("the engine asked for its end"),
            Self::Orphaned => f.write_str("its engine or supervisor has gone"),
            Self::Unreadable { chunk, reason } => {
                write!(
                    f,
                    "chunk {chunk} of its RAM could not be restored: {reason}"
                )
            }
        }
    }
}

/// Why a cell did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{operation}: {cause}; {remedy}")]
pub struct Refusal {
    /// What was asked.
    pub operation: String,
    /// Why it cannot be, innermost cause last.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}
