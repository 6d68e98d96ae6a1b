//! What a cell has said and nobody has looked at yet, and who waits for it.
//!
//! The reader puts packets in; whoever owns the cell takes them out. Invariant: what waits is bounded, whatever a cell
//! says, and the reader never waits for a cell.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use brood_crash_point::crash_point;
use rustix::process::Pid;

use super::exits::Exits;
use super::reader::Heard;
use super::{LayerSource, PATIENCE};
use crate::protocol::{Ask, Ending, Event, FromCell, Refusal, Reply, Request};
use brood_control::{Control, Received, SocketError};

/// The most answers to asks that were given up, and the most events, that wait to be looked at.
const MAX_ANSWERS: usize = 64;
const MAX_EVENTS: usize = 1024;
/// Asks of an engine that takes a line over from another have numbers above this one.
pub(super) const OTHERS: u64 = 1 << 63;

type Answer = (Result<Reply, Refusal>, Vec<OwnedFd>);

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) answers: HashMap<u64, Answer>,
    pub(super) events: VecDeque<(Event, Vec<OwnedFd>)>,
    /// Who sent the last birth, as the kernel says.
    pub(super) announced_by: Option<Pid>,
    /// Whom the frozen point forked, where this line belongs to what it became.
    delivered: Option<Vec<u32>>,
    pub(super) ending: Option<Ending>,
    pub(super) closed: bool,
    /// The greeting whose answer is not here yet: what comes before it is for an engine that has died.
    greeting: Option<u64>,
}

impl Inbox {
    /// What nobody looks at is not kept for ever, least of all the streams a guest opens.
    fn keep(&mut self, event: Event, fds: Vec<OwnedFd>) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back((event, fds));
        }
    }
}

/// What the cells of one lineage share on the engine's side.
#[derive(Clone, Debug)]
pub(super) struct Kin {
    pub(super) layers: LayerSource,
    pub(super) exits: Arc<Exits>,
}

/// The engine's end of one control socket.
pub(super) struct Line {
    pub(super) control: Control,
    inbox: Mutex<Inbox>,
    pub(super) changed: Condvar,
    pub(super) kin: Kin,
}

impl Line {
    /// A line whose first ask has this number; one that others have used is numbered above [`OTHERS`].
    pub(super) fn new(control: Control, kin: Kin, first_ask: u64) -> Self {
        let greeting = (first_ask > OTHERS).then_some(first_ask);
        Self {
            control,
            inbox: Mutex::new(Inbox {
                greeting,
                ..Inbox::default()
            }),
            changed: Condvar::new(),
            kin,
        }
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one packet off the socket, which has one or has ended.
    pub(super) fn hear(&self) -> Heard {
        let mut heard = Heard::More;
        match self.control.receive_from::<FromCell>() {
            Ok(Received {
                message: FromCell::Answer { id, result },
                fds,
                ..
            }) => {
                let mut inbox = self.inbox();
                if inbox.greeting.is_some_and(|greeting| greeting != id) {
                    return heard;
                }
                inbox.greeting = None;
                if id != 0 && inbox.answers.len() < MAX_ANSWERS {
                    inbox.answers.insert(id, (result, fds));
                }
            }
            Ok(Received {
                message: FromCell::Event(event),
                fds,
                sender,
            }) => {
                if matches!(event, Event::Born { .. }) {
                    self.inbox().announced_by = sender;
                }
                self.take(event, fds);
            }
            Err(SocketError::Malformed(_)) => {}
            Err(_) => {
                self.inbox().closed = true;
                heard = Heard::End;
            }
        }
        self.changed.notify_all();
        heard
    }

    fn take(&self, event: Event, fds: Vec<OwnedFd>) {
        let is_for_another = self.inbox().greeting.is_some();
        match event {
            event if is_for_another && !matches!(event, Event::Ended(_)) => {}
            Event::WantsLayer => self.give_layer(),
            Event::Delivered { infants } => self.inbox().delivered = Some(infants),
            Event::ChildEnded(end) => self.kin.exits.tell_by_cell(end),
            event => {
                let mut inbox = self.inbox();
                if let Event::Ended(ending) = &event {
                    inbox.ending = Some(ending.clone());
                }
                inbox.keep(event, fds);
            }
        }
    }

    /// Whom the frozen point forked, in order; none of them if it ended without telling.
    pub(super) fn delivered(&self) -> Vec<u32> {
        let inbox = self.inbox();
        let silent = |inbox: &mut Inbox| inbox.delivered.is_none() && !inbox.closed;
        let (mut inbox, _) = self
            .changed
            .wait_timeout_while(inbox, PATIENCE, silent)
            .unwrap_or_else(PoisonError::into_inner);
        inbox.delivered.take().unwrap_or_default()
    }

    /// Without a layer the guest's writes wait; the event queue then shows why. The reader does not wait for a cell that
    /// takes nothing off its socket.
    fn give_layer(&self) {
        let given = self
            .kin
            .layers
            .fresh()
            .map_err(|error| error.to_string())
            .and_then(|layer| {
                let ask = Ask {
                    id: 0,
                    request: Request::GiveLayer,
                };
                crash_point(ask.request.name(), || {
                    self.control.send_at_once(&ask, &[layer.as_fd()])
                })
                .map_err(|error| error.to_string())
            });
        if given.is_err() {
            self.inbox().keep(Event::WantsLayer, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_wants_layers_without_end_fills_no_memory() {
        let (ours, _theirs) = Control::pair().expect("socketpair");
        let kin = Kin {
            layers: LayerSource::new("/nowhere"),
            exits: Arc::default(),
        };
        let line = Line::new(Control::new(ours), kin, 1);
        for _ in 0..2 * MAX_EVENTS {
            line.take(Event::WantsLayer, Vec::new());
        }
        assert_eq!(line.inbox().events.len(), MAX_EVENTS);
    }
}
