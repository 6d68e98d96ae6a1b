//! The children of a cell or of the supervisor: their status is taken when they end.
//!
//! A daughter is a child of the cell she was forked by as long as that cell lives; then the reaper of all cells inherits
//! her. `SIGCHLD` is blocked in every thread, so it interrupts no vCPU, and read from a signalfd in the main loop.
//! Invariant: no child that has ended stays a zombie for longer than one turn of that loop. Unsafe: the signal calls.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// How a process ended, as the kernel tells its parent (man 2 waitpid).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnd {
    /// Its process id in the engine's namespace.
    pub pid: u32,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

/// Where the ends of children are heard.
#[derive(Debug)]
pub struct Children(OwnedFd);

impl Children {
    /// Blocks `SIGCHLD` for this thread and all it will start, and listens for it.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the out-pointer is a live local.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialised above.
        let mut set = unsafe { set.assume_init() };
        // SAFETY: initialised above; the signal exists.
        unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) };
        // SAFETY: the set is a live local and the old mask is not wanted.
        let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the set is a live local; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Becomes readable when a child has ended.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes the status of every child that has ended.
    pub fn take_ended(&self) -> Vec<ChildEnd> {
        let mut signal = [0_u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        // Several ends may share one signal, so what it says is not looked at; EAGAIN means it was taken already.
        rustix::io::read(&self.0, &mut signal).ok();
        let mut ended = Vec::new();
        loop {
            let mut status = 0;
            // SAFETY: the out-pointer is a live local.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            let Some(pid) = u32::try_from(pid).ok().filter(|pid| *pid != 0) else {
                break;
            };
            ended.push(ChildEnd {
                pid,
                code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
                signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
            });
        }
        ended
    }
}
