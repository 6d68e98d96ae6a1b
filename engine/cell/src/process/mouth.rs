//! The cell's end of its control socket, which nobody may be reading.
//!
//! A supervisor holds the other end open while the engine is away, so a full socket stays full for as long as that takes,
//! and a guest goes on meanwhile. Invariant: nothing said here waits. What finds no room is kept, at most [`MAX_KEPT`]
//! packets, and sent in order once there is some; then events are dropped, and of answers the oldest, whose asker has gone
//! long since: an engine has one ask under way.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use brood_control::{Control, SocketError};
use rustix::io::Errno;

use super::refusal::refuse;
use crate::protocol::{Ask, Event, FromCell, Refusal, Reply};

/// The most packets that wait for room.
const MAX_KEPT: usize = 64;

/// The socket, and what waits for room on it.
pub(super) struct Mouth {
    control: Option<Control>,
    kept: VecDeque<(FromCell, Vec<OwnedFd>)>,
}

impl Mouth {
    pub(super) fn new(control: Control) -> Self {
        Self {
            control: Some(control),
            kept: VecDeque::new(),
        }
    }

    /// What to poll for, and on what.
    pub(super) fn interest(&self) -> libc::pollfd {
        let fd: RawFd = self
            .control
            .as_ref()
            .map_or(-1, |control| control.fd().as_raw_fd());
        let room = if self.kept.is_empty() {
            0
        } else {
            libc::POLLOUT
        };
        libc::pollfd {
            fd,
            events: libc::POLLIN | room,
            revents: 0,
        }
    }

    /// The next ask; none if there is none yet, or the peer has gone and this is known.
    pub(super) fn hear(&self) -> Result<Option<(Ask, Vec<OwnedFd>)>, SocketError> {
        match &self.control {
            Some(control) => {
                let received = control.receive_at_once()?;
                Ok(received.map(|received| (received.message, received.fds)))
            }
            None => Ok(None),
        }
    }

    /// The peer has gone: nobody hears or says anything any more.
    pub(super) fn close(&mut self) {
        self.control = None;
        self.kept.clear();
    }

    /// In one who came out of a fork: the descriptors were the mother's and are closed, the memory is her own to free.
    pub(super) fn forget(mut self) {
        std::mem::forget(self.control.take());
        for (_, fds) in self.kept.drain(..) {
            fds.into_iter().for_each(std::mem::forget);
        }
    }

    /// Tells an event.
    pub(super) fn tell(&mut self, event: Event, fds: Vec<OwnedFd>) {
        if self.kept.len() < MAX_KEPT {
            self.say(FromCell::Event(event), fds);
        }
    }

    /// Answers an ask.
    pub(super) fn answer(&mut self, id: u64, result: Result<Reply, Refusal>, fds: Vec<OwnedFd>) {
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.say(FromCell::Answer { id, result }, fds);
    }

    /// Sends what was kept, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some((message, fds)) = self.kept.pop_front() {
            if let Some(unsent) = self.send(message, fds) {
                self.kept.push_front(unsent);
                return;
            }
        }
    }

    fn say(&mut self, message: FromCell, fds: Vec<OwnedFd>) {
        let unsent = match self.kept.is_empty() {
            true => self.send(message, fds),
            false => Some((message, fds)),
        };
        self.kept.extend(unsent);
    }

    /// Sends one packet; gives it back if there is no room.
    fn send(&self, message: FromCell, fds: Vec<OwnedFd>) -> Option<(FromCell, Vec<OwnedFd>)> {
        let control = self.control.as_ref()?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        match (control.send_at_once(&message, &borrowed), &message) {
            (Err(SocketError::Call(Errno::WOULDBLOCK)), _) => Some((message, fds)),
            (Err(SocketError::TooLarge { bytes, fds }), FromCell::Answer { id, .. }) => {
                let cause = format!("the answer has {bytes} bytes and {fds} descriptors");
                let refusal = refuse("answer", &cause, "ask for less at a time");
                let id = *id;
                let result = Err(refusal);
                self.send(FromCell::Answer { id, result }, Vec::new())
            }
            // A peer that is gone is noticed at the next poll.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_kept_up_to_a_bound_and_answers_come_through_in_order() {
        let (ours, theirs) = Control::pair().expect("socketpair");
        let mut mouth = Mouth::new(Control::new(ours));
        for vcpu in 0..5000 {
            mouth.tell(Event::MailboxReply { vcpu, value: 0 }, Vec::new());
        }
        assert_eq!(mouth.kept.len(), MAX_KEPT);
        mouth.answer(7, Ok(Reply::Done), Vec::new());
        assert_eq!(mouth.kept.len(), MAX_KEPT);
        let reader = Control::new(theirs);
        let mut heard = Vec::new();
        loop {
            let received = reader.receive_at_once().expect("a packet");
            match received.map(|received| received.message) {
                Some(FromCell::Event(Event::MailboxReply { vcpu, .. })) => heard.push(vcpu),
                Some(FromCell::Answer { id, .. }) => {
                    assert_eq!(id, 7);
                    break;
                }
                Some(_) => unreachable!("nothing else was said"),
                None => mouth.flush(),
            }
        }
        assert!(heard.is_sorted(), "events in order");
        assert!(heard.len() < 5000, "some were dropped");
        assert!(mouth.kept.is_empty());
    }
}
