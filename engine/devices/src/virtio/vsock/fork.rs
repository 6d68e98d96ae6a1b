//! What a fork does to streams: the mother keeps hers, a daughter has none and her guest is told so.
//!
//! ```text
//!  daughter: forget_fds() ─► Hold::Undelivered ─ event buffer ─► Hold::Delivered ─ buffer recycled ─► no hold
//!                             no REQUEST or RESPONSE reaches the guest in these states
//! ```
//!
//! Linux handles the event queue and the receive queue concurrently, and its handling of `TRANSPORT_RESET` kills
//! every connected socket. A connection opened before it did that would die at once, hence the hold: it ends when the
//! driver gives the event buffer back, which it does after handling the event.

use rustix::event::PollFlags;
use std::os::unix::net::UnixStream;

use super::conn::Greeting;
use super::host::VsockToken;
use super::{EVENT, OpenError, RX, Vsock};
use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError};
use crate::virtio::device::{DeviceFault, Progress};
use crate::virtio::queue::VirtQueue;
use crate::virtio::transport::{TransportError, VirtioMmio};

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.3 §5.10.6.7).
const TRANSPORT_RESET: [u8; 4] = 0u32.to_le_bytes();

/// Why new connections wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// The event waits for a buffer.
    Undelivered,
    /// The event is with the driver, whose available index was this.
    Delivered(u16),
}

impl Vsock {
    /// Whether new connections wait for the guest to handle the transport reset.
    pub fn holding(&self) -> bool {
        self.hold.is_some()
    }

    /// Gives up every stream, without closing any, and tells the guest at the next opportunity.
    pub(super) fn lose_streams(&mut self) {
        for conn in self.table.take_all() {
            if let Some(stream) = conn.stream {
                std::mem::forget(stream);
            }
        }
        self.host.forget();
        self.hold = self.active.then_some(Hold::Undelivered);
    }

    /// Delivers a transport reset that is due, and sees whether one that was delivered has been handled.
    pub(super) fn advance_hold(
        &mut self,
        queues: &mut [VirtQueue],
        mem: &GuestMemory,
    ) -> Result<(), DeviceFault> {
        let (Some(hold), Some(queue)) = (self.hold, queues.get_mut(EVENT)) else {
            return Ok(());
        };
        if !queue.ready() {
            // A driver without an event queue handles no reset.
            self.release_hold();
            return Ok(());
        }
        match hold {
            Hold::Undelivered => {
                let mut chain = Chain::default();
                if queue.pop(mem, &mut chain)? {
                    if chain.readable_len() > 0 || chain.writable_len() < 4 {
                        let what = "an event buffer is device-writable and has 4 bytes";
                        return Err(ChainError::Shape { what }.into());
                    }
                    // Read first: the driver may give the buffer back as soon as it is used.
                    let index = queue.avail_index(mem)?;
                    chain.write(mem, 0, &TRANSPORT_RESET)?;
                    queue.push_used(mem, chain.head(), 4)?;
                    self.hold = Some(Hold::Delivered(index));
                }
            }
            Hold::Delivered(index) => {
                if queue.avail_index(mem)? != index {
                    self.release_hold();
                }
            }
        }
        Ok(())
    }

    fn release_hold(&mut self) {
        self.hold = None;
        self.table.enqueue_all();
    }
}

impl VirtioMmio<Vsock> {
    /// In a daughter, after `forget_events` and `attach`: makes sure that no stream of the mother is left and tells
    /// the guest that all its connections are gone. New connections are held until the guest has handled that; if no
    /// driver is active there is nothing to hold.
    ///
    /// # Errors
    /// [`TransportError::Detached`], or a failing eventfd.
    pub fn become_daughter(&mut self, mem: &GuestMemory) -> Result<Progress, TransportError> {
        self.device_mut().lose_streams();
        self.process(EVENT, mem)
    }

    /// Opens a connection to `port` of the guest over `stream`, which is made nonblocking. The guest's refusal is the
    /// end of the stream.
    ///
    /// # Errors
    /// No driver is active, there are too many connections, or the stream or an eventfd failed. The stream is closed.
    pub fn open(
        &mut self,
        port: u32,
        stream: UnixStream,
        greeting: Greeting,
        mem: &GuestMemory,
    ) -> Result<VsockToken, OpenError> {
        stream.set_nonblocking(true).map_err(OpenError::Stream)?;
        let token = self.device_mut().open_stream(port, stream, greeting)?;
        self.process(RX, mem)?;
        Ok(token)
    }

    /// poll(2) found the socket `token` to be `ready`.
    ///
    /// # Errors
    /// [`TransportError::Detached`], or a failing eventfd.
    pub fn host_ready(
        &mut self,
        token: VsockToken,
        ready: PollFlags,
        mem: &GuestMemory,
    ) -> Result<Progress, TransportError> {
        if self.events().is_none() {
            return Err(TransportError::Detached);
        }
        self.device_mut().socket_ready(token, ready);
        self.process(RX, mem)
    }
}
