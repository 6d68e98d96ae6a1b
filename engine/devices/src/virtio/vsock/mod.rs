//! virtio socket device (virtio 1.3 §5.10): stream sockets between the guest and Unix sockets of the host, without
//! vhost.
//!
//! ```text
//!  guest app ── AF_VSOCK ── driver ══ rx, tx, event queues ══ Vsock ── UnixStream ── host program
//!
//!  host opens     VirtioMmio<Vsock>::open, or a client of the listener writes "CONNECT <port>\n"
//!  guest opens    Vsock::listen(port), then Vsock::take_guest_connect
//! ```
//!
//! Both directions are under credit flow control, so a reader that does not read costs at most `buf_alloc` bytes of
//! this process and never blocks it. Owner's loop: poll what [`Vsock::poll_fds`] yields, then call
//! `VirtioMmio::host_ready` for each that is ready.
//!
//! Invariant: the guest's packets and the host's sockets alone decide; there is no timer.

mod client;
mod conn;
mod fork;
mod host;
mod packet;
mod rx;
mod table;
mod tx;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixListener;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use self::fork::Hold;
use self::host::{FIRST_HOST_PORT, Host};
use self::table::Table;
use crate::GuestMemory;
use crate::virtio::device::{DeviceFault, Progress, VirtioDevice, copy_config};
use crate::virtio::queue::VirtQueue;
use crate::virtio::transport::TransportError;

pub use self::conn::Greeting;
pub use self::host::{GuestConnect, PollEntry, VsockToken};

/// The host's address, `VMADDR_CID_HOST`.
pub const HOST_CID: u64 = 2;
/// Index of the receive queue (host to guest).
pub const RX: usize = 0;
/// Index of the transmit queue (guest to host).
pub const TX: usize = 1;
/// Index of the event queue.
pub const EVENT: usize = 2;

/// `VIRTIO_VSOCK_F_STREAM`
const F_STREAM: u64 = 1 << 0;

/// Limits and address of a vsock device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VsockOptions {
    /// The guest's address, 3 by default.
    pub guest_cid: u64,
    /// Bytes held for each connection that its host peer has not read, 64 KiB by default.
    pub buf_alloc: u32,
    /// Connections at a time, 1024 by default.
    pub max_connections: usize,
    /// Connections of the guest that their port's owner has not taken, 32 by default.
    pub backlog: usize,
}

impl Default for VsockOptions {
    fn default() -> Self {
        Self {
            guest_cid: 3,
            buf_alloc: 64 << 10,
            max_connections: 1024,
            backlog: 32,
        }
    }
}

/// What a snapshot holds of a vsock device. Its connections do not survive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// The guest's address.
    pub guest_cid: u64,
    /// Host port of the next connection that the host opens.
    pub next_port: u32,
}

/// A connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No driver of the guest uses the device.
    #[error("the guest's vsock driver is not active")]
    Inactive,
    /// The device has as many connections as it may.
    #[error("too many vsock connections")]
    TooMany,
    /// The stream cannot be made nonblocking.
    #[error("stream cannot be used")]
    Stream(#[source] io::Error),
    /// The device is detached or its eventfd failed.
    #[error("device cannot be used")]
    Transport(#[from] TransportError),
}

/// The vsock device.
#[derive(Debug)]
pub struct Vsock {
    options: VsockOptions,
    active: bool,
    /// Made of a saved state: the guest's connections are those of another process.
    restored: bool,
    next_port: u32,
    ports: BTreeSet<u32>,
    table: Table,
    host: Host,
    hold: Option<Hold>,
}

impl Vsock {
    /// A device without connections.
    pub fn new(options: VsockOptions) -> Self {
        Self {
            options,
            active: false,
            restored: false,
            next_port: FIRST_HOST_PORT,
            ports: BTreeSet::new(),
            table: Table::default(),
            host: Host::default(),
            hold: None,
        }
    }

    /// What has to be saved.
    pub fn state(&self) -> VsockState {
        VsockState {
            guest_cid: self.options.guest_cid,
            next_port: self.next_port,
        }
    }

    /// The device in another process, for `VirtioMmio::from_state`. The guest is told that its connections are gone,
    /// as in a daughter. The address is the saved one.
    pub fn from_state(options: VsockOptions, state: VsockState) -> Self {
        let mut this = Self::new(VsockOptions {
            guest_cid: state.guest_cid,
            ..options
        });
        this.restored = true;
        this.next_port = state.next_port.clamp(FIRST_HOST_PORT, u32::MAX - 1);
        this
    }

    /// Connections that exist.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Lets the guest connect to `port` of the host; all others are refused.
    pub fn listen(&mut self, port: u32) {
        self.ports.insert(port);
    }

    /// Refuses `port` from now on.
    pub fn unlisten(&mut self, port: u32) {
        self.ports.remove(&port);
    }

    /// The oldest connection that the guest has opened and nobody has taken.
    pub fn take_guest_connect(&mut self) -> Option<GuestConnect> {
        self.host.backlog.pop_front()
    }

    /// Accepts clients on `listener`, which is made nonblocking. A client writes `CONNECT <port>\n` and reads
    /// `OK <host_port>\n` once the guest has accepted; a refusal is the end of its stream. The listener before, if
    /// any, is closed.
    ///
    /// # Errors
    /// The listener cannot be made nonblocking.
    pub fn set_listener(&mut self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.host.listener = Some(listener);
        Ok(())
    }

    /// Adds every socket that has to be polled now. The set changes whenever the device is used.
    pub fn poll_fds(&self, entries: &mut Vec<PollEntry>) {
        self.sockets(entries);
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_max_sizes(&self) -> &'static [u16] {
        &[256, 256, 32]
    }

    /// No `VIRTIO_F_EVENT_IDX`: it would keep back the notification about a recycled event buffer.
    fn features(&self) -> u64 {
        F_STREAM
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.options.guest_cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, _features: u64) {
        self.active = true;
        if std::mem::take(&mut self.restored) {
            self.hold = Some(Hold::Undelivered);
        }
    }

    /// Whatever queue was notified: a packet of the guest's may have to be answered, and an answer may have waited
    /// for a receive buffer.
    fn process(
        &mut self,
        _index: usize,
        queues: &mut [VirtQueue],
        mem: &GuestMemory,
    ) -> Result<Progress, DeviceFault> {
        self.resume_listener();
        self.advance_hold(queues, mem)?;
        let sent = self.fill_rx(queues, mem)?;
        let taken = self.drain_tx(queues, mem)?;
        let answered = if taken == Progress::Idle && sent == Progress::More {
            sent
        } else {
            self.fill_rx(queues, mem)?
        };
        Ok(match (taken, answered) {
            (Progress::More, _) | (_, Progress::More) => Progress::More,
            // The guest's packets wait for resets to be sent, of which some now were.
            (Progress::Stalled, Progress::Idle) => Progress::More,
            (Progress::Stalled, _) | (_, Progress::Stalled) => Progress::Stalled,
            (Progress::Idle, Progress::Idle) => Progress::Idle,
        })
    }

    fn reset(&mut self) {
        self.active = false;
        self.restored = false;
        self.hold = None;
        // The guest's sockets are gone; closing ours tells their peers.
        self.table.take_all().for_each(drop);
        self.host.close_streams();
    }

    fn forget_fds(&mut self) {
        self.lose_streams();
    }
}
