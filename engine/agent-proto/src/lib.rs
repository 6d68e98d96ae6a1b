//! Messages between the engine and the in-guest agent, their framing, and the host-side client.
//!
//! One connection carries one conversation: a [`hello`] in each direction, then request, reply, request, reply. Three
//! requests stream: an attachment and a file read answer with many frames, a file write is followed by many.
//! Invariant: nothing the other side sends can make this crate panic, allocate more than one frame
//! ([`frame::MAX_FRAME`]) or wait past the caller's deadline.

pub mod blob;
pub mod client;
pub mod errno;
pub mod error;
pub mod exec;
pub mod file;
pub mod fork;
pub mod frame;
pub mod hello;
pub mod message;
pub mod stat;

pub use client::{
    AttachEvent, Attachment, Client, ClientError, Confirmed, ExecOutput, Quiesced, StampTicket,
    Stamped,
};
pub use error::{AgentError, Blocker, ForkRefusal, SpawnStep};
pub use fork::{BootId, ConfirmReport, ForkToken, Seed, StampReport, StampSpec, StampStep};
pub use message::{Reply, Request};

/// The vsock port on which the agent listens, whatever the guest's CID.
pub const AGENT_PORT: u32 = 1024;
