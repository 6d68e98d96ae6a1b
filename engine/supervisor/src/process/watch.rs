//! What the supervisor waits for.
//!
//! Invariant: a descriptor leaves the set before it is closed, since a duplicate in another process would keep it there.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Descriptors taken note of in one turn.
const TURN: usize = 64;

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Somebody wants to connect.
    Listener,
    /// A newcomer or the client.
    Peer(u64),
    /// Children have ended.
    Children,
    /// Words on a line.
    Line(u64),
    /// The process of a ward, by its id, has ended.
    Ward(u32),
}

/// The set.
pub(super) struct Watch {
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    numbers: HashMap<i32, u64>,
    next: u64,
}

impl Watch {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sources: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
        })
    }

    /// Waits for `fd` to become readable from now on.
    pub(super) fn add(&mut self, fd: impl AsFd, source: Source) -> Result<(), Errno> {
        let fd = fd.as_fd();
        let number = self.next;
        let data = epoll::EventData::new_u64(number);
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)?;
        self.next += 1;
        self.sources.insert(number, source);
        self.numbers.insert(raw(fd), number);
        Ok(())
    }

    /// Whether `fd`, which is in the set, is also waited for to become writable.
    pub(super) fn also_writable(&self, fd: impl AsFd, wanted: Wanted) {
        let fd = fd.as_fd();
        let Some(number) = self.numbers.get(&raw(fd)) else {
            return;
        };
        let flags = match wanted {
            Wanted::Yes => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Wanted::No => epoll::EventFlags::IN,
        };
        // It is in the set, and no memory is needed.
        epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(*number), flags).ok();
    }

    /// Before `fd` is closed.
    pub(super) fn remove(&mut self, fd: impl AsFd) {
        let fd = fd.as_fd();
        if let Some(number) = self.numbers.remove(&raw(fd)) {
            self.sources.remove(&number);
            // It is in the set.
            epoll::delete(&self.epoll, fd).ok();
        }
    }

    /// Waits, for `limit` at most, and names who is ready.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Result<Vec<Source>, Errno> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut events = Vec::with_capacity(TURN);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            limit.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let known = |event: &epoll::Event| self.sources.get(&event.data.u64()).copied();
        Ok(events.iter().filter_map(known).collect())
    }
}

/// Whether room to write is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is.
    Yes,
    /// It is not.
    No,
}

fn raw(fd: std::os::fd::BorrowedFd<'_>) -> i32 {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd()
}
