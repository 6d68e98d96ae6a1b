//! One control socket: whole messages with descriptors over SOCK_SEQPACKET (man 7 unix).
//!
//! Invariant: a message is one packet, at most [`MAX_BYTES`]; a truncated one is an error, never half a message.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt::set_socket_passcred,
};
use rustix::process::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest packet either side sends.
pub const MAX_BYTES: usize = 16 << 10;
/// The most descriptors one packet carries (SCM_MAX_FD in the kernel).
pub const MAX_FDS: usize = 253;

/// A control socket could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer closed its end.
    #[error("the peer has closed the control socket")]
    Closed,
    /// A system call failed.
    #[error("the control socket failed")]
    Call(#[from] Errno),
    /// A message is larger than a packet or carries more descriptors than one can.
    #[error("a message of {bytes} bytes and {fds} descriptors does not fit one packet")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// Its descriptors.
        fds: usize,
    },
    /// The packet is not a message of this protocol.
    #[error("the packet is not a message of this protocol")]
    Malformed(#[from] postcard::Error),
}

/// What one packet brought.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    /// The descriptors that came along.
    pub fds: Vec<OwnedFd>,
    /// The process that sent it, by the kernel's word, where the receiving end was made to name senders.
    pub sender: Option<Pid>,
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// The end that `fd` is.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Two connected ends, both close-on-exec.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends a message and waits for room if need be.
    ///
    /// # Errors
    /// The peer is gone, or the message does not fit a packet.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SocketError> {
        self.send_with(message, fds, SendFlags::NOSIGNAL)
    }

    /// As [`Control::send`], but fails where it would wait.
    ///
    /// # Errors
    /// Also where there is no room.
    pub fn send_at_once<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SocketError> {
        self.send_with(message, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), SocketError> {
        let bytes = postcard::to_stdvec(message)?;
        if bytes.len() > MAX_BYTES || fds.len() > MAX_FDS {
            return Err(SocketError::TooLarge {
                bytes: bytes.len(),
                fds: fds.len(),
            });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(SocketError::TooLarge {
                bytes: bytes.len(),
                fds: fds.len(),
            });
        }
        let packet = [IoSlice::new(&bytes)];
        retry(|| sendmsg(&self.0, &packet, &mut ancillary, flags)).map_err(
            |errno| match errno {
                Errno::PIPE | Errno::CONNRESET => SocketError::Closed,
                other => SocketError::Call(other),
            },
        )?;
        Ok(())
    }

    /// Two connected ends; with a message that arrives at the first, the kernel says which process sent it (SO_PASSCRED,
    /// man 7 unix).
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn pair_that_names_senders() -> Result<(OwnedFd, OwnedFd), Errno> {
        let (ours, theirs) = Self::pair()?;
        set_socket_passcred(&ours, true)?;
        Ok((ours, theirs))
    }

    /// The next message, waiting for it.
    ///
    /// # Errors
    /// The peer is gone, or the packet is not such a message; the socket can be used on in the latter case.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), SocketError> {
        let received = self.packet(RecvFlags::empty())?;
        Ok((received.message, received.fds))
    }

    /// As [`Control::receive`], with the process that sent it if this end was made to name senders.
    ///
    /// # Errors
    /// As [`Control::receive`].
    pub fn receive_from<T: DeserializeOwned>(&self) -> Result<Received<T>, SocketError> {
        self.packet(RecvFlags::empty())
    }

    /// As [`Control::receive_from`], but none where it would wait.
    ///
    /// # Errors
    /// As [`Control::receive`].
    pub fn receive_at_once<T: DeserializeOwned>(&self) -> Result<Option<Received<T>>, SocketError> {
        match self.packet(RecvFlags::DONTWAIT) {
            Err(SocketError::Call(Errno::WOULDBLOCK)) => Ok(None),
            other => other.map(Some),
        }
    }

    fn packet<T: DeserializeOwned>(&self, flags: RecvFlags) -> Result<Received<T>, SocketError> {
        let mut bytes = [0_u8; MAX_BYTES];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry(|| {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = flags | RecvFlags::CMSG_CLOEXEC;
            recvmsg(&self.0, &mut slices, &mut ancillary, flags)
        })
        .map_err(|errno| match errno {
            Errno::CONNRESET => SocketError::Closed,
            other => SocketError::Call(other),
        })?;
        let (mut fds, mut sender) = (Vec::new(), None);
        for message in ancillary.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                _ => {}
            }
        }
        if received.bytes == 0 {
            return Err(SocketError::Closed);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(SocketError::TooLarge {
                bytes: received.bytes,
                fds: fds.len(),
            });
        }
        let packet = bytes.get(..received.bytes).unwrap_or_default();
        Ok(Received {
            message: postcard::from_bytes(packet)?,
            fds,
            sender,
        })
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (left, right) = Control::pair().expect("socketpair");
        let (left, right) = (Control::new(left), Control::new(right));
        left.send(&(7_u32, "text"), &[left.fd(), right.fd()])
            .expect("send");
        let ((number, text), fds): ((u32, String), _) = right.receive().expect("receive");
        assert_eq!((number, text.as_str(), fds.len()), (7, "text", 2));
    }

    #[test]
    fn garbage_is_an_error_and_the_socket_lives_on() {
        let (left, right) = Control::pair().expect("socketpair");
        let (left, right) = (Control::new(left), Control::new(right));
        rustix::net::send(left.fd(), &[0xff; 64], SendFlags::empty()).expect("send");
        assert!(matches!(
            right.receive::<String>(),
            Err(SocketError::Malformed(_))
        ));
        left.send(&"next", &[]).expect("send");
        assert_eq!(right.receive::<String>().expect("receive").0, "next");
    }

    #[test]
    fn a_closed_peer_is_named() {
        let (left, right) = Control::pair().expect("socketpair");
        drop(left);
        assert!(matches!(
            Control::new(right).receive::<u8>(),
            Err(SocketError::Closed)
        ));
    }
}
