//! Listening sockets. Invariant: a connection is a stream socket whatever its family, so all code behind this file is
//! the same for vsock and Unix sockets.
//!
//! `unsafe` here: socket and bind for `AF_VSOCK` (vsock(7)), whose address neither std nor rustix knows.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::options::Listen;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

/// Connections the kernel keeps for us before they are accepted.
const BACKLOG: i32 = 64;

impl Listener {
    /// Listens at `address`. A Unix socket left over at the path is replaced.
    ///
    /// # Errors
    /// That of socket(2), bind(2) or listen(2).
    pub fn bind(address: &Listen) -> io::Result<Self> {
        match address {
            Listen::Vsock(port) => Self::bind_vsock(*port),
            Listen::Unix(path) => {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let listener = UnixListener::bind(path)?;
                Ok(Self {
                    socket: listener.into(),
                })
            }
        }
    }

    fn bind_vsock(port: u32) -> io::Result<Self> {
        // SAFETY: socket(2) takes no pointers.
        let raw =
            unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made this descriptor and nothing else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let address = libc::sockaddr_vm {
            svm_family: libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default(),
            svm_reserved1: 0,
            svm_port: port,
            svm_cid: libc::VMADDR_CID_ANY,
            svm_zero: [0; 4],
        };
        let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or_default();
        // SAFETY: `address` is a sockaddr_vm of `len` bytes that lives until the call returns.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { socket })
    }

    /// The next connection.
    ///
    /// # Errors
    /// That of accept(2).
    pub fn accept(&self) -> io::Result<UnixStream> {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        // std's listener insists on an AF_UNIX peer address; its stream does not ask.
        Ok(rustix::net::accept_with(&self.socket, flags)?.into())
    }
}
